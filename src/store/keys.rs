//! The primary key of a new table, and the index on identifiers where it is wanted: made with the table, or of its rows
//! once they are there. A B-tree that is built of sorted keys costs each row the same, however many there are; one that
//! rows are inserted into costs more with each, when ids come in no order.

use super::statement::sql;
use crate::settings;
use fhir_bulk_pg::replication;
use fhir_bulk_pg::session;
use fhir_bulk_pg::{guc, spi, subtransaction};

/// As much memory as a build may take: as a backend may grow by during a load. What does not fit is sorted on disk.
const BUILD_KB: i32 = 32 << 10;

/// From so many rows on a build is worth other processes, as many as PostgreSQL takes by default for a large table. It takes
/// them by itself only if each can have 32 MB.
const MANY_ROWS: u64 = 200_000;
const HELPERS: u32 = 2;

/// What a table still lacks.
pub struct Keys {
    /// `schema.table`, quoted.
    table: String,
    /// The index on identifiers too.
    of_identifiers: bool,
}

impl Keys {
    /// Those of a new table.
    pub fn of(table: String) -> Keys {
        Keys { table, of_identifiers: settings::identifier_index() }
    }

    /// Whether a table that is made now may get them when its rows are there. Not where somebody watches: an event
    /// trigger that is told of the table may rely on its key, and who decodes the log would see rows of repeated ids
    /// that come and go.
    pub fn may_wait() -> bool {
        let watched = c"SELECT 'yes' FROM pg_event_trigger WHERE evtenabled <> 'D' LIMIT 1";
        !replication::log_is_decoded() && spi::catalog_texts(watched, &[]).is_empty()
    }

    /// Makes them, of so many rows that stand in the order in which they came: of those with the same id the last one
    /// stays.
    pub fn make(&self, rows: u64) {
        let many = rows >= MANY_ROWS;
        let build = || self.alter("ADD PRIMARY KEY (id)");
        guc::with_maintenance_kb(BUILD_KB, || {
            if many {
                self.alter(&format!("SET (parallel_workers = {HELPERS})"));
            }
            if subtransaction::unless_taken(build).is_none() {
                self.keep_last_of_each_id();
                session::advance_command();
                build();
            }
            if many {
                self.alter("RESET (parallel_workers)");
            }
            self.index_identifiers();
        });
    }

    fn alter(&self, change: &str) {
        spi::execute(&sql(format!("ALTER TABLE {} {change}", self.table)), &[]);
    }

    /// Makes the index on identifiers, if it is wanted.
    pub fn index_identifiers(&self) {
        if self.of_identifiers {
            let expression = "(resource OPERATOR(pg_catalog.->) 'identifier'::pg_catalog.text)";
            let table = &self.table;
            spi::execute(
                &sql(format!("CREATE INDEX ON {table} USING gin ({expression} pg_catalog.jsonb_path_ops)")),
                &[],
            );
        }
    }

    fn keep_last_of_each_id(&self) {
        let table = &self.table;
        spi::execute(
            &sql(format!(
                "DELETE FROM {table} AS t USING \
                 (SELECT r.ctid AS place, pg_catalog.row_number() OVER (PARTITION BY r.id ORDER BY r.ctid DESC) AS number \
                 FROM {table} AS r) AS r \
                 WHERE t.ctid OPERATOR(pg_catalog.=) r.place AND r.number OPERATOR(pg_catalog.>) 1"
            )),
            &[],
        );
    }
}
