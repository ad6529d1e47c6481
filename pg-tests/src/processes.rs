//! Processes of the tests' own: workers, whose transactions are theirs to begin and to end, and helpers.

use crate::server::{text, texts, wait_for};
use fhir_bulk_pg::error::Error;
use fhir_bulk_pg::parallel::Part;
use fhir_bulk_pg::spi::{self, Parameter};
use fhir_bulk_pg::worker::{self, Worker};
use fhir_bulk_pg::{session, transaction};
use pgrx::{extension_sql, pg_sys};
use std::ffi::CStr;

/// The library of these tests.
pub const LIBRARY: &CStr = c"fhir_bulk_pg_tests";

extension_sql!(
    r#"
CREATE SCHEMA IF NOT EXISTS in_server;
GRANT USAGE ON SCHEMA in_server TO PUBLIC;
CREATE TABLE in_server.results (scenario text, failure text);
"#,
    name = "results",
    bootstrap
);

/// A database's OID and a scenario's number share the one number that a worker gets.
const SCENARIO_SHIFT: u32 = 24;

/// What workers do, by name.
pub type Scenarios = &'static [(&'static str, fn())];

/// Starts a scenario in a process of its own.
pub fn start(scenarios: Scenarios, scenario: &str) {
    let number = scenarios.iter().position(|(name, _)| *name == scenario).expect(scenario) as u32;
    let database = session::database().to_u32();
    assert!(database < 1 << SCENARIO_SHIFT);
    let argument = number << SCENARIO_SHIFT | database;
    let worker = Worker { name: "in_server", library: LIBRARY, function: c"fhir_bulk_pg_tests_worker", argument };
    assert!(worker.start(), "no process left");
}

/// Waits for a scenario's end; fails when it has failed.
pub fn wait_for_end(scenario: &str) {
    let query = format!("SELECT coalesce(failure, '') FROM in_server.results WHERE scenario = '{scenario}'");
    wait_for(scenario, || !texts(&query).is_empty());
    assert_eq!(text(&query), "", "{scenario}");
}

/// What a worker does.
pub fn work(argument: u32, scenarios: Scenarios) {
    let (name, scenario) = scenarios[(argument >> SCENARIO_SHIFT) as usize];
    worker::connect(Some(pg_sys::Oid::from(argument & ((1 << SCENARIO_SHIFT) - 1))));
    let result = transaction::between(|| {
        scenario();
        Ok::<_, Error>(())
    });
    let failure = result.err().map(|error| format!("{} {}", error.sqlstate(), error.message()));
    transaction::run::<_, Error>(|| {
        let parameters = [Parameter::string(name), Parameter::string_or_null(failure.as_deref())];
        spi::execute(c"INSERT INTO in_server.results VALUES ($1, $2)", &parameters);
        Ok(())
    })
    .expect("a table for results");
}

/// What a helper does: as it is told.
pub fn help(part: Part<'_>) -> Vec<u8> {
    match part.input() {
        b"fail" => {
            crate::server::fail();
            Vec::new()
        }
        b"panic" => panic!("a helper's mistake"),
        b"too much" => vec![0; fhir_bulk_pg::parallel::RESULT_BYTES],
        // Until it is ended.
        b"wait" => loop {
            session::wait_for_latch(std::time::Duration::from_secs(3600));
        },
        b"count" => {
            let mut taken = Vec::new();
            while let piece = part.take()
                && piece < 100
            {
                part.add(1);
                taken.push(piece as u8);
            }
            taken
        }
        other => panic!("{other:?}"),
    }
}
