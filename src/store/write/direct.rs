//! The direct path: inserts new rows directly into heap pages, and replaces known rows directly.
//!
//! Conflicts between two sessions are left to PostgreSQL's statements: if another session changes a row meanwhile, or keeps
//! inserting the same ids, [`Statements`] write these rows. They wait and resolve conflicts as `ON CONFLICT` does.

use super::batch::{self, Batch, Statuses};
use super::columns::Columns;
use super::kept::out_of_memory;
use super::known::{Known, check_repeated, taken};
use super::statements::Statements;
use super::streamed::Next;
use super::window::{Ended, Window};
use fhir_bulk_pg::access::Access;
use fhir_bulk_pg::catalog::Table;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::find::{Found, IsSame, Old, Place, Snapshot};
use fhir_bulk_pg::insert::{HeapInsert, Space};
use fhir_bulk_pg::update::HeapUpdate;
use fhir_bulk_pg::{session, subtransaction};
use pgrx::pg_sys;

/// How often to look for known ids and insert a batch, if other sessions insert the same ids meanwhile.
const ATTEMPTS: usize = 2;

/// Writes batches into one table.
pub(super) struct Direct {
    insert: HeapInsert,
    known: KnownRows,
    statements: Statements,
    rule: Known,
    /// Whether to look for known ids before inserting; otherwise the insert finds them.
    look_first: bool,
    /// How rows are written as long as no id is known, if the table's indexes allow it.
    window: Option<Window>,
}

impl Direct {
    /// Prepares the path. The caller checks the right to insert. Returns the statements as `Err` if another session is
    /// replacing the index on `id` now.
    pub fn new(
        table: Table,
        columns: Columns,
        id_index: Option<pg_sys::Oid>,
        statements: Statements,
        rule: Known,
    ) -> std::result::Result<Direct, Box<Statements>> {
        let Some(index) = id_index else { return Err(Box::new(statements)) };
        let access = Access::update(table, columns.updated(), columns.selected());
        let insert = HeapInsert::new(Access { inserted: columns.inserted(), ..access.clone() }, Space::Anywhere);
        match HeapUpdate::new(&insert, &access, index) {
            Some(update) => {
                let mut known =
                    KnownRows { access, columns, update, statuses: None, may_replace: false, compares: false };
                if rule.skips_unchanged() {
                    known.compare();
                }
                let window = Window::of(&insert, index);
                Ok(Direct { insert, known, statements, rule, look_first: true, window })
            }
            None => {
                insert.close();
                Err(Box::new(statements))
            }
        }
    }

    /// Writes a batch. Later statements see all of it. Returns how many rows the table had as they are.
    ///
    /// # Errors
    /// 23505 for an id that is known, or comes twice, if that is an error.
    pub fn write(&mut self, batch: &Batch) -> Result<u64> {
        let rows = batch.last_of_each_id(batch.all());
        if self.rule == Known::Refuse {
            check_repeated(batch, &rows)?;
        }
        for _ in 0..ATTEMPTS {
            let snapshot = Snapshot::take();
            let Looked { known, new, same } = match self.look_first {
                true => self.known.find(&self.insert, &snapshot, batch, &rows),
                false => Looked { known: Vec::new(), new: rows.clone(), same: 0 },
            };
            self.look_first = !known.is_empty() || same > 0;
            if let (Known::Refuse, Some((row, _))) = (self.rule, known.first()) {
                return Err(taken(batch, batch.id(*row)));
            }
            let inserted = insert_new(&mut self.insert, batch, &new);
            session::advance_command();
            if inserted {
                self.replace(&snapshot, batch, known);
                snapshot.release();
                return Ok(same);
            }
            snapshot.release();
            self.look_first = true;
        }
        let (rows, same) = self.rule.rows(batch, &self.statements)?;
        match self.rule {
            Known::Refuse => self.statements.insert(batch, &rows),
            Known::Replace { .. } => self.statements.upsert(batch, rows),
        };
        Ok(same)
    }

    /// Whether it inserts rows without a look for known ones before: its last batch had none.
    pub fn expects_new(&self) -> bool {
        !self.look_first
    }

    /// Has it do so.
    pub fn expect_new(&mut self) {
        self.look_first = false;
    }

    /// Whether rows may come while they are written: as far as is known, all of them are new.
    pub fn streams(&self) -> bool {
        self.window.is_some() && !self.look_first
    }

    /// Writes rows that come while they are written. If some are known, all are written by way of `batch`, which is empty.
    /// Returns how many there were.
    ///
    /// # Errors
    /// Those of `next`; 53200 if there is no memory.
    pub fn stream(&mut self, batch: &mut Batch, next: &mut Next<'_>) -> Result<u64> {
        // Batches by themselves take less.
        if let Some(small) = self.window.take_if(|window| !window.has_memory()) {
            small.close();
        }
        let Direct { insert, known, window, .. } = self;
        let Some(window) = window else { return Ok(0) };
        match window.fill(insert, &known.columns, batch, next)? {
            Ended::Stored(lines) => Ok(lines),
            Ended::Known(lines, kept) => {
                self.look_first = true;
                kept.each(|id, resource, cts| {
                    batch.push(id, resource, cts).map_err(out_of_memory)?;
                    if batch.is_full() {
                        self.write_and_clear(batch)?;
                    }
                    Ok(())
                })?;
                self.write_and_clear(batch)?;
                Ok(lines)
            }
        }
    }

