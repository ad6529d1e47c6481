//! Creates the primary key of a new table, and the index on identifiers if it is wanted: with the table, or after its rows.
//! Building a B-tree from sorted keys costs the same for each row. Inserting ids in random order into a B-tree costs more
//! with each row.

use super::statement::sql;
use crate::settings;
use fhir_bulk_pg::replication;
use fhir_bulk_pg::session;
use fhir_bulk_pg::{guc, spi, subtransaction};

/// The memory for a build: a load may let the backend grow by this much. What does not fit is sorted on disk.
const BUILD_KB: i32 = 32 << 10;

/// From this many rows on, a build uses parallel workers, as many as PostgreSQL uses by default for a large table. By itself
/// PostgreSQL uses them only if each can have 32 MB.
const MANY_ROWS: u64 = 200_000;
const HELPERS: u32 = 2;

/// The indexes that a table still lacks.
pub struct Keys {
    /// `schema.table`, quoted.
    table: String,
    /// Whether it gets the index on identifiers, too.
    of_identifiers: bool,
}

impl Keys {
    /// The keys of a new table.
    pub fn of(table: String) -> Keys {
        Keys { table, of_identifiers: settings::identifier_index() }
    }

    /// Whether a new table may get its keys after its rows. Not if there is an event trigger, which may rely on the key of a
    /// new table. Not with logical decoding, which would see rows with repeated ids being inserted and deleted.
    pub fn may_wait() -> bool {
        let watched = c"SELECT 'yes' FROM pg_event_trigger WHERE evtenabled <> 'D' LIMIT 1";
        !replication::log_is_decoded() && spi::catalog_texts(watched, &[]).is_empty()
    }

    /// Creates the keys for `rows` rows, which are stored in the order of the source: of rows with the same id the last one
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

    /// Creates the index on identifiers, if it is wanted.
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
