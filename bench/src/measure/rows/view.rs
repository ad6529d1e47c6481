//! Views of SQL on FHIR, queries with jsonb's operators for the same columns, and other programs that make them of NDJSON.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use fhir_bulk_tests::tools;

use super::super::bench::{Bench, Missing, Outcome};
use crate::ten_columns::{COLUMNS, view};

pub(super) fn csv(bench: &mut Bench) -> Outcome<f64> {
    bench.copy_out(&chunks("csv"), &mut io::sink())
}

pub(super) fn csv_by_operators(bench: &mut Bench) -> Outcome<f64> {
    let columns = COLUMNS.map(|(name, _, sql)| format!("{sql} AS {name}")).join(", ");
    let query = format!("SELECT {columns} FROM {} WHERE status <> 'deleted'", bench.table());
    let chunks = format!("SELECT dump_sql_chunks($dump${query}$dump$, 'csv')");
    bench.copy_out(&format!("COPY ({chunks}) TO STDOUT (FORMAT binary)"), &mut io::sink())
}

fn chunks(format: &str) -> String {
    format!("COPY (SELECT dump_view_chunks($view${}$view$, '{format}')) TO STDOUT (FORMAT binary)", view())
}

pub(super) fn csv_to_a_file(bench: &mut Bench) -> Outcome<f64> {
    let mut file = File::create(out(bench))?;
    bench.copy_out(&chunks("csv"), &mut file)
}

pub(super) fn parquet_to_a_file(bench: &mut Bench) -> Outcome<f64> {
    let mut file = File::create(out(bench))?;
    bench.copy_out(&chunks("parquet"), &mut file)
}

/// The file that is written, over the one of the run before.
fn out(bench: &Bench) -> PathBuf {
    bench.source.with_file_name("view.out")
}

/// The same columns as DuckDB reads them fastest: with the types that they have, and nothing else.
const DUCKDB: &str = r#"
import sys, time
import duckdb
source, out, threads = sys.argv[1:]
duckdb.sql(f"SET threads = {threads}")
coded = "STRUCT(coding STRUCT(system VARCHAR, code VARCHAR)[], text VARCHAR)"
start = time.perf_counter()
duckdb.sql(f"""COPY (SELECT id, status, code.coding[1].code AS code, code.coding[1].system AS system, code.text AS text,
        category[1].coding[1].code AS category, split_part(subject.reference, '/', 2) AS patient, effectiveDateTime AS at,
        valueQuantity.value AS value, valueQuantity.unit AS unit
    FROM read_ndjson('{source}', columns = {{id: 'VARCHAR', status: 'VARCHAR', code: '{coded}', category: '{coded}[]',
        subject: 'STRUCT(reference VARCHAR)', effectiveDateTime: 'VARCHAR', valueQuantity: 'STRUCT(value VARCHAR, unit VARCHAR)'}}))
    TO '{out}' (FORMAT parquet, COMPRESSION zstd)""")
print(time.perf_counter() - start)
"#;

pub(super) fn parquet_by_duckdb(bench: &mut Bench) -> Outcome<f64> {
    by_python(bench, tools::VENV, "duckdb", DUCKDB, "1", &[])
}

pub(super) fn parquet_by_duckdb_on_two_threads(bench: &mut Bench) -> Outcome<f64> {
    by_python(bench, tools::VENV, "duckdb", DUCKDB, "2", &[])
}

/// Helios' evaluator, of PyPI: by its function for files.
const HELIOS: &str = r#"
import sys, time
import pysof
source, out, view = sys.argv[1:]
start = time.perf_counter()
pysof.process_ndjson_to_file(view, source, out, "csv")
print(time.perf_counter() - start)
"#;

pub(super) fn csv_by_helios(bench: &mut Bench) -> Outcome<f64> {
    let view = view().replacen('{', r#"{"resourceType": "ViewDefinition", "status": "active", "#, 1);
    // The package is there, too, where its library cannot be loaded.
    let seconds = by_python(bench, tools::EVALUATORS, "pysof._pysof", HELIOS, &view, &[("RAYON_NUM_THREADS", "1")]);
    // What it cannot do is no reason to measure nothing else.
    seconds.map_err(|error| Missing(error.to_string().trim().lines().last().unwrap_or_default().to_owned()).into())
}

/// Runs a script on the NDJSON; the seconds that it prints are without the start of Python.
fn by_python(
    bench: &Bench,
    venv: &str,
    module: &str,
    script: &str,
    argument: &str,
    variables: &[(&str, &str)],
) -> Outcome<f64> {
    let python = tools::python_with(venv, module).ok_or_else(|| Missing(format!("{venv} has no {module}")))?;
    let (source, out) = (&bench.source, out(bench));
    let mut command = Command::new(python);
    command.args(["-c", script]).arg(source).arg(out).arg(argument).envs(variables.iter().copied());
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}
