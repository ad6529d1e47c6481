//! The rows: what is measured, against what, and how much of it it may take.

use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Bench, COLUMNS, Outcome, Row};

/// In the contract's order.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "dump: bulk_dump_chunks, FHIR form",
        baseline: "COPY (SELECT resource FROM t) TO STDOUT",
        bound: 0.50,
        run: dump_chunks,
        run_baseline: copy_resource,
    },
    Row {
        name: "dump: bulk_dump rows through COPY",
        baseline: "COPY (SELECT resource FROM t) TO STDOUT",
        bound: 0.85,
        run: dump_rows,
        run_baseline: copy_resource,
    },
    Row {
        name: "dump: bulk_dump_chunks, FHIR form",
        baseline: "the same put together in SQL",
        bound: 0.20,
        run: dump_chunks,
        run_baseline: copy_composed,
    },
    Row {
        name: "dump: gzipped by the server",
        baseline: "COPY (SELECT resource FROM t) TO STDOUT | gzip -6",
        bound: 0.45,
        run: dump_gzip,
        run_baseline: copy_piped_to_gzip,
    },
    Row {
        name: "load: bulk_load, FHIR file",
        baseline: "COPY t FROM prepared rows",
        bound: 0.65,
        run: Bench::load,
        run_baseline: copy_prepared,
    },
    Row {
        name: "load: bulk_load, FHIR file",
        baseline: "a staging table and INSERT … SELECT",
        bound: 0.30,
        run: Bench::load,
        run_baseline: load_staged,
    },
];

fn chunks(bench: &Bench, gzip: bool) -> String {
    let resource_type = &bench.resource_type;
    format!("COPY (SELECT bulk_dump_chunks('{resource_type}', fhir => true, gzip => {gzip})) TO STDOUT (FORMAT binary)")
}

fn dump_chunks(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&chunks(bench, false), &mut io::sink())
}

fn dump_gzip(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&chunks(bench, true), &mut io::sink())
}

fn dump_rows(bench: &mut Bench) -> Outcome<f64> {
    let query = format!(
        r"COPY (SELECT bulk_dump('{}', fhir => true)) TO STDOUT WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02')",
        bench.resource_type
    );
    bench.copy_out(&query, &mut io::sink())
}

fn copy_resource(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&format!("COPY (SELECT resource FROM {}) TO STDOUT", bench.table()), &mut io::sink())
}

/// What a user writes who wants id, type and meta in the resource.
fn copy_composed(bench: &mut Bench) -> Outcome<f64> {
    let query = format!(
        "COPY (SELECT resource || jsonb_build_object('id', id, 'resourceType', resource_type, 'meta', \
         coalesce(resource -> 'meta', '{{}}') || jsonb_build_object('versionId', txid, 'lastUpdated', ts, \
         'extension', jsonb_build_array(jsonb_build_object('url', 'ex:createdAt', 'valueInstant', cts)))) \
         FROM {}) TO STDOUT",
        bench.table()
    );
    bench.copy_out(&query, &mut io::sink())
}

fn copy_piped_to_gzip(bench: &mut Bench) -> Outcome<f64> {
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

fn copy_prepared(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    let copy = format!("COPY {} ({COLUMNS}) FROM '{}'", bench.table(), bench.prepared.display());
    let start = Instant::now();
    bench.client.batch_execute(&copy)?;
    Ok(start.elapsed().as_secs_f64())
}

/// What a user writes who has NDJSON and psql.
fn load_staged(bench: &mut Bench) -> Outcome<f64> {
    bench.empty_table()?;
    bench.client.batch_execute("DROP TABLE IF EXISTS staged; CREATE UNLOGGED TABLE staged (line jsonb)")?;
    let statements = format!(
        r"COPY staged FROM '{}' WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02');
        INSERT INTO {} ({COLUMNS})
        SELECT line ->> 'id', nextval('transaction_id_seq'), now(), now(), line ->> 'resourceType', 'created',
               line - 'id' - 'resourceType'
        FROM staged
        ON CONFLICT (id) DO UPDATE SET txid = excluded.txid, ts = excluded.ts, status = 'updated',
               resource = excluded.resource;",
        bench.source.display(),
        bench.table()
    );
    let start = Instant::now();
    bench.client.batch_execute(&statements)?;
    Ok(start.elapsed().as_secs_f64())
}
