//! Where the library is preloaded: has jobs go on when the server starts, and when nobody asks for them.

use crate::error::Error;
use crate::pg::worker::{self, Worker};
use crate::pg::{catalog, transaction};
use crate::settings;

/// Has the server start the launcher, if it is preloading the library now.
pub fn start_launcher() {
    // Begun again soon after a crash, which ends all workers, so that jobs go on then.
    Worker { name: "fhir_bulk launcher", function: c"fhir_bulk_launcher", argument: 0 }.start_with_server(1);
}

/// The launcher's life: starts a worker in each database of `fhir_bulk.launcher_databases`, at once and then every
/// `fhir_bulk.launcher_interval`. A worker that finds nothing to do ends.
pub fn launch() -> ! {
    worker::connect(None);
    loop {
        worker::reload_if_asked();
        for name in settings::launcher_databases() {
            // A failed look-up is as good as a database that is not there (yet).
            let database = transaction::run::<_, Error>(|| Ok(catalog::database(&name)));
            match database.ok().flatten() {
                Some(database) => {
                    super::worker::start_one(database);
                }
                None => worker::log(&format!(
                    "fhir_bulk launcher: there is no database \"{}\" (fhir_bulk.launcher_databases)",
                    name.to_string_lossy()
                )),
            }
        }
        worker::wait(settings::launcher_interval());
    }
}
