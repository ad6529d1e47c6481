//! The inputs of an import: those of its request, and the files and objects that these mean.

use super::indexes;
use super::names::Types;
use super::request::{Asked, Input};
use crate::jobs::Added;
use crate::source::Listing;
use crate::store::ResourceType;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::json;
use std::collections::BTreeSet;

/// The most inputs of one import.
const MOST: usize = 1_000_000;
/// How many inputs are added at once.
const TOGETHER: usize = 1000;

/// Adds inputs to a job as they are listed, so that there are never many of them in memory.
pub struct Inputs<'a> {
    job: &'a mut Added,
    retries: u32,
    /// Those that are not added yet.
    held: Vec<Input>,
    count: usize,
    /// Read when the first listing needs them.
    types: Option<Types>,
    /// The types whose tables' indexes are disabled, if any are.
    disabled: Option<BTreeSet<String>>,
}

impl Inputs<'_> {
    /// The inputs of a job. Requests for listings are retried `retries` times.
    /// With `disable_indexes` the role must be allowed to do so with the tables of all their types.
    pub fn of(job: &mut Added, retries: u32, disable_indexes: bool) -> Inputs<'_> {
        let disabled = disable_indexes.then(BTreeSet::new);
        Inputs { job, retries, held: Vec::new(), count: 0, types: None, disabled }
    }

    /// Adds a source, or all that are listed at its URL.
    ///
    /// # Errors
    /// 58P01 if there is nothing; 54000 if there are too many; 42501 if the indexes of a table may not be disabled; the errors
    /// of listing.
    pub fn add(&mut self, asked: Asked) -> Result<()> {
        let Asked { resource_type, url } = asked;
        let Some(mut listing) = Listing::start(&url, self.retries)? else {
            return self.hold(Input { resource_type, url, within: None });
        };
        let before = self.count;
        loop {
            let urls = listing.next()?;
            if urls.is_empty() {
                break;
            }
            for url in urls {
                let resource_type = match &resource_type {
                    Some(given) => Some(given.clone()),
                    None => self.types()?.in_name(&url).map(|found| found.as_str().to_owned()),
                };
                self.hold(Input { resource_type, url, within: listing.within().map(str::to_owned) })?;
            }
        }
        if self.count == before { Err(listing.nothing()) } else { Ok(()) }
    }

    /// Adds those that are still held.
    ///
    /// # Errors
    /// 22023 if indexes are to be disabled, and no input has a type.
    pub fn finish(mut self) -> Result<()> {
        self.write();
        if self.disabled.is_some_and(|types| types.is_empty()) {
            let message = "disableIndexes needs a resourceType, and no input has one";
            return Err(Error::invalid_argument(message)
                .detail("The tables of types that only lines name are not known when the import begins.")
                .hint("Give resourceType, or files with the type in their names, or leave out disableIndexes."));
        }
        Ok(())
    }

    fn hold(&mut self, input: Input) -> Result<()> {
        if self.count == MOST {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the import has more than {MOST} inputs"),
            )
            .hint("Import the folders in it one by one."));
        }
        if let (Some(types), Some(name)) = (&mut self.disabled, &input.resource_type)
            && !types.contains(name)
        {
            indexes::check(&ResourceType::new(name)?)?;
            types.insert(name.clone());
        }
        self.count += 1;
        self.held.push(input);
        if self.held.len() == TOGETHER {
            self.write();
        }
        Ok(())
    }

    fn write(&mut self) {
        let inputs: Vec<_> = self.held.drain(..).map(|input| json!(input)).collect();
        self.job.add(&inputs);
    }

    fn types(&mut self) -> Result<&Types> {
        if self.types.is_none() {
            self.types = Some(Types::known()?);
        }
        Ok(self.types.as_ref().expect("read above"))
    }
}
