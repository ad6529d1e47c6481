//! Writes resources into their table: new ones, and new versions of known ones. [`path`] chooses how.

mod batch;
mod columns;
mod delete;
mod direct;
mod history;
mod kept;
mod known;
mod path;
mod shards;
mod statements;
mod streamed;
mod supplied;
mod window;

pub use batch::Stamp;
pub use delete::Deletes;
pub use known::Known;
pub use path::Path;
pub use streamed::Next;

use super::keys::Keys;
use super::{ResourceTable, ResourceType};
use crate::store::statement::sql;
use batch::Batch;
use columns::Columns;
use direct::Direct;
use fhir_bulk_pg::access::Access;
use fhir_bulk_pg::catalog::Table;
use fhir_bulk_pg::datum;
use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::insert::{HeapInsert, Space};
use fhir_bulk_pg::{session, spi};
use history::History;
use path::Facts;
use shards::Shards;
use statements::{Lock, StagedStatements, Statements, Target};
use std::collections::TryReserveError;

/// Each statement has a fixed cost, so batches for statements are larger.
const STATEMENT_ROWS: usize = 8000;
const STATEMENT_BYTES: usize = 8 << 20;

/// Writes the resources of one type.
pub struct TableWriter {
    table: Table,
    batch: Batch,
    way: Way,
    rule: Known,
    stored: Stored,
    /// Whether the table is a shard of Citus's, one of many.
    is_shard: bool,
}

/// How much a writer has stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Input lines.
    pub lines: u64,
    /// How many of them the table had as they are. Of lines with the same id in a batch only the last counts.
    pub unchanged: u64,
}

/// What a table is that is opened.
enum Kind {
    /// Any; it may lack these keys.
    Table(Option<Keys>),
    /// A shard of Citus's.
    Shard,
}

/// A [`Path`] with its state.
enum Way {
    Direct(Box<Direct>),
    /// Into a table that this load has created and no other session sees: first all rows, then the keys.
    Fill {
        insert: HeapInsert,
        keys: Keys,
    },
    Set(Statements),
    /// The same where known ids are errors, and Citus would make a COPY of an INSERT, which policies do not allow.
    Others(Statements),
    Shards(Shards),
    UpdateInsert {
        statements: Statements,
        /// Whether statements return the right number of rows. With rules they do not.
        counts: bool,
    },
    Staged {
        stage: Table,
        insert: HeapInsert,
        statements: StagedStatements,
    },
}

/// The path that a load by the current role would take into a table, and why.
///
/// # Errors
/// As for [`TableWriter::open`].
pub fn path_into(table: &ResourceTable) -> Result<(Path, &'static str)> {
    let open = Table::open_for_insert(table.oid);
    let chosen = Columns::of(&open).and_then(|columns| path::choose(&open, &columns, &Facts::of(&open, &columns)));
    open.close();
    chosen
}

/// Checks that a table has the columns of a resource table.
///
/// # Errors
/// 42703 and 42804 for columns that are missing or of another type. PostgreSQL raises 42809 if it is not a table.
pub fn check(table: &ResourceTable) -> Result<()> {
    let open = Table::open_for_insert(table.oid);
    let columns = Columns::of(&open);
    open.close();
    columns.map(|_| ())
}

impl TableWriter {
    /// Opens a table for writing: checks privileges and chooses the path. A table that was just created may lack its `keys`
    /// until [`TableWriter::finish`].
    ///
    /// # Errors
    /// 42703 and 42804 for columns that are missing or of another type, 42P10 without a unique index on `id`, 42809 if it is
    /// not a table, 42P01 without a history table. PostgreSQL raises its own errors (42501).
    pub fn open(
        table: &ResourceTable,
        resource_type: &ResourceType,
        stamp: Stamp,
        rule: Known,
        keys: Option<Keys>,
    ) -> Result<TableWriter> {
        let history = if rule.keeps_history() { Some(table.history()?) } else { None };
        TableWriter::open_table(table, history.as_ref(), resource_type, stamp, rule, Kind::Table(keys))
    }

    /// As [`TableWriter::open`], of a shard of Citus's, with that of the history table if replaced versions are kept.
    ///
    /// # Errors
    /// As for [`TableWriter::open`].
    pub fn open_shard(
        table: &ResourceTable,
        history: Option<&ResourceTable>,
        resource_type: &ResourceType,
        stamp: Stamp,
        rule: Known,
    ) -> Result<TableWriter> {
        TableWriter::open_table(table, history, resource_type, stamp, rule, Kind::Shard)
    }

