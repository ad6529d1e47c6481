//! COPY in the formats of FHIR, and what the hook that brings it costs all other statements.

use std::io;
use std::process::Command;
use std::time::Instant;

use super::super::bench::{Bench, Outcome};
use fhir_bulk_tests::bin;

/// Runs one command in a psql of its own, as users do; how long that took.
fn psql(bench: &Bench, command: &str) -> Outcome<f64> {
    let dsn = format!("{} options='-c session_preload_libraries=fhir_bulk'", bench.cluster.dsn("postgres", "bench"));
    let mut psql = Command::new(bin("psql"));
    psql.args(["-X", "-q", "-o", "/dev/null", "-d", &dsn, "-c", command]);
    let start = Instant::now();
    let output = psql.output()?;
    let seconds = start.elapsed().as_secs_f64();
    if output.status.success() { Ok(seconds) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

pub(super) fn load_by_psql(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    psql(bench, &format!("\\copy {} from '{}' (format fhir)", bench.table(), bench.source.display()))
}

/// The same file, read by the server.
pub(super) fn bulk_load_by_psql(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    psql(bench, &format!("SELECT bulk_load('{}', '{}', true)", bench.file_url(), bench.resource_type))
}

pub(super) fn dump(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&format!("COPY {} TO STDOUT (FORMAT fhir)", bench.table()), &mut io::sink())
}

/// A hundred thousand statements that a hook has nothing to do with.
const STATEMENTS: &str = "DO $$ BEGIN FOR i IN 1..100000 LOOP EXECUTE 'SET work_mem = ''4MB'''; END LOOP; END $$";

pub(super) fn statements(bench: &mut Bench) -> Outcome<f64> {
    let start = Instant::now();
    bench.client.batch_execute(STATEMENTS)?;
    Ok(start.elapsed().as_secs_f64())
}

/// In a session that has not loaded the library.
pub(super) fn statements_without_us(bench: &mut Bench) -> Outcome<f64> {
    let mut client = bench.cluster.connect("postgres", "bench");
    let start = Instant::now();
    client.batch_execute(STATEMENTS)?;
    Ok(start.elapsed().as_secs_f64())
}
