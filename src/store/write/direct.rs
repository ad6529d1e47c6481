//! The direct path: inserts new rows directly into heap pages, and replaces known rows directly.
//!
//! Conflicts between two sessions are left to PostgreSQL's statements: if another session changes a row meanwhile, or keeps
//! inserting the same ids, [`Statements`] write these rows. They wait and resolve conflicts as `ON CONFLICT` does.

use super::batch::{Batch, Statuses};
use super::columns::Columns;
use super::path;
use super::statements::Statements;
use fhir_bulk_pg::access::Access;
use fhir_bulk_pg::catalog::Table;
use fhir_bulk_pg::insert::{HeapInsert, Space};
use fhir_bulk_pg::update::{HeapUpdate, Place, Snapshot};
use fhir_bulk_pg::{session, subtransaction};

/// How often to look for known ids and insert a batch, if other sessions insert the same ids meanwhile.
const ATTEMPTS: usize = 2;

/// Writes batches into one table.
pub(super) struct Direct {
    insert: HeapInsert,
    known: KnownRows,
    statements: Statements,
    /// Whether to look for known ids before inserting; otherwise the insert finds them.
    look_first: bool,
}

impl Direct {
    /// Prepares the path. The caller checks the right to insert. Returns the statements as `Err` if another session is
    /// replacing the index on `id` now.
    pub fn new(table: Table, columns: Columns, statements: Statements) -> Result<Direct, Statements> {
        let Some(index) = path::id_index(&table, &columns) else { return Err(statements) };
        let access = Access::update(table, columns.updated(), columns.selected());
        let insert = HeapInsert::new(Access { inserted: columns.inserted(), ..access.clone() }, Space::Anywhere);
        match HeapUpdate::new(&insert, &access, index.oid) {
            Some(update) => {
                let known = KnownRows { access, columns, update, statuses: None };
                Ok(Direct { insert, known, statements, look_first: true })
            }
            None => {
                insert.close();
                Err(statements)
            }
        }
    }

    /// Writes a batch. Later statements see all of it.
    pub fn write(&mut self, batch: &Batch) {
        let rows = batch.last_of_each_id(batch.all());
        for _ in 0..ATTEMPTS {
            let snapshot = Snapshot::take();
            let (known, new) = match self.look_first {
                true => self.known.find(&self.insert, &snapshot, batch, &rows),
                false => (Vec::new(), rows.clone()),
            };
            self.look_first = !known.is_empty();
            let inserted = insert_new(&mut self.insert, batch, &new);
            session::advance_command();
            if inserted {
                self.replace(&snapshot, batch, known);
                snapshot.release();
                return;
            }
            snapshot.release();
            self.look_first = true;
        }
        self.statements.upsert(batch, rows);
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
            let (places, mut left) = known.find(insert, &snapshot, batch, locked);
            left.extend(known.replace(insert, &snapshot, batch, &places));
            snapshot.release();
            (locked.len() - left.len()) as u64 + statements.update(batch, &left)
        });
    }

    /// Frees everything. After an error the transaction's end does that instead.
    pub fn close(self) {
        self.known.update.close();
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
    /// Set when the first row is replaced, after the check of the right to do so.
    statuses: Option<Statuses>,
}

impl KnownRows {
    /// Divides rows into those that the table has, with their places, and the others. Both keep their order.
    fn find(
        &mut self,
        insert: &HeapInsert,
        snapshot: &Snapshot,
        batch: &Batch,
        rows: &[usize],
    ) -> (Vec<(usize, Place)>, Vec<usize>) {
        let places = self.update.find(insert, snapshot, batch.id_datums(rows));
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for (row, place) in rows.iter().zip(places) {
            match place {
                Some(place) => known.push((*row, place)),
                None => new.push(*row),
            }
        }
        (known, new)
    }

    /// Replaces rows. Returns those that another session has changed meanwhile.
    fn replace(
        &mut self,
        insert: &HeapInsert,
        snapshot: &Snapshot,
        batch: &Batch,
        rows: &[(usize, Place)],
    ) -> Vec<usize> {
        let KnownRows { access, columns, update, statuses } = self;
        let statuses = statuses.get_or_insert_with(|| {
            access.check();
            Statuses::of(columns.status_type)
        });
        let left = update.replace(insert, snapshot, rows, |row, old, new| {
            batch.new_version(row, old, columns, statuses, new);
        });
        session::advance_command();
        left
    }
}