    fn write_and_clear(&mut self, batch: &mut Batch) -> Result<()> {
        session::check_for_interrupts();
        if batch.len() > 0 {
            self.write(batch)?;
            batch.clear(2 * batch::BYTES);
        }
        Ok(())
    }

    /// Replaces known rows.
    fn replace(&mut self, snapshot: &Snapshot, batch: &Batch, rows: Vec<(usize, Place)>) {
        let Direct { insert, known, statements, .. } = self;
        if rows.is_empty() {
            return;
        }
        if !statements.keep_history() {
            let left = known.replace(insert, snapshot, batch, &rows);
            statements.upsert(batch, left);
            return;
        }
        // Find the rows again after they are locked.
        statements.upsert_keeping(batch, rows.into_iter().map(|(row, _)| row).collect(), |locked| {
            let snapshot = Snapshot::take();
            let Looked { known: places, new: mut left, .. } = known.find_all(insert, &snapshot, batch, locked);
            left.extend(known.replace(insert, &snapshot, batch, &places));
            snapshot.release();
            (locked.len() - left.len()) as u64 + statements.update(batch, &left)
        });
    }

    /// Frees everything. After an error the transaction's end does that instead.
    pub fn close(self) {
        self.known.update.close();
        if let Some(window) = self.window {
            window.close();
        }
        self.insert.close();
    }
}

/// Inserts rows with different ids, in the order of their ids. Returns false if the table has one of the ids: then nothing
/// is inserted.
fn insert_new(insert: &mut HeapInsert, batch: &Batch, rows: &[usize]) -> bool {
    if rows.is_empty() {
        return true;
    }
    // The table keeps the source's order of rows; only the index entries are in the order of ids.
    let mut in_order = rows.to_vec();
    in_order.sort_unstable();
    let by_id = rows.iter().filter_map(|row| in_order.binary_search(row).ok());
    let inserted = subtransaction::unless_taken(|| {
        insert.insert(in_order.len(), by_id, |at, row| batch.row_values(in_order[at], row));
    });
    if inserted.is_none() {
        insert.was_undone();
    }
    inserted.is_some()
}

/// Finds and replaces rows that the table has.
struct KnownRows {
    access: Access,
    columns: Columns,
    update: HeapUpdate,
    /// Set when the first row is replaced, after the check of the right to do so, or when rows are compared.
    statuses: Option<Statuses>,
    may_replace: bool,
    /// Whether rows with the same resource are left as they are.
    compares: bool,
}

/// Rows of a batch, in their order.
struct Looked {
    /// Those that the table has, with their places.
    known: Vec<(usize, Place)>,
    /// Those that it does not have.
    new: Vec<usize>,
    /// How many it has as they are.
    same: u64,
}

impl KnownRows {
    /// Leaves rows with the same resource as they are. Raises 42501 if the role may not read the rows.
    fn compare(&mut self) {
        let columns = &self.columns;
        Access::update(self.access.table, Vec::new(), columns.compared()).check();
        self.statuses = Some(Statuses::of(columns.status_type));
        self.compares = true;
    }

    /// Looks for rows in the table.
    fn find(&mut self, insert: &HeapInsert, snapshot: &Snapshot, batch: &Batch, rows: &[usize]) -> Looked {
        let KnownRows { columns, update, statuses, compares, .. } = self;
        let mut is_same = |at: usize, old: &Old<'_>| {
            statuses.as_ref().is_some_and(|statuses| batch.is_same(rows[at], old, columns, statuses))
        };
        let is_same: Option<IsSame<'_>> = if *compares { Some(&mut is_same) } else { None };
        looked(rows, update.find(insert, snapshot, &ids(batch, rows), &in_order(rows), is_same))
    }

    /// As [`KnownRows::find`], for rows that are to be replaced whatever they are.
    fn find_all(&mut self, insert: &HeapInsert, snapshot: &Snapshot, batch: &Batch, rows: &[usize]) -> Looked {
        looked(rows, self.update.find(insert, snapshot, &ids(batch, rows), &in_order(rows), None))
    }

    /// Replaces rows. Returns those that another session has changed meanwhile.
    fn replace(
        &mut self,
        insert: &HeapInsert,
        snapshot: &Snapshot,
        batch: &Batch,
        rows: &[(usize, Place)],
    ) -> Vec<usize> {
        let KnownRows { access, columns, update, statuses, may_replace, .. } = self;
        if !*may_replace {
            access.check();
            *may_replace = true;
        }
        let statuses = statuses.get_or_insert_with(|| Statuses::of(columns.status_type));
        let left = update.replace(insert, snapshot, rows, |row, old, new| {
            batch.new_version(row, old, columns, statuses, new);
        });
        session::advance_command();
        left
    }
}

fn ids(batch: &Batch, rows: &[usize]) -> Vec<pg_sys::Datum> {
    batch.id_datums(rows).collect()
}

/// The indexes of rows in the order of the source.
fn in_order(rows: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|at| rows[*at]);
    order
}

fn looked(rows: &[usize], found: Vec<Found>) -> Looked {
    let mut looked = Looked { known: Vec::new(), new: Vec::new(), same: 0 };
    for (row, found) in rows.iter().zip(found) {
        match found {
            Found::Nothing => looked.new.push(*row),
            Found::Row(place) => looked.known.push((*row, place)),
            Found::Same => looked.same += 1,
        }
    }
    looked
}
