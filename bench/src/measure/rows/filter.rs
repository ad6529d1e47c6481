//! Dumps of what a search query finds.

use std::io;

use super::super::bench::{Bench, Outcome};

/// The code that is nearest to one in a hundred of all resources; of types with a `code`.
fn rare_code(bench: &mut Bench) -> Outcome<String> {
    let table = bench.table();
    let query = format!(
        "SELECT code FROM (SELECT resource #>> '{{code,coding,0,code}}' AS code, count(*) AS n FROM {table} GROUP BY 1) c
         WHERE code IS NOT NULL ORDER BY abs(ln(n * 100.0 / (SELECT count(*) FROM {table}))) LIMIT 1"
    );
    Ok(bench.client.query_one(&query, &[])?.get(0))
}

fn dump(bench: &mut Bench, filter: &str) -> Outcome<f64> {
    let filter = filter.replace('\'', "''");
    let resource_type = &bench.resource_type;
    let query = format!(
        "COPY (SELECT bulk_dump_chunks('{resource_type}', fhir => true, filter => '{filter}')) TO STDOUT (FORMAT binary)"
    );
    bench.copy_out(&query, &mut io::sink())
}

pub(super) fn token(bench: &mut Bench) -> Outcome<f64> {
    let code = rare_code(bench)?;
    dump(bench, &format!("code={code}"))
}

/// With an index only for this run: loads would have to keep it up to date.
pub(super) fn token_by_index(bench: &mut Bench) -> Outcome<f64> {
    let code = rare_code(bench)?;
    let table = bench.table();
    let make = format!("CREATE INDEX bench_found ON {table} USING gin (resource jsonb_path_ops); ANALYZE {table}");
    bench.client.batch_execute(&make)?;
    let seconds = dump(bench, &format!("code={code}"))?;
    bench.client.batch_execute("DROP INDEX bench_found")?;
    Ok(seconds)
}

/// As a user writes them: the one that decides stands last, and is tried first.
pub(super) fn five_conditions(bench: &mut Bench) -> Outcome<f64> {
    let code = rare_code(bench)?;
    dump(bench, &format!("status:not=none&subject:missing=false&date=ge1900&code:not=none&code={code}"))
}
