//! Where and how an export's files are written.

use super::files::Format;
use super::written::Written;
use crate::settings::s3::Address;
use crate::sink::{Budget, Draft, Location};
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::parallel;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where and how an export's files are written. The queue stores it in this form.
#[derive(Clone, Serialize, Deserialize)]
pub struct Target {
    /// `fhir_bulk.export_location` when the job was added.
    pub location: String,
    /// The S3 service that the settings named then.
    pub service: Address,
    /// Identifies this database among others that share the location.
    pub owner: String,
    /// The folder of the files.
    pub folder: String,
    /// The size at which a file is full.
    pub file_bytes: u64,
    /// How many bytes all files may have, if there is a limit.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// The gzip level, if files are compressed.
    pub gzip: Option<u32>,
    /// Whether a file is announced as soon as it is final.
    #[serde(default)]
    pub announces: bool,
    /// Whether the nodes of Citus write what they have of it.
    #[serde(default)]
    pub on_nodes: bool,
}

/// What the processes of an export count together: bytes, and files that are announced.
pub type Counters = [AtomicU64; parallel::COUNTERS];

impl Target {
    /// # Errors
    /// The errors of [`Location::parse`].
    pub fn location(&self) -> Result<Location> {
        Location::parse(&self.location, &self.owner, &self.service)
    }

    /// Reads it from the queue.
    pub fn of(input: &Value) -> Target {
        Target::deserialize(input).expect("kept as it was made")
    }

    /// The draft for processes that count together.
    pub fn draft<'a>(&self, draft: &Draft<'_>, [bytes, files]: &'a Counters) -> Draft<'a> {
        let budget = self.max_bytes.map(|most| Budget::new(most, bytes));
        draft.within(budget, self.announces.then_some(files))
    }

    /// Adds files that other processes have counted, from 0.
    pub fn add<'w>([bytes, files]: &Counters, written: impl Iterator<Item = &'w Written> + Clone) {
        bytes.fetch_add(written.clone().filter_map(|file| file.bytes).sum(), Ordering::Relaxed);
        files.fetch_add(written.count() as u64, Ordering::Relaxed);
    }

    /// # Errors
    /// 53100 if files have more bytes together than all may have.
    pub fn check_budget<'w>(&self, written: impl Iterator<Item = &'w Written>) -> Result<()> {
        let (total, spent) = (written.filter_map(|file| file.bytes).sum(), AtomicU64::new(0));
        self.max_bytes.map_or(Ok(()), |most| Budget::new(most, &spent).spend(total))
    }

    /// The format of the files, if they have resources.
    pub fn format(&self) -> Format {
        Format { gzip: self.gzip, bytes: self.file_bytes, table: None }
    }
}
