//! Sources over http, from a small server that behaves as told, well or badly.

mod addresses;
mod bodies;
mod interrupts;
mod redirects;
mod s3;
mod tls;

use crate::support::run;
use fhir_bulk_tests::{Client, Database};

/// A database and a superuser's session that may read from 127.0.0.1.
fn allowed() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.allowed_sources = '127.0.0.1'");
    (database, client)
}
