//! Where and how an export's files are written.

use super::files::Format;
use crate::settings::s3::Address;
use crate::sink::{Budget, Location};
use fhir_bulk_pg::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::atomic::AtomicU64;

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
}

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

    /// The budget of all files together, of which so many bytes are spent.
    pub fn budget<'a>(&self, spent: &'a AtomicU64) -> Option<Budget<'a>> {
        self.max_bytes.map(|most| Budget::new(most, spent))
    }

    /// The format of the files.
    pub fn format(&self) -> Format {
        Format { gzip: self.gzip, bytes: self.file_bytes }
    }
}
