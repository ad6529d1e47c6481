//! The SQL statements that insert and replace rows with the caller's rights: triggers, policies and privileges apply.
//!
//! Their parameters are those of [`super::batch::Batch::parameters`]. If this load itself wrote a row before (a repeated
//! id), the row keeps its status and leaves no history; if the row is new, it takes the last line's creation time. Other
//! rows keep their creation time. A load recognises its own rows by number and time: if the sequence was set back, old rows
//! may have the same number.

use super::batch::Batch;
use super::history::{History, Keep};
use super::supplied;
use crate::store::ResourceTable;
use crate::store::statement::sql;
use fhir_bulk_pg::memory::with_scratch;
use fhir_bulk_pg::spi::{self, Parameter};
use std::collections::HashSet;
use std::ffi::CString;

/// How often to look and insert again if other sessions insert rows in between. After that a statement waits for them.
const ROUNDS: usize = 3;

/// The table that statements write, as `t`.
pub(super) struct Target {
    /// `schema.table`, quoted.
    table: String,
    has_cts: bool,
    /// See [`ResourceTable::status`].
    status: String,
    /// The conflict target: see [`super::path::Facts::conflict`].
    conflict: String,
}

impl Target {
    pub fn new(table: &ResourceTable, has_cts: bool, conflict: Option<String>) -> Target {
        // If there is none, no statement with ON CONFLICT runs.
        let conflict = conflict.unwrap_or_else(|| "(id)".to_owned());
        Target { table: table.sql_name.clone(), has_cts, status: table.status("t."), conflict }
    }

    /// As [`Statements::insert`], of the rows that the statement asks for while it runs. Its parameters are
    /// [`Batch::stamp_parameters`].
    pub fn insert_supplied(&self) -> CString {
        let Target { table, has_cts, .. } = self;
        // Behind OFFSET the row of each call is one value, of which columns are taken.
        let (cts, value) = if *has_cts { (", cts", ", (r.row).cts") } else { ("", "") };
        let supplied = supplied::function();
        sql(format!(
            "INSERT INTO {table} AS t (id, txid, ts, resource_type, status, resource{cts}) \
             SELECT (r.row).id, $1, $2, $3, 'created', (r.row).resource{value} \
             FROM (SELECT {supplied} AS row OFFSET 0) AS r"
        ))
    }
}

/// The statements for one table.
pub(super) struct Statements {
    known: CString,
    unchanged: CString,
    lock: CString,
    keep: Option<Box<Keep>>,
    update: CString,
    insert: CString,
    insert_if_new: CString,
    insert_others: CString,
    upsert: CString,
}

impl Statements {
    /// With `history`, replaced versions are kept in that table.
    pub fn new(target: &Target, history: Option<&History>, lock: Lock) -> Statements {
        let Target { table, has_cts, status, conflict } = target;
        let (cts, value, set_insert, set_update) = if *has_cts {
            (
                ", cts",
                ", coalesce(r.cts, $4)",
                set_cts(EXCLUDED, status, "excluded.cts"),
                set_cts(PARAMETERS, status, "coalesce(r.cts, $4)"),
            )
        } else {
            ("", "", String::new(), String::new())
        };
        // PostgreSQL unnests several arrays at once only under the bare name `unnest`, which search_path could replace.
        let rows =
            "ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($6)) AS r(id, resource, cts)";
        // In the list of a SELECT, rows go on one by one; those of a function in FROM are kept until it has ended. Behind
        // OFFSET the planner does not look at the arrays, which it would copy to count their elements.
        let insert = format!(
            "INSERT INTO {table} AS t (id, txid, ts, resource_type, status, resource{cts}) \
             SELECT r.id, $3, $4, $5, 'created', r.resource{value} FROM (SELECT pg_catalog.unnest(a.ids) AS id, \
             pg_catalog.unnest(a.resources) AS resource, pg_catalog.unnest(a.times) AS cts \
             FROM (SELECT $1 AS ids, $2 AS resources, $6 AS times OFFSET 0) AS a) AS r"
        );
        let any = format!("{table} AS t WHERE t.id OPERATOR(pg_catalog.=) ANY ($1)");
        Statements {
            known: sql(format!("SELECT t.id FROM {any}")),
            // Byte by byte: jsonb's = takes 1.0 and 1.00 for the same.
            unchanged: sql(format!(
                "SELECT t.id FROM {table} AS t, ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS r(id, resource) \
                 WHERE t.id OPERATOR(pg_catalog.=) r.id AND t.id OPERATOR(pg_catalog.=) ANY ($1) \
                 AND {status} OPERATOR(pg_catalog.<>) 'deleted' \
                 AND COALESCE(t.resource_type OPERATOR(pg_catalog.=) $3, true) \
                 AND pg_catalog.record_image_eq(ROW(t.resource), ROW(r.resource))"
            )),
            lock: sql(match lock {
                Lock::Select => format!("SELECT t.id FROM {any} ORDER BY t.id FOR UPDATE"),
                Lock::Update => {
                    format!(
                        "UPDATE {table} AS t SET txid = t.txid WHERE t.id OPERATOR(pg_catalog.=) ANY ($1) RETURNING t.id"
                    )
                }
            }),
            keep: history.map(|history| Box::new(Keep::new(history, &any, &is_own(("$2", "$3"))))),
            update: sql(format!(
                "UPDATE {table} AS t SET txid = $3, ts = $4, resource_type = $5, resource = r.resource, {}{set_update} \
                 FROM {rows} WHERE t.id OPERATOR(pg_catalog.=) r.id AND t.id OPERATOR(pg_catalog.=) ANY ($1)",
                set_status(PARAMETERS, status)
            )),
            insert_if_new: sql(format!("{insert} ON CONFLICT {conflict} DO NOTHING RETURNING id")),
            insert_others: sql(format!("{insert} ON CONFLICT {conflict} DO NOTHING")),
            upsert: sql(format!("{insert} {}{set_insert}", on_conflict(target))),
            insert: sql(insert),
        }
    }

