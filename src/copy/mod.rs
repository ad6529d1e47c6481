//! `COPY … (FORMAT fhir | aidbox | ndjson)`: does the same as `bulk_load`, `bulk_dump_chunks` and `dump_sql_chunks`, with
//! the same code. The hook in `fhir_bulk_pg::utility` passes such a COPY to this module.

mod end;
mod from;
mod options;
mod outlet;
mod to;

use fhir_bulk_pg::copy::Copy;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::utility::{self, Formats};
use options::Options;

/// Registers the formats with the hook; called once, when the library is loaded.
pub fn install() {
    utility::install(Formats { extension: c"fhir_bulk", names: &[c"fhir", c"aidbox", c"ndjson"], run });
}

/// Runs a COPY. Returns how many lines it has stored, or rows it has written.
fn run(copy: &Copy<'_>) -> Result<u64> {
    if copy.is_from() {
        from::forget_last();
    }
    let options = Options::parse(copy)?;
    if copy.is_from() { from::run(copy, options) } else { to::run(copy, options) }
}
