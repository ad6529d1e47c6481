//! Finds resources by their business identifiers, through an index if there is one.

use super::ResourceTable;
use fhir_bulk_codec::resource::Identifier;
use fhir_bulk_pg::datum;
use fhir_bulk_pg::guc::{self, Changes};
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::pg_sys;
use serde_json::{Value, json};
use std::ffi::CString;

/// A condition that starts with AND and that an index can answer for the current role, and its only parameter. It may match
/// more rows than wanted: an identifier without a system matches its value in any system. `None` if there is no such index.
pub fn indexed(table: &ResourceTable, wanted: &[Identifier<'_>]) -> Option<(String, Parameter)> {
    let indexed = indexed_expressions(table);
    let has = |expression: &str| indexed.iter().any(|found| found == expression);
    // The smaller index first.
    let (expression, within): (_, fn(Value) -> Value) = if has("resource -> 'identifier'::text") {
        ("(resource OPERATOR(pg_catalog.->) 'identifier'::pg_catalog.text)", |identifier| identifier)
    } else if has("resource") {
        ("resource", |identifier| json!({"identifier": identifier}))
    } else {
        return None;
    };
    // Some types have a list of identifiers, others a single one; containment needs a pattern for each.
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

/// Plans a query with such a condition so that it uses the index. The planner has no statistics of identifiers, and may
/// think that a hundred of them match half of the table.
pub fn by_index<T>(plan: impl FnOnce() -> T) -> T {
    guc::with(&[(c"enable_seqscan", c"off"), (c"enable_bitmapscan", c"on")], Changes::Keep, plan)
}

/// The expressions of the table's GIN indexes that can answer containment for the current role, as PostgreSQL writes them,
/// without parentheses around them.
pub(super) fn indexed_expressions(table: &ResourceTable) -> Vec<String> {
    // With a policy, PostgreSQL must not run containment first: it could reveal rows that the policy hides.
    let query = c"SELECT pg_get_indexdef(i.indexrelid, n, false) \
         FROM pg_index i CROSS JOIN LATERAL generate_series(1, i.indnkeyatts) n \
         JOIN pg_opclass o ON o.oid = i.indclass[n - 1] JOIN pg_am a ON a.oid = o.opcmethod \
         WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND a.amname = 'gin' \
         AND o.opcname IN ('jsonb_ops', 'jsonb_path_ops') AND NOT row_security_active($1)";
    // PostgreSQL writes operators with their schema if the search_path hides them.
    let found = spi::catalog_texts(query, &[Parameter::oid(table.oid)]);
    // In one or two pairs of parentheses.
    found.iter().map(|expression| expression.trim_matches(['(', ')']).to_owned()).collect()
}
