//! How many resources a table has, and how large it is.

use super::ResourceTable;
use super::statement::sql;
use crate::citus;
use fhir_bulk_pg::spi::{self, Parameter};

/// What the catalogue knows of a table's size; `None` for what it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// About how many rows it has.
    pub rows: Option<u64>,
    /// How many bytes it has, with its indexes, its partitions and its child tables.
    pub bytes: Option<u64>,
}

impl Size {
    /// What the catalogue knows of a table, without reading it: rows as the planner estimates them. It knows nothing of a
    /// view, of a table on other servers, or of one that was never analyzed; and it says nothing of a table whose policies
    /// apply to the current role, because it counts what they hide.
    pub fn known(table: &ResourceTable) -> Size {
        if citus::is_distributed(table.oid) {
            return Size::default();
        }
        let query = c"WITH RECURSIVE parts (oid) AS (SELECT $1 UNION SELECT i.inhrelid FROM parts p \
                JOIN pg_inherits i ON i.inhparent = p.oid), \
            sizes AS (SELECT CASE WHEN c.relkind = 'p' OR pg_relation_size(c.oid) = 0 THEN 0 \
                    WHEN c.relpages > 0 AND c.reltuples >= 0 THEN c.reltuples::float8 / c.relpages \
                        * (pg_relation_size(c.oid) / current_setting('block_size')::int8) END AS rows, \
                pg_total_relation_size(c.oid) AS bytes, c.relkind IN ('r', 'm', 'p') AS is_here \
                FROM parts p JOIN pg_class c ON c.oid = p.oid) \
            SELECT concat(CASE WHEN bool_and(rows IS NOT NULL) THEN sum(rows)::int8 END, ' ', sum(bytes)) FROM sizes \
            WHERE NOT row_security_active($1) HAVING bool_and(is_here)";
        let found = spi::catalog_texts(query, &[Parameter::oid(table.oid)]);
        let Some((rows, bytes)) = found.first().and_then(|text| text.split_once(' ')) else { return Size::default() };
        Size { rows: rows.parse().ok(), bytes: bytes.parse().ok() }
    }
}

/// Counts the live resources of a table that the current role sees. PostgreSQL raises its own errors.
pub fn count_live(table: &ResourceTable) -> u64 {
    let query = sql(format!(
        "SELECT pg_catalog.count(*) FROM {} WHERE {} OPERATOR(pg_catalog.<>) 'deleted'",
        table.sql_name,
        table.status("")
    ));
    spi::texts(&query, &[]).first().and_then(|count| count.parse().ok()).unwrap_or(0)
}
