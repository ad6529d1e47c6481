//! A whole filter: queries of which one has to hold, each with conditions that all have to.

use super::condition::{Condition, Searched};
use super::necessary::{self, Necessary};
use super::query;
use super::value::Refused;
use crate::item::Resource;
use crate::model::Model;
use crate::program::Scope;

/// A filter for the resources of a type.
#[derive(Clone, Debug)]
pub struct Filter {
    /// One of them has to hold.
    queries: Vec<Vec<Condition>>,
    bases: Vec<String>,
    version: fhir_bulk_codec::fhir::Version,
    /// What the query has that means nothing, as sentences.
    pub ignored: Vec<String>,
}

impl Filter {
    /// Compiles a search query, the part of a search url after the question mark: `code=8302-2&date=ge2024`. Parameters of
    /// the query are joined by AND, values of a parameter (separated by commas) by OR.
    ///
    /// # Errors
    /// What is not a query, or not supported; it names the parameter.
    pub fn new(query: &str, of: &Searched<'_>) -> Result<Filter, Refused> {
        let mut ignored = Vec::new();
        let mut conditions = Vec::new();
        for clause in query::parse(query)? {
            conditions.extend(Condition::new(&clause, of, &mut ignored)?);
        }
        // All have to hold, in whatever order. Stable: the order of the query is kept within a rank.
        conditions.sort_by_key(Condition::rank);
        Ok(Filter { queries: vec![conditions], bases: of.bases.to_vec(), version: of.version, ignored })
    }

    /// A filter that lets through what one of the filters lets through, which are of the same type. `None` without any.
    pub fn any_of(filters: impl IntoIterator<Item = Filter>) -> Option<Filter> {
        filters.into_iter().reduce(|mut all, filter| {
            all.queries.extend(filter.queries);
            all.ignored.extend(filter.ignored);
            all
        })
    }

    /// Whether a resource fulfils it. Does not fail, whatever the resource contains.
    #[inline]
    pub fn matches(&self, resource: Resource<'_>) -> bool {
        let scope = Scope::new(resource, &self.bases);
        self.queries.iter().any(|query| query.iter().all(|condition| condition.holds(&scope)))
    }

    /// What is true of all resources that fulfil it, in forms that an index can find. All of these have to hold; each may
    /// let more resources through than the filter does.
    pub fn necessary(&self) -> Vec<Necessary> {
        let of_query = |query: &Vec<Condition>| {
            let model = Model::of(self.version);
            query.iter().filter_map(|condition| necessary::of(condition, model, &self.bases)).collect::<Vec<_>>()
        };
        match self.queries.as_slice() {
            [query] => of_query(query),
            queries => necessary::of_one(queries.iter().map(of_query)).into_iter().collect(),
        }
    }
}
