//! The inputs of an import: those of its request, and the files and objects that these mean.

use super::indexes;
use super::names::Types;
use super::request::{Asked, Input, Request};
use crate::jobs::Added;
use crate::settings;
use crate::source::{self, Found, Listing};
use crate::store::ResourceType;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::json;
use std::collections::BTreeSet;

/// The most inputs of one import.
const MOST: usize = 1_000_000;
/// The most inputs that are put in the order of their last modification: they are all in memory until then.
const MOST_IN_ORDER: usize = 100_000;
/// How many inputs are added at once.
const TOGETHER: usize = 1000;

/// Adds inputs to a job as they are listed, so that there are never many of them in memory.
pub struct Inputs<'a> {
    job: &'a mut Added,
    request: &'a Request,
    /// Those that are not added yet, and when they were last modified, if they are to be in this order.
    held: Vec<(Option<i64>, Input)>,
    count: usize,
    /// Read when the first listing needs them.
    types: Option<Types>,
    /// The types whose tables' indexes are disabled, if any are.
    disabled: Option<BTreeSet<String>>,
    /// The S3 service and the schema of the tables, which tell new files.
    place: (String, String),
}

impl<'a> Inputs<'a> {
    /// The inputs of a job. If it disables indexes, the role must be allowed to do so with the tables of all their types.
    ///
    /// # Errors
    /// 22023 if there is no schema of resource tables.
    pub fn of(job: &'a mut Added, request: &'a Request) -> Result<Inputs<'a>> {
        let disabled = request.disable_indexes.then(BTreeSet::new);
        let data_schema = settings::data_schema()?.to_string_lossy().into_owned();
        let place = (source::service_of(&request.reach), data_schema);
        Ok(Inputs { job, request, held: Vec::new(), count: 0, types: None, disabled, place })
    }

    /// Adds a source, or all that are listed at its URL.
    ///
    /// # Errors
    /// 58P01 if there is nothing; 54000 if there are too many; 42501 if the indexes of a table may not be disabled; the errors
    /// of listing.
    pub fn add(&mut self, asked: &Asked) -> Result<()> {
        let Asked { resource_type, url } = asked;
        if let Some(part) = &self.request.part {
            // Whoever has asked for it has listed what there is.
            let (resource_type, within) = (resource_type.clone(), part.within.clone());
            return self.hold(None, Input { resource_type, url: url.clone(), within });
        }
        let Some(mut listing) = Listing::start(url, &self.request.reach)? else {
            return self.hold(None, Input { resource_type: resource_type.clone(), url: url.clone(), within: None });
        };
        let mut is_empty = true;
        loop {
            let page = listing.next()?;
            if page.is_empty() {
                break;
            }
            is_empty = false;
            for found in page {
                let resource_type = match resource_type {
                    Some(given) => Some(given.clone()),
                    None => self.types()?.in_name(&found.url).map(|found| found.as_str().to_owned()),
                };
                if resource_type.is_none() && self.request.only_typed {
                    continue;
                }
                let modified = if self.request.by_modified { listing.modified(&found) } else { None };
                let within = listing.within().map(str::to_owned);
                let Found { url, .. } = found;
                self.hold(modified, Input { resource_type, url, within })?;
            }
        }
        if is_empty { Err(listing.nothing()) } else { Ok(()) }
    }

    /// Adds those that are still held.
    ///
    /// # Errors
    /// 22023 if indexes are to be disabled, and no input has a type.
    pub fn finish(mut self) -> Result<()> {
        // Those that are no files of listings come first, as those of which it is not known.
        self.held.sort_by_key(|(modified, _)| *modified);
        self.write()?;
        self.job.end_if_empty();
        if self.count > 0 && self.disabled.is_some_and(|types| types.is_empty()) {
            let message = "disableIndexes needs a resourceType, and no input has one";
            return Err(Error::invalid_argument(message)
                .detail("The tables of types that only lines name are not known when the import begins.")
                .hint("Give resourceType, or files with the type in their names, or leave out disableIndexes."));
        }
        Ok(())
    }

    fn hold(&mut self, modified: Option<i64>, input: Input) -> Result<()> {
        let most = if self.request.by_modified { MOST_IN_ORDER } else { MOST };
        if self.count == most {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the import has more than {most} inputs"),
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
        self.held.push((modified, input));
        if self.held.len() == TOGETHER && !self.request.by_modified {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let (service, data_schema) = &self.place;
        let held = std::mem::take(&mut self.held);
        for page in held.chunks(TOGETHER) {
            let inputs: Vec<_> = page.iter().map(|(_, input)| json!(input)).collect();
            if self.request.only_new {
                self.job.add_new(&inputs, service, data_schema)?;
            } else {
                self.job.add(&inputs);
            }
        }
        Ok(())
    }

    fn types(&mut self) -> Result<&Types> {
        if self.types.is_none() {
            self.types = Some(Types::known()?);
        }
        Ok(self.types.as_ref().expect("read above"))
    }
}
