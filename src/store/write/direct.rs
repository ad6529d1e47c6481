//! The direct way: new rows straight into heap pages, new versions straight into the place of known rows.
//!
//! What two sessions do at the same time is left to PostgreSQL's statements: a row that another one changes meanwhile,
//! and ids that it keeps inserting, are written by [`Statements`], which wait and answer as `ON CONFLICT` does.

use super::batch::{Batch, Statuses};
use super::columns::Columns;
use super::path;
use super::statements::Statements;
use fhir_bulk_pg::access::Access;
use fhir_bulk_pg::catalog::Table;
use fhir_bulk_pg::insert::{HeapInsert, Space};
use fhir_bulk_pg::update::{HeapUpdate, Place, Snapshot};
use fhir_bulk_pg::{session, subtransaction};

/// How often a batch is looked through for known ids and inserted, when others insert them meanwhile.
const ATTEMPTS: usize = 2;

/// Writes batches into one table.
pub(super) struct Direct {
    insert: HeapInsert,
    known: KnownRows,
    statements: Statements,
    /// Look for known ids before inserting; else find out by inserting.
    look_first: bool,
}

impl Direct {
    /// Makes ready; the caller checks the right to insert. `Err` with what was given when the index on `id` is being
    /// replaced at this moment.
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

    /// Writes a batch. All of it is seen by the statements after it.
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
        // Where they stand is asked again once they are locked.
        statements.upsert_keeping(batch, rows.into_iter().map(|(row, _)| row).collect(), |locked| {
            let snapshot = Snapshot::take();
            let (places, mut left) = known.find(insert, &snapshot, batch, locked);
            left.extend(known.replace(insert, &snapshot, batch, &places));
            snapshot.release();
            (locked.len() - left.len()) as u64 + statements.update(batch, &left)
        });
    }

    /// Ends the writing; what is needed after an error, the transaction's end does.
    pub fn close(self) {
        self.known.update.close();
        self.insert.close();
    }
}

/// Inserts rows, each with an id of its own, in the order of their ids. Whether it is done: an id that is known undoes
/// it all.
fn insert_new(insert: &mut HeapInsert, batch: &Batch, rows: &[usize]) -> bool {
    if rows.is_empty() {
        return true;
    }
    // Rows stand in the table as the source had them, whatever the order of their ids.
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

/// The rows that the table has.
struct KnownRows {
    access: Access,
    columns: Columns,
    update: HeapUpdate,
    /// Known since the right to replace rows was checked: when there was the first to be replaced.
    statuses: Option<Statuses>,
}

impl KnownRows {
    /// Those of these rows that the table has, and the others, both in their order.
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

    /// Replaces rows; the answer are those that another session has changed meanwhile.
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