    /// The ids of these rows that the table has.
    pub fn known(&self, batch: &Batch, rows: &[usize]) -> HashSet<String> {
        with_scratch(|| spi::texts(&self.known, &[batch.ids(rows)])).into_iter().collect()
    }

    /// These rows without those that the table has as they are, and how many these are.
    pub fn without_unchanged(&self, batch: &Batch, rows: Vec<usize>) -> (Vec<usize>, u64) {
        let same: HashSet<String> =
            with_scratch(|| spi::texts(&self.unchanged, &batch.resource_parameters(&rows))).into_iter().collect();
        let before = rows.len();
        let left: Vec<_> = rows.into_iter().filter(|row| !same.contains(batch.id(*row))).collect();
        let unchanged = (before - left.len()) as u64;
        (left, unchanged)
    }

    /// Whether replaced versions are kept.
    pub fn keep_history(&self) -> bool {
        self.keep.is_some()
    }

    /// Inserts or replaces rows with different ids. Returns how many of them are in the table then.
    pub fn upsert(&self, batch: &Batch, rows: Vec<usize>) -> u64 {
        if self.keep_history() {
            self.upsert_keeping(batch, rows, |known| self.update(batch, known))
        } else {
            run_insert(&self.upsert, batch, &rows)
        }
    }

    /// As [`Statements::upsert`], with history. `update` replaces rows that are locked and kept, and returns how many.
    pub fn upsert_keeping(&self, batch: &Batch, rows: Vec<usize>, mut update: impl FnMut(&[usize]) -> u64) -> u64 {
        let (mut rest, mut stored) = (rows, 0);
        // ON CONFLICT does not return the versions that it replaces. So rows are locked, kept and updated; the next round
        // finds rows that another session inserts in between.
        for _ in 0..ROUNDS {
            if rest.is_empty() {
                return stored;
            }
            let locked: HashSet<String> =
                with_scratch(|| spi::texts(&self.lock, &[batch.ids(&rest)])).into_iter().collect();
            let (known, new) = rest.into_iter().partition::<Vec<_>, _>(|row| locked.contains(batch.id(*row)));
            if !known.is_empty() {
                self.keep(batch, &known);
                stored += update(&known);
            }
            let inserted: HashSet<String> = if new.is_empty() {
                HashSet::new()
            } else {
                with_scratch(|| spi::texts(&self.insert_if_new, &batch.parameters(&new))).into_iter().collect()
            };
            stored += inserted.len() as u64;
            rest = new.into_iter().filter(|row| !inserted.contains(batch.id(*row))).collect();
        }
        stored + run_insert(&self.upsert, batch, &rest)
    }

    /// Inserts rows that the table does not have. Raises the errors of the table's keys if it has one of them.
    pub fn insert(&self, batch: &Batch, rows: &[usize]) -> u64 {
        run_insert(&self.insert, batch, rows)
    }

    /// As [`Statements::insert`], without the error: returns how many rows it inserted. Citus does not make a COPY of it, which
    /// tables with policies refuse.
    pub fn insert_others(&self, batch: &Batch, rows: &[usize]) -> u64 {
        run_insert(&self.insert_others, batch, rows)
    }

