//! Views of SQL on FHIR, and queries with jsonb's operators for the same columns.

use std::io;

use super::super::bench::{Bench, Outcome};

/// Ten columns of Observations: name, path, and the same in SQL.
const COLUMNS: [(&str, &str, &str); 10] = [
    ("id", "id", "id"),
    ("status", "status", "resource ->> 'status'"),
    ("code", "code.coding.first().code", "resource #>> '{code,coding,0,code}'"),
    ("system", "code.coding.first().system", "resource #>> '{code,coding,0,system}'"),
    ("text", "code.text", "resource -> 'code' ->> 'text'"),
    ("category", "category.first().coding.first().code", "resource #>> '{category,0,coding,0,code}'"),
    ("patient", "subject.getReferenceKey(Patient)", "resource -> 'subject' ->> 'id'"),
    ("at", "effective.ofType(dateTime)", "resource -> 'effective' ->> 'dateTime'"),
    ("value", "value.ofType(Quantity).value", "resource -> 'value' -> 'Quantity' ->> 'value'"),
    ("unit", "value.ofType(Quantity).unit", "resource -> 'value' -> 'Quantity' ->> 'unit'"),
];

pub(super) fn csv(bench: &mut Bench) -> Outcome<f64> {
    let column = |(name, path, _): (&str, &str, &str)| format!(r#"{{"name": "{name}", "path": "{path}"}}"#);
    let columns = COLUMNS.map(column).join(", ");
    let view = format!(r#"{{"resource": "Observation", "select": [{{"column": [{columns}]}}]}}"#);
    let chunks = format!("SELECT dump_view_chunks($view${view}$view$, 'csv')");
    bench.copy_out(&format!("COPY ({chunks}) TO STDOUT (FORMAT binary)"), &mut io::sink())
}

pub(super) fn csv_by_operators(bench: &mut Bench) -> Outcome<f64> {
    let columns = COLUMNS.map(|(name, _, sql)| format!("{sql} AS {name}")).join(", ");
    let query = format!("SELECT {columns} FROM {} WHERE status <> 'deleted'", bench.table());
    let chunks = format!("SELECT dump_sql_chunks($dump${query}$dump$, 'csv')");
    bench.copy_out(&format!("COPY ({chunks}) TO STDOUT (FORMAT binary)"), &mut io::sink())
}
