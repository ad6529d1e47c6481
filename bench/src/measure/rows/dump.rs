//! Dumps and what users run instead.

use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::super::bench::{Bench, Outcome};
use super::export;

fn chunks(bench: &Bench, fhir: bool, gzip: bool) -> String {
    let resource_type = &bench.resource_type;
    format!(
        "COPY (SELECT bulk_dump_chunks('{resource_type}', fhir => {fhir}, gzip => {gzip})) TO STDOUT (FORMAT binary)"
    )
}

pub(super) fn dump_chunks(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&chunks(bench, true, false), &mut io::sink())
}

pub(super) fn dump_gzip(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&chunks(bench, true, true), &mut io::sink())
}

pub(super) fn dump_rows(bench: &mut Bench) -> Outcome<f64> {
    let query = format!(
        r"COPY (SELECT bulk_dump('{}', fhir => true)) TO STDOUT WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02')",
        bench.resource_type
    );
    bench.copy_out(&query, &mut io::sink())
}

pub(super) fn copy_resource(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&format!("COPY (SELECT resource FROM {}) TO STDOUT", bench.table()), &mut io::sink())
}

/// What a user writes who wants id, type and meta in the resource.
pub(super) fn copy_composed(bench: &mut Bench) -> Outcome<f64> {
    let query = format!(
        "COPY (SELECT resource || jsonb_build_object('id', id, 'resourceType', resource_type, 'meta', \
         coalesce(resource -> 'meta', '{{}}') || jsonb_build_object('versionId', txid, 'lastUpdated', ts, \
         'extension', jsonb_build_array(jsonb_build_object('url', 'ex:createdAt', 'valueInstant', cts)))) \
         FROM {}) TO STDOUT",
        bench.table()
    );
    bench.copy_out(&query, &mut io::sink())
}

pub(super) fn copy_piped_to_gzip(bench: &mut Bench) -> Outcome<f64> {
    let mut gzip = Command::new("gzip").arg("-6").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut pipe = gzip.stdin.take().ok_or("gzip has no stdin")?;
    let start = Instant::now();
    bench.copy_out(&format!("COPY (SELECT resource FROM {}) TO STDOUT", bench.table()), &mut pipe)?;
    drop(pipe);
    if !gzip.wait()?.success() {
        return Err("gzip failed".into());
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The same lines as they are stored.
pub(super) fn dump_unconverted(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&chunks(bench, false, false), &mut io::sink())
}

/// All types, written to nowhere.
pub(super) fn all_types(bench: &mut Bench) -> Outcome<f64> {
    export::tables(bench)?;
    bench.client.batch_execute("SET fhir_bulk.data_schema = all_types")?;
    let start = Instant::now();
    bench.client.execute(
        "SELECT sum(length(chunk)) FROM (SELECT bulk_dump_chunks(t, fhir => true) AS chunk FROM bulk_resource_types() t) c",
        &[],
    )?;
    let seconds = start.elapsed().as_secs_f64();
    bench.client.batch_execute("RESET fhir_bulk.data_schema")?;
    Ok(seconds)
}

pub(super) fn all_types_by_a_worker(bench: &mut Bench) -> Outcome<f64> {
    bench.client.batch_execute("SET fhir_bulk.dump_workers = 1")?;
    let seconds = all_types(bench)?;
    bench.client.batch_execute("RESET fhir_bulk.dump_workers")?;
    Ok(seconds)
}
