//! `COPY … (FORMAT fhir | aidbox | ndjson)` from outside: psql, drivers, a hand-made client, other extensions' hooks.

mod drivers;
mod ends;
mod from;
mod hooks;
mod interrupts;
mod memory;
mod mistakes;
mod options;
mod rights;
mod step;
mod tables;
mod to;
mod wire;

use fhir_bulk_tests::support;
