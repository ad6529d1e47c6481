//! Finding resources by their business identifiers through an index, where there is one that can.

use super::ResourceTable;
use fhir_bulk_codec::resource::Identifier;
use fhir_bulk_pg::datum;
use fhir_bulk_pg::guc::{self, Changes};
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::pg_sys;
use serde_json::{Value, json};
use std::ffi::CString;

/// A condition, starting with AND, that an index answers for the current role, and its only parameter. Rows beyond
/// those meant may meet it: an identifier without a system finds its value in any. `None` without such an index.
pub fn indexed(table: &ResourceTable, wanted: &[Identifier<'_>]) -> Option<(String, Parameter)> {
    let indexed = indexed_expressions(table);
    // An expression stands in one pair of parentheses or two.
    let has = |expression: &str| indexed.iter().any(|found| found.trim_matches(['(', ')']) == expression);
    // The smaller index first.
    let (expression, within): (_, fn(Value) -> Value) = if has("resource -> 'identifier'::text") {
        ("(resource OPERATOR(pg_catalog.->) 'identifier'::pg_catalog.text)", |identifier| identifier)
    } else if has("resource") {
        ("resource", |identifier| json!({"identifier": identifier}))
    } else {
        return None;
    };
    // Some types have a list of identifiers, some a single one, and containment tells them apart.
    let patterns = wanted.iter().flat_map(|identifier| {
        let object = match identifier.system {
            Some(system) => json!({"system": system, "value": identifier.value}),
            None => json!({"value": identifier.value}),
        };
        [within(json!([object])), within(object)]
    });
    let mut patterns: Vec<_> = patterns
        .map(|pattern| CString::new(pattern.to_string()).expect("JSON text has no NUL"))
        .map(|text| datum::input(pg_sys::JSONBOID, &text))
        .collect();
    Some((format!(" AND {expression} OPERATOR(pg_catalog.@>) ANY ($1)"), Parameter::jsonbs(&mut patterns)))
}

/// Plans a query with such a condition so that it uses the index, whatever the planner believes: it has no statistics
/// of what identifiers a table holds, and may take a hundred of them for half of the table.
pub fn by_index<T>(plan: impl FnOnce() -> T) -> T {
    guc::with(&[(c"enable_seqscan", c"off"), (c"enable_bitmapscan", c"on")], Changes::Keep, plan)
}

/// What the GIN indexes of a table are on that can answer containment for the current role, as PostgreSQL writes it.
fn indexed_expressions(table: &ResourceTable) -> Vec<String> {
    // Containment may not run before a policy has let a row pass: it could tell of others.
    let query = c"SELECT pg_get_indexdef(i.indexrelid, n, false) \
         FROM pg_index i CROSS JOIN LATERAL generate_series(1, i.indnkeyatts) n \
         JOIN pg_opclass o ON o.oid = i.indclass[n - 1] JOIN pg_am a ON a.oid = o.opcmethod \
         WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND a.amname = 'gin' \
         AND o.opcname IN ('jsonb_ops', 'jsonb_path_ops') AND NOT row_security_active($1)";
    // It spells out the names of operators that the search_path hides.
    spi::catalog_texts(query, &[Parameter::oid(table.oid)])
}
