//! The launcher: a background worker that continues jobs after a restart of the server, if the library is preloaded.

use crate::extension::LIBRARY;
use crate::settings;
use fhir_bulk_pg::error::Error;
use fhir_bulk_pg::worker::{self, Worker};
use fhir_bulk_pg::{catalog, transaction};
use std::collections::BTreeSet;

/// Registers the launcher, if the server is preloading the library now.
pub fn start_launcher() {
    // A crash ends all workers. The launcher starts again one second later, so that jobs go on.
    let (name, function) = ("fhir_bulk launcher", c"fhir_bulk_launcher");
    Worker { name, library: LIBRARY, function, argument: 0 }.start_with_server(1);
}

/// The main loop of the launcher: starts a worker in each database of `fhir_bulk.launcher_databases`, at once and then every
/// `fhir_bulk.launcher_interval`. A worker that finds nothing to do ends.
pub fn launch() -> ! {
    worker::connect(None);
    // Databases that do not exist and are in the log already.
    let mut missing = BTreeSet::new();
    loop {
        worker::reload_if_asked();
        for name in settings::launcher_databases() {
            // A failed look-up is treated like a database that does not exist yet.
            let database = transaction::run::<_, Error>(|| Ok(catalog::database(&name)));
            if let Some(database) = database.ok().flatten() {
                missing.remove(&name);
                super::worker::start_one(database);
            } else if missing.insert(name.clone()) {
                worker::log(&format!(
                    "fhir_bulk launcher: there is no database \"{}\" (fhir_bulk.launcher_databases)",
                    name.to_string_lossy()
                ));
            }
        }
        worker::wait(settings::launcher_interval());
    }
}
