//! Chooses how rows are written into a table. All paths give the same rows and counts. They differ in speed, and in which
//! features of PostgreSQL (triggers, policies, partitions) they support.

use super::columns::Columns;
use crate::citus;
use crate::settings::{self, WritePath};
use fhir_bulk_pg::catalog::{self, Table};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::spi::{self, Parameter};
use fhir_bulk_pg::unique::UniqueIndex;
use pgrx::PgSqlErrorCode;

/// How rows are written into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Batches go directly into heap pages, then index entries are inserted. Each batch runs in a subtransaction. If an id
    /// is known, it is rolled back, known ids are looked up, and the batch is tried again. After that, `Set` writes it.
    /// As long as all ids are new, many batches form a window, whose index entries on `id` are inserted together, sorted.
    /// There are no speculative insertions: no other session waits for a key that is then removed, and logical decoding sees
    /// none.
    Direct,
    /// One `INSERT … SELECT … ON CONFLICT` per batch: triggers, policies and partitions work.
    Set,
    /// `UPDATE`, then `INSERT` of the other rows: for tables that do not support ON CONFLICT (foreign tables, rules).
    UpdateInsert,
    /// One `INSERT … SELECT` per batch, without ON CONFLICT and in a subtransaction: Citus carries the rows to their shards
    /// by COPY. If an id is known, it is rolled back, and `Set` writes this batch and the rest.
    Shards,
    /// All rows go into a temporary table, then one `INSERT … SELECT … ON CONFLICT` writes them: for tables on other
    /// servers, where each statement costs a round trip. If replaced versions are kept, their rows must be locked first;
    /// then the statements of `Set` write batch by batch.
    Staged,
}

impl Path {
    /// Its name for users.
    pub fn name(self) -> &'static str {
        match self {
            Path::Direct => "direct",
            Path::Set => "set",
            Path::UpdateInsert => "update-insert",
            Path::Shards => "shards",
            Path::Staged => "staged",
        }
    }
}

/// The path into a table for the current role, and why.
///
/// # Errors
/// 42809 if it is not a table; 42P10 for a table without a unique index on `id`, or that Citus distributes by another
/// column.
pub(super) fn choose(table: &Table, columns: &Columns, facts: &Facts) -> Result<(Path, &'static str)> {
    let chosen = wanted(table, columns, facts)?;
    // A foreign table has its keys on its own server.
    if chosen.0 != Path::UpdateInsert && facts.index.is_none() {
        if let Some(column) = citus::distribution_column(table.oid()).filter(|column| column != "id") {
            return Err(distributed_by(table, &column));
        }
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE,
            format!("table \"{}\" has no unique index on id", table.name()),
        )
        .detail("The index must be on id alone, without WHERE, and not deferrable.")
        .hint(format!("CREATE UNIQUE INDEX ON {} (id);", table.name())));
    }
    Ok(chosen)
}

/// Whether the path is [`Path::Direct`], even if the index on `id` is missing.
///
/// # Errors
/// 42809 if it is not a table.
pub(super) fn is_direct(table: &Table, columns: &Columns, facts: &Facts) -> Result<bool> {
    Ok(wanted(table, columns, facts)?.0 == Path::Direct)
}

fn wanted(table: &Table, columns: &Columns, facts: &Facts) -> Result<(Path, &'static str)> {
    let chosen = natural(table, columns, facts)?;
    Ok(match (settings::write_path(), chosen) {
        (WritePath::Set, (Path::Direct | Path::Shards, _)) => (Path::Set, "fhir_bulk.write_path asks for it"),
        (WritePath::Staged, (Path::Direct | Path::Set | Path::Shards, _)) => {
            (Path::Staged, "fhir_bulk.write_path asks for it")
        }
        (_, chosen) => chosen,
    })
}

