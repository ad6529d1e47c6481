//! The inputs of an import: those of its request, and the files and objects that these mean.

use super::names::Types;
use super::request::{Asked, Input};
use crate::jobs::Added;
use crate::source::Listing;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::json;

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
}

impl Inputs<'_> {
    /// The inputs of a job. Requests for listings are retried `retries` times.
    pub fn of(job: &mut Added, retries: u32) -> Inputs<'_> {
        Inputs { job, retries, held: Vec::new(), count: 0, types: None }
    }

    /// Adds a source, or all that are listed at its URL.
    ///
    /// # Errors
    /// 58P01 if there is nothing; 54000 if there are too many; the errors of listing.
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
    pub fn finish(mut self) {
        self.write();
    }

    fn hold(&mut self, input: Input) -> Result<()> {
        if self.count == MOST {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the import has more than {MOST} inputs"),
            )
            .hint("Import the folders in it one by one."));
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
