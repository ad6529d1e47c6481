//! Tools that read what the server has written: packages of PyPI, which `scripts/setup.sh --tests` installs into `target/venv`.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tests' packages.
pub const VENV: &str = "target/venv";
/// Other evaluators of views, which only the bench runs: `scripts/setup.sh --evaluators`.
pub const EVALUATORS: &str = "target/venv-evaluators";

/// Python of one of these folders.
fn python_of(venv: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(venv).join("bin/python")
}

/// Python of one of these folders, if it has a module.
pub fn python_with(venv: &str, module: &str) -> Option<PathBuf> {
    let python = python_of(venv);
    let imported = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    imported.is_ok_and(|output| output.status.success()).then_some(python)
}

/// What a script prints.
pub fn python(script: &str, arguments: &[&Path]) -> String {
    let python = python_of(VENV);
    assert!(python.exists(), "{} is missing: run scripts/setup.sh --tests", python.display());
    let output = Command::new(python).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Reads a file with pyarrow and with DuckDB, and asserts that both find these columns, each with the way in which its cells are
/// compared, and these rows, arrays of texts that PostgreSQL has made.
#[track_caller]
pub fn compare_parquet(file: &Path, columns: &[Value], rows: &[Value]) {
    let expected = file.with_extension("expected.json");
    std::fs::write(&expected, json!({"columns": columns, "rows": rows}).to_string()).unwrap();
    assert_eq!(python(COMPARE, &[file, &expected]).trim(), rows.len().to_string());
}

const COMPARE: &str = r#"
import json, struct, sys
import duckdb, pyarrow as pa, pyarrow.parquet as pq

expected = json.load(open(sys.argv[2]))
duckdb.sql("SET TimeZone = 'UTC'")

def as_text(value, way):
    if value is None:
        return None
    if way == 'bool':
        return 't' if value else 'f'
    if way == 'float':
        return repr(float(value))
    if way == 'real':
        return repr(struct.unpack('f', struct.pack('f', float(value)))[0])
    if way == 'hex':
        return value.replace('-', '') if isinstance(value, str) else bytes(value).hex()
    if way == 'decimal':
        return format(value, 'f')
    if way == 'nested':
        return json.loads(value, parse_float=str, parse_int=str)
    return str(value)

def cells(column, way):
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if way == 'days':
        array = array.cast(pa.date32()).cast(pa.int32())
    if way == 'micros':
        array = array.cast(pa.int64())
    return [as_text(value, way) for value in array.to_pylist()]

for name, table in [
    ('pyarrow', pq.read_table(sys.argv[1])),
    ('duckdb', duckdb.sql(f"SELECT * FROM read_parquet('{sys.argv[1]}')").to_arrow_table()),
]:
    assert table.column_names == [column for column, _ in expected['columns']], table.column_names
    for at, (column, way) in enumerate(expected['columns']):
        wanted = [row[at] for row in expected['rows']]
        if way == 'nested':
            wanted = [None if text is None else json.loads(text, parse_float=str, parse_int=str) for text in wanted]
        if way in ('float', 'real'):
            wanted = [as_text(text, way) for text in wanted]
        found = cells(table.column(at), way)
        assert found == wanted, f'{name}, {column}: {found} instead of {wanted}'
print(table.num_rows)
"#;