fn natural(table: &Table, columns: &Columns, facts: &Facts) -> Result<(Path, &'static str)> {
    Ok(match table.kind() {
        b'r' | b'p' if facts.is_distributed => match () {
            // COPY refuses tables with policies, and does not say how many rows triggers keep out.
            () if table.has_row_security_for_me() => (
                Path::Staged,
                "Citus distributes it to other servers, and row level security applies to the current role",
            ),
            () if has_own_triggers(table) => {
                (Path::Staged, "Citus distributes it to other servers, and it has triggers")
            }
            () => (Path::Shards, "Citus distributes it to other servers"),
        },
        b'r' | b'p' if table.has_rules() => (Path::UpdateInsert, "it has rules"),
        b'p' if has_foreign_partition(table) => (Path::UpdateInsert, "some of its partitions are foreign tables"),
        b'f' => (Path::UpdateInsert, "it is a foreign table"),
        b'p' | b'r' if facts.index.is_some() && facts.conflict().is_none() => {
            (Path::UpdateInsert, "ON CONFLICT does not work with its deferrable key on id")
        }
        b'p' => (Path::Set, "it is partitioned"),
        b'r' if table.is_partition() => (Path::Set, "it is a partition"),
        b'r' if !table.is_heap() => (Path::Set, "it does not use PostgreSQL's heap storage"),
        b'r' if table.has_triggers() => (Path::Set, "it has triggers or foreign keys"),
        b'r' if table.has_row_security_for_me() => (Path::Set, "row level security applies to the current role"),
        b'r' if table.columns().iter().any(|c| c.is_generated) => (Path::Set, "it has generated columns"),
        b'r' if table.columns().iter().any(|c| catalog::is_domain(c.type_oid)) => {
            (Path::Set, "it has columns of domain types")
        }
        b'r' if !catalog::is_enum(columns.status_type) => (Path::Set, "its status is not an enumerated type"),
        b'r' if facts.index.as_ref().is_some_and(|index| !index.is_exact) => {
            (Path::Set, "its collation may treat different ids as equal")
        }
        b'r' => (Path::Direct, "it is a plain table"),
        kind => {
            let what = match kind {
                b'v' => "a view",
                b'm' => "a materialized view",
                _ => "not a table",
            };
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("cannot load into \"{}\": it is {what}", table.name()),
            )
            .hint("Load into the table itself."));
        }
    })
}

fn oid(table: &Table) -> Parameter {
    Parameter::oid(table.oid())
}

/// Citus has unique indexes only if they contain the distribution column: such a table cannot be unique by `id`.
fn distributed_by(table: &Table, column: &str) -> Error {
    let name = table.name();
    let message = format!("cannot load into \"{name}\": Citus distributes it by column {column}, not by id");
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE, message)
        .detail("So no unique index on id can tell which resources are known.")
        .hint(
            "SELECT undistribute_table(…); then add a primary key on id, and SELECT create_distributed_table(…, 'id');",
        )
}

/// Whether a table has triggers other than those that PostgreSQL and Citus make for themselves.
fn has_own_triggers(table: &Table) -> bool {
    let query = c"SELECT 'yes' FROM pg_partition_tree($1) p JOIN pg_trigger t ON t.tgrelid = p.relid \
        WHERE NOT t.tgisinternal LIMIT 1";
    let of_one = c"SELECT 'yes' FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal LIMIT 1";
    !spi::catalog_texts(if table.kind() == b'p' { query } else { of_one }, &[oid(table)]).is_empty()
}

fn has_foreign_partition(table: &Table) -> bool {
    let query = c"SELECT 'yes' FROM pg_partition_tree($1) p JOIN pg_class c ON c.oid = p.relid \
        WHERE c.relkind = 'f' LIMIT 1";
    !spi::catalog_texts(query, &[oid(table)]).is_empty()
}

/// Whether triggers of the table or of a partition may keep rows out.
pub(super) fn has_triggers(table: &Table) -> bool {
    let query = c"SELECT 'yes' FROM pg_partition_tree($1) p JOIN pg_class c ON c.oid = p.relid \
        WHERE c.relhastriggers LIMIT 1";
    table.has_triggers() || table.kind() == b'p' && !spi::catalog_texts(query, &[oid(table)]).is_empty()
}

/// What else decides about a table's path, looked up once.
pub(super) struct Facts {
    /// A unique index on `id` alone.
    pub index: Option<UniqueIndex>,
    /// Whether Citus distributes the table. Then only a shell of it is here, and rows written directly into the shell would
    /// be lost.
    pub is_distributed: bool,
}

impl Facts {
    pub fn of(table: &Table, columns: &Columns) -> Facts {
        Facts { is_distributed: citus::is_distributed(table.oid()), ..Facts::of_shard(table, columns) }
    }

    /// Of a table that is a shard of Citus's.
    pub fn of_shard(table: &Table, columns: &Columns) -> Facts {
        Facts { index: UniqueIndex::on(*table, columns.id), is_distributed: false }
    }

    /// The conflict target for `ON CONFLICT`, mostly `(id)`. If there is also a deferrable key on `id`, `(id)` would match
    /// that key, too, and fail; then this is the constraint's name, or `None` if there is no constraint.
    pub fn conflict(&self) -> Option<String> {
        match &self.index.as_ref()?.rival {
            None => Some("(id)".to_owned()),
            Some(rival) => rival.constraint.as_ref().map(|name| format!("ON CONSTRAINT {name}")),
        }
    }
}
