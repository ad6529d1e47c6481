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
#[path = "../outside/support.rs"]
#[allow(dead_code, reason = "shared with tests that use other parts of it")]
mod support;
mod tables;
mod to;
mod wire;