    /// Updates rows that the table has. Returns how many.
    pub fn update(&self, batch: &Batch, rows: &[usize]) -> u64 {
        let run = || spi::execute(&self.update, &batch.parameters(rows));
        if rows.is_empty() { 0 } else { with_scratch(run) }
    }

    /// Updates the known rows and inserts the others, without ON CONFLICT. Returns how many rows the statements wrote.
    pub fn update_insert(&self, batch: &Batch, rows: Vec<usize>) -> u64 {
        let found = self.known(batch, &rows);
        let (known, new) = rows.into_iter().partition::<Vec<_>, _>(|row| found.contains(batch.id(*row)));
        self.keep(batch, &known);
        self.update(batch, &known) + self.insert(batch, &new)
    }

    fn keep(&self, batch: &Batch, known: &[usize]) {
        if let Some(keep) = self.keep.as_deref()
            && !known.is_empty()
        {
            keep.run(batch, known);
        }
    }
}

fn run_insert(statement: &CString, batch: &Batch, rows: &[usize]) -> u64 {
    if rows.is_empty() { 0 } else { with_scratch(|| spi::execute_large(statement, &batch.parameters(rows))) }
}

/// How rows are locked while they are kept and replaced.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    /// `SELECT … FOR UPDATE`.
    Select,
    /// An `UPDATE` that changes nothing: Citus does not support `FOR UPDATE` of rows on several servers.
    Update,
}

/// The statements that move all rows of a temporary table with `id, resource, cts` into the resource table.
pub(super) struct StagedStatements {
    upsert: CString,
    /// Counts the ids; used if triggers may keep rows out.
    count: Option<CString>,
}

impl StagedStatements {
    pub fn new(target: &Target, stage: &str) -> StagedStatements {
        let Target { table, has_cts, status, .. } = target;
        let (cts, value, set) = if *has_cts {
            (", cts", ", r.cts", set_cts(EXCLUDED, status, "excluded.cts"))
        } else {
            ("", "", String::new())
        };
        StagedStatements {
            // The stage has the lines in their order: the last line of an id has the highest ctid.
            upsert: sql(format!(
                "INSERT INTO {table} AS t (id, txid, ts, resource_type, status, resource{cts}) \
                 SELECT r.id, $1, $2, $3, 'created', r.resource{value} FROM \
                 (SELECT DISTINCT ON (s.id) s.id, s.resource, s.cts FROM {stage} AS s ORDER BY s.id, s.ctid DESC) AS r \
                 {}{set}",
                on_conflict(target)
            )),
            count: None,
        }
    }

    /// Also counts the rows that triggers keep out.
    pub fn counting(self, stage: &str) -> StagedStatements {
        let count = sql(format!("SELECT pg_catalog.count(DISTINCT s.id) FROM {stage} AS s"));
        StagedStatements { count: Some(count), ..self }
    }

    /// Moves all rows. Returns how many rows triggers kept out of the table.
    pub fn run(&self, batch: &Batch) -> u64 {
        let parameters: [Parameter; 3] = batch.stamp_parameters();
        let moved = spi::execute(&self.upsert, &parameters);
        let counted = self.count.as_ref().and_then(|count| spi::texts(count, &[]).first()?.parse::<u64>().ok());
        counted.map_or(0, |ids| ids.saturating_sub(moved))
    }
}

/// It uses `excluded.ts`, not `now()`: the statement may run on other servers, which have their own clocks.
fn on_conflict(Target { conflict, status, .. }: &Target) -> String {
    format!(
        "ON CONFLICT {conflict} DO UPDATE SET txid = excluded.txid, ts = excluded.ts, \
         resource_type = excluded.resource_type, resource = excluded.resource, {}",
        set_status(EXCLUDED, status)
    )
}

/// The expressions for the load's number and time in a statement.
type Own = (&'static str, &'static str);
const EXCLUDED: Own = ("excluded.txid", "excluded.ts");
const PARAMETERS: Own = ("$3", "$4");

/// Whether this load wrote the row.
fn is_own((txid, ts): Own) -> String {
    format!("(t.txid OPERATOR(pg_catalog.=) {txid} AND t.ts IS NOT NULL AND t.ts OPERATOR(pg_catalog.=) {ts})")
}

fn set_status(own: Own, status: &str) -> String {
    format!(
        "status = CASE WHEN {} THEN t.status \
         WHEN {status} OPERATOR(pg_catalog.=) 'deleted' THEN 'recreated' ELSE 'updated' END",
        is_own(own)
    )
}

fn set_cts(own: Own, status: &str, cts: &str) -> String {
    format!(", cts = CASE WHEN {} AND {status} OPERATOR(pg_catalog.=) 'created' THEN {cts} ELSE t.cts END", is_own(own))
}
