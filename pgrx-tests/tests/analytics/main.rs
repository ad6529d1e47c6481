//! Views of SQL on FHIR from outside: what `dump_view` returns and `bulk_create_view` makes, for whom, and what happens with
//! views that someone writes to do harm.

mod created;
mod dump;
mod hostile;
mod options;
mod parquet;
mod queries;
mod rights;
mod runs;
mod suite;

use fhir_bulk_tests::Client;
use fhir_bulk_tests::support;

/// SQL's text of a call of `dump_view`.
pub fn dump_view(view: &str, format: &str, options: &str) -> String {
    let quoted = |text: &str| text.replace('\'', "''");
    format!("dump_view('{}', '{format}', '{}')", quoted(view), quoted(options))
}

/// The lines that it returns.
#[track_caller]
pub fn lines(client: &mut Client, view: &str, format: &str, options: &str) -> Vec<String> {
    support::rows(client, &format!("SELECT {}", dump_view(view, format, options)))
}

/// A view of a type with such columns: names and paths.
pub fn view(resource: &str, columns: &[(&str, &str)]) -> String {
    let columns: Vec<_> = columns.iter().map(|(name, path)| serde_json::json!({"name": name, "path": path})).collect();
    serde_json::json!({"resource": resource, "select": [{"column": columns}]}).to_string()
}

/// Stores resources in FHIR form.
pub fn store(client: &mut Client, database: &fhir_bulk_tests::Database, resources: &[serde_json::Value]) {
    let lines: String = resources.iter().map(|resource| format!("{resource}\n")).collect();
    let url = database.file(&format!("{:x}.ndjson", lines.len()), lines);
    support::run(client, &format!("SELECT bulk_load('{url}', fhir => true)"));
}
