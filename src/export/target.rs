//! Where an export's files go.

use super::files::Format;
use crate::settings::s3::Address;
use crate::sink::Location;
use fhir_bulk_pg::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where an export's files go; as the queue keeps it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Target {
    /// As it was set when the job was asked for.
    pub location: String,
    /// The one that `s3://` meant then.
    pub service: Address,
    /// Tells this database from others that share the location.
    pub owner: String,
    /// The folder of the files.
    pub folder: String,
    /// How large they become.
    pub file_bytes: u64,
    /// The level, if they are compressed.
    pub gzip: Option<u32>,
}

impl Target {
    /// # Errors
    /// Those of [`Location::parse`].
    pub fn location(&self) -> Result<Location> {
        Location::parse(&self.location, &self.owner, &self.service)
    }

    /// As it stands in the queue.
    pub fn of(input: &Value) -> Target {
        Target::deserialize(input).expect("kept as it was made")
    }

    /// How they are written.
    pub fn format(&self) -> Format {
        Format { gzip: self.gzip, bytes: self.file_bytes }
    }
}