    fn open_table(
        table: &ResourceTable,
        history: Option<&ResourceTable>,
        resource_type: &ResourceType,
        stamp: Stamp,
        rule: Known,
        kind: Kind,
    ) -> Result<TableWriter> {
        let mut open = Table::open_for_insert(table.oid);
        let columns = Columns::of(&open)?;
        let is_shard = matches!(kind, Kind::Shard);
        let (mut facts, keys) = match kind {
            Kind::Table(keys) => (Facts::of(&open, &columns), keys),
            Kind::Shard => (Facts::of_shard(&open, &columns), None),
        };
        let keys = match keys {
            Some(keys) if !path::is_direct(&open, &columns, &facts)? => {
                open.close();
                keys.make(0);
                open = Table::open_for_insert(table.oid);
                facts = Facts::of(&open, &columns);
                None
            }
            keys => keys,
        };
        let history = history.map(|history| History::of(table, history));
        // Check the privilege first, so that errors reveal nothing of the table.
        Access::insert(open, columns.inserted()).check();
        let (has_cts, status_type) = (columns.cts.is_some(), columns.status_type);
        let status_created = datum::input(status_type, c"created");
        let mut batch = Batch::new(stamp, resource_type.as_str(), status_created, has_cts);
        if is_shard {
            batch.take_room();
        }
        if let Some(keys) = keys {
            let insert = HeapInsert::new(Access::insert(open, columns.inserted()), Space::AtEnd);
            return Ok(TableWriter {
                table: open,
                batch,
                way: Way::Fill { insert, keys },
                rule,
                stored: Stored::default(),
                is_shard,
            });
        }
        let (path, _) = path::choose(&open, &columns, &facts)?;
        let lock = if facts.is_distributed { Lock::Update } else { Lock::Select };
        let target = Target::new(table, has_cts, facts.conflict());
        let statements = || Statements::new(&target, history.as_ref(), lock);
        let way = match path {
            Path::Direct => match Direct::new(open, columns, facts.index.map(|index| index.oid), statements(), rule) {
                Ok(direct) => Way::Direct(Box::new(direct)),
                Err(statements) => Way::Set(*statements),
            },
            Path::Set => Way::Set(statements()),
            Path::Shards => Way::Shards(Shards::new(statements(), &target)),
            Path::Staged if rule == Known::Refuse && open.has_row_security_for_me() => Way::Others(statements()),
            // Its only statement cannot leave rows as they are, nor refuse them.
            Path::Staged if rule != Known::default() => Way::Set(statements()),
            Path::UpdateInsert => Way::UpdateInsert { statements: statements(), counts: !open.has_rules() },
            Path::Staged => {
                let (stage, name) = make_stage();
                let statements = StagedStatements::new(&target, &name);
                let statements = if path::has_triggers(&open) { statements.counting(&name) } else { statements };
                let insert = HeapInsert::new(Access::insert(stage, vec![1, 2, 3]), Space::AtEnd);
                Way::Staged { stage, insert, statements }
            }
        };
        Ok(TableWriter { table: open, batch, way, rule, stored: Stored::default(), is_shard })
    }

    /// Whether writing may run code of other roles: triggers, rules, policies.
    pub fn runs_others_code(&self) -> bool {
        !matches!(self.way, Way::Direct(_) | Way::Fill { .. })
    }

    /// Whether [`TableWriter::finish`] creates the table's keys.
    pub fn lacks_keys(&self) -> bool {
        matches!(self.way, Way::Fill { .. })
    }

    /// Adds one resource, as jsonb bytes without their length header. Writes the batch when it is full.
    ///
    /// # Errors
    /// Out of memory. Errors of writing are raised.
    pub fn push(
        &mut self,
        id: &str,
        resource: &[u8],
        created_at: Option<i64>,
    ) -> std::result::Result<(), TryReserveError> {
        self.batch.push(id, resource, created_at)?;
        let (rows, bytes) = self.batch_limits();
        if self.batch.len() == rows || self.batch.bytes() >= bytes {
            self.flush();
        }
        Ok(())
    }

    /// Whether rows may be asked for while others are written: see [`TableWriter::stream`].
    pub fn streams(&self) -> bool {
        let may_replace = self.rule != Known::Refuse && !self.rule.skips_unchanged();
        let does = match &self.way {
            Way::Shards(shards) => shards.streams(),
            Way::Direct(direct) => direct.streams(),
            _ => false,
        };
        does && self.batch.len() == 0 && may_replace
    }

    /// Writes the rows for which `next` is asked: it gives one, and returns true, or returns false after the last one. It may
    /// be asked for fewer rows than it has, and runs no statement.
    ///
    /// # Errors
    /// Those of `next`. Errors of writing are raised.
    pub fn stream(&mut self, next: &mut Next<'_>) -> Result<()> {
        session::check_for_interrupts();
        let TableWriter { batch, way, stored, .. } = self;
        stored.lines += match way {
            Way::Shards(shards) => {
                let (lines, kept_out) = shards.stream(batch, next)?;
                lines - kept_out
            }
            Way::Direct(direct) => direct.stream(batch, next)?,
            _ => 0,
        };
        session::have_log_written();
        Ok(())
    }

