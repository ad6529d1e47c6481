//! Tests inside a server: what the safe wrappers of `fhir_bulk_pg` promise when an error or an interrupt comes in the
//! middle, and in a subtransaction that is rolled back; and the codec's jsonb beside PostgreSQL's. `scripts/test-in-server.sh` runs them.
#![cfg(feature = "pg_test")]

use pgrx::{pg_guard, pg_module_magic, pg_sys};

mod copying;
mod documents;
mod errors;
mod jsonb;
mod memory;
mod processes;
mod reading;
mod server;
mod settings;
mod supplying;
mod transactions;
mod workers;
mod writing;

pg_module_magic!();

/// Called by PostgreSQL when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    fhir_bulk_pg::session::hide_backtraces();
    fhir_bulk_pg::read_only::install();
    copying::install();
}

/// A process that does what a test needs done outside of its own session.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the server finds it by this name")]
pub extern "C-unwind" fn fhir_bulk_pg_tests_worker(argument: pg_sys::Datum) {
    processes::work(argument.value() as u32, workers::SCENARIOS);
}

/// A process that takes part in a test's work.
#[pg_guard]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the server finds it by this name, and calls it with these")]
pub extern "C-unwind" fn fhir_bulk_pg_tests_helper(
    _segment: *mut pg_sys::dsm_segment,
    toc: fhir_bulk_pg::parallel::Toc,
) {
    fhir_bulk_pg::parallel::help(toc, processes::help);
}

/// What `pgrx_tests::run_test` asks for, which each `#[pg_test]` calls.
#[cfg(test)]
pub mod pg_test {
    /// Nothing to prepare.
    pub fn setup(_options: Vec<&str>) {}

    /// Lines of the server's configuration: tests run at once, and some need processes of their own.
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        let mut options =
            vec!["fsync = off", "autovacuum = off", "max_worker_processes = 64", "max_parallel_workers = 64"];
        // How many random documents, and which: the server does not have our environment.
        for (name, setting) in [("FHIR_BULK_FUZZ_SEED", "fuzz.seed"), ("FHIR_BULK_FUZZ_HUNDREDS", "fuzz.hundreds")] {
            if let Some(number) = std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok()) {
                options.push(format!("{setting} = '{number}'").leak());
            }
        }
        options
    }
}
