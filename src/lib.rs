//! `fhir_bulk`: PostgreSQL as a bulk FHIR server.
//!
//! | floor | contents |
//! |---|---|
//! | [`copy`], [`dump`], [`dump_csv`], [`read`], [`sql_dump`], [`views`], [`sql_run`], [`load`], [`import`], [`export`], [`submission`], [`tables`] | the SQL functions: arguments, then steps |
//! | [`jobs`] | background jobs: queue, workers, launcher |
//! | [`source`], [`sink`] | the sources of loads, the targets of exports |
//! | [`store`] | resource tables: name, create, read, write |
//! | [`stream`], [`program`] | a body as rows of lines or chunks; a program's pipe |
//! | [`parquet`] | columns and cells of files for PostgreSQL's types |
//! | [`own_tables`] | the extension's own tables |
//! | [`arguments`], [`settings`], [`citus`] | arguments; settings; what Citus knows of a table |
//! | `fhir_bulk_pg` | safe wrappers of PostgreSQL, errors as users see them; the only `unsafe` |
//! | `fhir_bulk_feed` | makes rows of a source's bytes, on a thread of its own; no PostgreSQL |
//! | `fhir_bulk_paths` | FHIRPath and search over stored resources; no PostgreSQL |
//! | `fhir_bulk_views` | views of SQL on FHIR over stored resources; no PostgreSQL |
//! | `fhir_bulk_parquet` | Parquet files of typed cells; no PostgreSQL |
//! | `fhir_bulk_codec` | bytes: jsonb, NDJSON, CSV, gzip; no PostgreSQL |
//! | `fhir_bulk_transfer` | reads URLs and S3 objects, writes S3 objects; no PostgreSQL |
//!
//! Each floor uses only those below it.

use pgrx::pg_sys;
use pgrx::prelude::*;

mod arguments;
mod citus;
mod copy;
mod dump;
mod dump_csv;
mod export;
mod extension;
mod file_url;
mod import;
mod jobs;
mod load;
mod own_tables;
mod parquet;
mod program;
mod read;
mod settings;
mod sink;
mod source;
mod sql_dump;
mod sql_run;
mod store;
mod stream;
mod subject;
mod submission;
mod tables;
mod views;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/prepare.sql", name = "prepare", bootstrap);
extension_sql_file!("../sql/rejects.sql", name = "rejects");
extension_sql_file!("../sql/jobs.sql", name = "jobs");
extension_sql_file!("../sql/job_views.sql", name = "job_views", requires = ["jobs", jobs::bulk_job_subject]);
extension_sql_file!("../sql/job_inputs.sql", name = "job_inputs", requires = ["job_views"]);
extension_sql_file!("../sql/exports.sql", name = "exports");
extension_sql_file!("../sql/indexes.sql", name = "indexes", requires = ["jobs"]);
extension_sql_file!("../sql/files.sql", name = "files", requires = ["jobs", jobs::bulk_job_subject]);
extension_sql_file!("../sql/queue.sql", name = "queue", requires = ["indexes", "files"]);
extension_sql_file!("../sql/own_jobs.sql", name = "own_jobs", requires = ["queue"]);
extension_sql_file!("../sql/submissions.sql", name = "submissions", requires = ["own_jobs"]);
extension_sql_file!("../sql/kept.sql", name = "kept", requires = ["rejects", "exports"]);
extension_sql_file!("../sql/copy.sql", name = "copy");
extension_sql_file!(
    "../sql/search_parameters.sql",
    name = "search_parameters",
    requires = [store::parameters::check_search_parameter]
);
extension_sql_file!(
    "../sql/own_tables.sql",
    name = "own_tables",
    requires = [
        "rejects",
        "jobs",
        "exports",
        "queue",
        "own_jobs",
        "submissions",
        "kept",
        "search_parameters",
        own_tables::own_rows
    ]
);
extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// PostgreSQL calls this when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // With less the library works as well.
    fhir_bulk_pg::reserve::hold();
    fhir_bulk_pg::session::hide_backtraces();
    fhir_bulk_pg::read_only::install();
    copy::install();
    settings::define();
    jobs::start_launcher();
}

/// The main function of a job worker. Its argument is the OID of its database.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the server finds it by this name, which starts with the extension's")]
pub extern "C-unwind" fn fhir_bulk_job_worker(database: pg_sys::Datum) {
    jobs::work(
        pg_sys::Oid::from(database.value() as u32),
        &[import::KIND, export::KIND, export::part::KIND, submission::KIND],
    );
}

/// The main function of a parallel worker that helps with an export.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the server finds it by this name, and calls it with these arguments")]
pub extern "C-unwind" fn fhir_bulk_export_helper(_segment: *mut pg_sys::dsm_segment, toc: fhir_bulk_pg::parallel::Toc) {
    fhir_bulk_pg::parallel::help(toc, export::help);
}

/// The main function of a parallel worker that reads tables for an export by patient.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the server finds it by this name, and calls it with these arguments")]
pub extern "C-unwind" fn fhir_bulk_export_sort_helper(
    _segment: *mut pg_sys::dsm_segment,
    toc: fhir_bulk_pg::parallel::Toc,
) {
    fhir_bulk_pg::parallel::help(toc, export::help_to_sort);
}

/// The main function of a parallel worker that writes files of an export by patient.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the server finds it by this name, and calls it with these arguments")]
pub extern "C-unwind" fn fhir_bulk_export_write_helper(
    _segment: *mut pg_sys::dsm_segment,
    toc: fhir_bulk_pg::parallel::Toc,
) {
    fhir_bulk_pg::parallel::help(toc, export::help_to_write);
}

/// The main function of the launcher, which continues jobs if the library is preloaded.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the server finds it by this name, which starts with the extension's")]
pub extern "C-unwind" fn fhir_bulk_launcher(_argument: pg_sys::Datum) {
    jobs::launch();
}
