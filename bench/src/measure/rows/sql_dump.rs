//! Dumps of queries, and COPY of the same.

use std::io;

use super::super::bench::{Bench, Outcome};

/// The table as it is.
fn stored(bench: &Bench) -> String {
    format!("SELECT id, txid, cts, ts, resource_type, status, resource FROM {}", bench.table())
}

/// What goes to an analytics tool: scalars of many types.
fn flat(bench: &Bench) -> String {
    format!(
        "SELECT id, txid, cts, ts::date AS day, resource_type, txid % 2 = 0 AS even, txid * 1.25 AS price, \
         txid::double precision / 7 AS share, id || ' of ' || resource_type AS label FROM {}",
        bench.table()
    )
}

fn dump(bench: &mut Bench, query: &str, format: &str) -> Outcome<f64> {
    let chunks = format!("SELECT dump_sql_chunks($dump${query}$dump$, '{format}')");
    bench.copy_out(&format!("COPY ({chunks}) TO STDOUT (FORMAT binary)"), &mut io::sink())
}

fn copy_csv(bench: &mut Bench, query: &str) -> Outcome<f64> {
    bench.copy_out(&format!("COPY ({query}) TO STDOUT (FORMAT csv)"), &mut io::sink())
}

pub(super) fn csv_stored(bench: &mut Bench) -> Outcome<f64> {
    let query = stored(bench);
    dump(bench, &query, "csv")
}

pub(super) fn copy_csv_stored(bench: &mut Bench) -> Outcome<f64> {
    let query = stored(bench);
    copy_csv(bench, &query)
}

pub(super) fn csv_flat(bench: &mut Bench) -> Outcome<f64> {
    let query = flat(bench);
    dump(bench, &query, "csv")
}

pub(super) fn copy_csv_flat(bench: &mut Bench) -> Outcome<f64> {
    let query = flat(bench);
    copy_csv(bench, &query)
}

pub(super) fn ndjson_stored(bench: &mut Bench) -> Outcome<f64> {
    let query = stored(bench);
    dump(bench, &query, "ndjson")
}

pub(super) fn copy_row_to_json_stored(bench: &mut Bench) -> Outcome<f64> {
    let query = stored(bench);
    bench.copy_out(&format!("COPY (SELECT row_to_json(q) FROM ({query}) AS q) TO STDOUT"), &mut io::sink())
}

pub(super) fn ndjson_flat(bench: &mut Bench) -> Outcome<f64> {
    let query = flat(bench);
    dump(bench, &query, "ndjson")
}

pub(super) fn copy_row_to_json_flat(bench: &mut Bench) -> Outcome<f64> {
    let query = flat(bench);
    bench.copy_out(&format!("COPY (SELECT row_to_json(q) FROM ({query}) AS q) TO STDOUT"), &mut io::sink())
}
