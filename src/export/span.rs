//! The spans of an export: times of change, each with the patients whose resources of that time it has. No resource is in
//! two of them.

use super::kickoff::Kickoff;
use crate::store::{Changed, Filter, Patients, ResourceType};
use fhir_bulk_pg::error::Result;

/// Resources that were changed at a certain time, of certain patients.
#[derive(Clone)]
pub struct Span {
    pub changed: Changed,
    /// `None` for all.
    pub patients: Option<Patients>,
}

impl Span {
    /// The spans of an export of these patients. Of new ones among them it has everything, whenever it was changed.
    pub fn of(kickoff: &Kickoff, patients: Option<&Patients>, new: Option<&Patients>) -> Vec<Span> {
        let Kickoff { since, until, .. } = *kickoff;
        let mut spans = vec![Span { changed: Changed::Within { from: since, until }, patients: patients.cloned() }];
        if let (Some(since), Some(new)) = (since, new) {
            spans.push(Span { changed: Changed::Earlier { since, until }, patients: Some(new.clone()) });
        }
        spans
    }

    /// Which resources of a type it has, of those that were changed at its time; `None` for all.
    ///
    /// # Errors
    /// 0A000 if a search parameter that a query uses has been changed since.
    pub fn filter(&self, kickoff: &Kickoff, name: &str) -> Result<Option<Filter>> {
        let queries = kickoff.filters.of(name)?;
        Ok(kickoff.level.filter(queries, ResourceType::new(name)?.canonical(), self.patients.as_ref()))
    }
}
