//! A view of ten columns, and the same columns in SQL.

/// Ten columns of Observations: name, path, and the same in SQL.
pub const COLUMNS: [(&str, &str, &str); 10] = [
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

/// The ViewDefinition.
pub fn view() -> String {
    let column = |(name, path, _): (&str, &str, &str)| format!(r#"{{"name": "{name}", "path": "{path}"}}"#);
    let columns = COLUMNS.map(column).join(", ");
    format!(r#"{{"resource": "Observation", "select": [{{"column": [{columns}]}}]}}"#)
}
