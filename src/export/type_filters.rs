//! `_typeFilter`: search queries that decide which resources of a type are exported.

use super::ignored::{Ignored, shown};
use crate::store::Filter;
use fhir_bulk_paths::search;
use fhir_bulk_pg::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The parameter's name.
const PARAMETER: &str = "_typeFilter";

/// The most queries of a request.
const MAX_QUERIES: usize = 100;

/// The most bytes of all queries: they are compiled several times.
const MAX_BYTES: usize = 256 << 10;

/// The filters of a request, as the queue stores them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TypeFilters {
    /// Types with a query. Of several queries for a type, one has to let a resource through.
    queries: Vec<(String, String)>,
    /// What was left out.
    ignored: Vec<Ignored>,
}

impl TypeFilters {
    /// Reads the values of `_typeFilter`, each one query (`Type?query`) or several joined by commas, for an export of `types`.
    /// A lenient request is exported without the queries that are refused. `check` refuses types that the caller may not have.
    ///
    /// # Errors
    /// 22023 and 0A000, with the query as DETAIL; those of `check`, also for a lenient request.
    pub fn parse(
        values: &[String],
        types: &[String],
        lenient: bool,
        check: impl Fn(&str) -> Result<()>,
    ) -> Result<TypeFilters> {
        let mut filters = TypeFilters::default();
        // A value without any is a query that is refused: without it, all resources would be exported.
        let queries_in = |value| Some(search::type_filters(value)).filter(|queries| !queries.is_empty());
        let queries: Vec<&str> = values.iter().flat_map(|value| queries_in(value).unwrap_or(vec![""])).collect();
        if queries.len() > MAX_QUERIES {
            let message = format!("_typeFilter has {} queries; {MAX_QUERIES} are allowed", queries.len());
            return Err(Error::invalid_argument(message));
        }
        for query in queries {
            if let Some((name, _)) = query.split_once('?') {
                check(name)?;
            }
            match filters.add(query, types) {
                Ok(()) => {}
                Err(error) if lenient => filters.ignored.push(left_out(query, &error)),
                Err(error) => return Err(error.detail(format!("_typeFilter is \"{}\".", shown(query)))),
            }
        }
        Ok(filters)
    }

    fn add(&mut self, query: &str, types: &[String]) -> Result<()> {
        let (name, conditions) = query.split_once('?').ok_or_else(|| {
            Error::invalid_argument(format!("_typeFilter \"{}\" is not a query", shown(query)))
                .hint("It is a type with a search query: Observation?status=final")
        })?;
        let known = types.iter().find(|known| known.eq_ignore_ascii_case(name)).ok_or_else(|| {
            Error::invalid_argument(format!("_typeFilter is for {}, which is not exported", shown(name)))
                .hint("Name the type in _type, or leave out the query.")
        })?;
        let bytes = self.queries.iter().map(|(_, query)| query.len()).sum::<usize>() + conditions.len();
        if bytes > MAX_BYTES {
            return Err(Error::invalid_argument(format!("_typeFilter has more than {MAX_BYTES} bytes of queries")));
        }
        let filter = Filter::new(conditions, known)?;
        for sentence in filter.ignored() {
            self.ignored.push(Ignored {
                parameter: PARAMETER.to_owned(),
                code: "informational".to_owned(),
                diagnostics: sentence.clone(),
            });
        }
        self.queries.push((known.clone(), conditions.to_owned()));
        Ok(())
    }

    /// The filter for a type; `None` if the request has none.
    ///
    /// # Errors
    /// 0A000 if a search parameter that a query uses has been changed since.
    pub fn of(&self, resource_type: &str) -> Result<Option<Filter>> {
        let queries = self.queries.iter().filter(|(name, _)| name == resource_type);
        let filters: Result<Vec<Filter>> = queries.map(|(name, query)| Filter::new(query, name)).collect();
        Ok(Filter::any_of(filters?))
    }

    /// What was left out.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }
}

fn left_out(query: &str, error: &Error) -> Ignored {
    Ignored::new(PARAMETER, &format!("_typeFilter \"{}\" was not applied", shown(query)), error)
}
