//! How many bytes all files of a job may have (`fhir_bulk.export_max_bytes`).

use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most bytes, and how many have been written; several processes may count together.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    most: u64,
    spent: &'a AtomicU64,
}

impl<'a> Budget<'a> {
    pub fn new(most: u64, spent: &'a AtomicU64) -> Budget<'a> {
        Budget { most, spent }
    }

    /// Counts bytes that are about to be written.
    ///
    /// # Errors
    /// 53100 if all would be too many.
    pub fn spend(&self, bytes: u64) -> Result<()> {
        if self.spent.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.most {
            return Ok(());
        }
        let message = format!("the files of the export would have more than {} bytes", self.most);
        Err(Error::new(PgSqlErrorCode::ERRCODE_DISK_FULL, message)
            .detail("Setting fhir_bulk.export_max_bytes limits them.")
            .hint("Export less at a time: fewer types, or an increment with _since. A superuser can raise the limit."))
    }
}