    /// How many rows and bytes make a batch full.
    fn batch_limits(&self) -> (usize, usize) {
        match &self.way {
            Way::Shards(shards) => shards.batch_limits(),
            Way::Direct(_) | Way::Fill { .. } | Way::Staged { .. } => (batch::ROWS, batch::BYTES),
            Way::Set(_) | Way::Others(_) | Way::UpdateInsert { .. } => (STATEMENT_ROWS, STATEMENT_BYTES),
        }
    }

    /// Has it insert rows without a look for known ones before.
    pub fn expect_new(&mut self) {
        if let Way::Direct(direct) = &mut self.way {
            direct.expect_new();
        }
    }

    /// Writes the rows so far. Returns whether all have been new, as far as is known.
    pub fn settle(&mut self) -> bool {
        self.flush();
        matches!(&self.way, Way::Direct(direct) if direct.expects_new())
    }

    /// Writes the last batch and closes the table.
    pub fn finish(mut self) -> Stored {
        self.flush();
        let mut missing = None;
        match self.way {
            Way::Direct(direct) => direct.close(),
            Way::Fill { insert, keys } => {
                insert.close();
                missing = Some(keys);
            }
            Way::Staged { stage, insert, statements } => {
                insert.close();
                session::advance_command();
                self.stored.lines -= statements.run(&self.batch);
                stage.close();
            }
            Way::Set(_) | Way::Others(_) | Way::Shards(_) | Way::UpdateInsert { .. } => {}
        }
        self.table.close();
        if self.is_shard {
            self.batch.spare();
        }
        if let Some(keys) = missing {
            session::advance_command();
            keys.make(self.stored.lines);
        }
        self.stored
    }

    fn flush(&mut self) {
        session::check_for_interrupts();
        let TableWriter { batch, way, rule, stored, .. } = self;
        let lines = batch.len() as u64;
        if lines == 0 {
            return;
        }
        // Rows that statements write, and how many are left as they are.
        let of_statements = |statements: &Statements| or_raise(rule.rows(batch, statements));
        let refuses = *rule == Known::Refuse;
        // Lines whose rows a trigger or rule kept out do not count as stored.
        let (kept_out, unchanged) = match way {
            Way::Direct(direct) => (0, or_raise(direct.write(batch))),
            Way::Set(statements) => {
                let (rows, unchanged) = of_statements(statements);
                let expected = rows.len() as u64;
                let written = if refuses { statements.insert(batch, &rows) } else { statements.upsert(batch, rows) };
                (expected.saturating_sub(written), unchanged)
            }
            Way::Others(statements) => {
                let (rows, unchanged) = of_statements(statements);
                or_raise(known::insert_all(batch, &rows, statements));
                (0, unchanged)
            }
            Way::Shards(shards) => {
                let (rows, unchanged) = of_statements(shards.statements());
                let kept_out = if refuses {
                    (rows.len() as u64).saturating_sub(shards.statements().insert(batch, &rows))
                } else {
                    shards.write(batch, rows)
                };
                (kept_out, unchanged)
            }
            Way::UpdateInsert { statements, counts } => {
                let (rows, unchanged) = of_statements(statements);
                let expected = rows.len() as u64;
                let touched =
                    if refuses { statements.insert(batch, &rows) } else { statements.update_insert(batch, rows) };
                (if *counts { expected.saturating_sub(touched) } else { 0 }, unchanged)
            }
            Way::Fill { insert, .. } => {
                insert.insert(batch.len(), [], |at, row| batch.row_values(at, row));
                (0, 0)
            }
            Way::Staged { insert, .. } => {
                insert.insert(batch.len(), [], |at, row| batch.staged_values(at, row));
                (0, 0)
            }
        };
        stored.lines += lines - kept_out;
        stored.unchanged += unchanged;
        // The memory has grown by doubling.
        let (_, bytes) = self.batch_limits();
        self.batch.clear(2 * bytes);
        session::have_log_written();
    }
}

/// Creates a temporary table with `id, resource, cts` for this transaction. Returns it and its name.
fn make_stage() -> (Table, String) {
    let number = spi::catalog_texts(c"SELECT count(*) FROM pg_class WHERE relname LIKE 'fhir\\_bulk\\_stage\\_%'", &[]);
    let name = format!("pg_temp.fhir_bulk_stage_{}", number.first().map_or("0", String::as_str));
    spi::execute(
        &sql(format!(
            "CREATE TEMPORARY TABLE {name} (id pg_catalog.text, resource pg_catalog.jsonb, cts pg_catalog.timestamptz) \
             ON COMMIT DROP"
        )),
        &[],
    );
    let oid = spi::texts(&sql(format!("SELECT '{name}'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.text")), &[]);
    let oid = oid.first().and_then(|oid| oid.parse::<u32>().ok()).expect("made just now");
    (Table::open_for_insert(oid.into()), name)
}
