//! The SQL statements that insert and replace rows with the caller's rights: triggers, policies and privileges apply.
//!
//! Their parameters are those of [`super::batch::Batch::parameters`]. If this load itself wrote a row before (a repeated
//! id), the row keeps its status and leaves no history; if the row is new, it takes the last line's creation time. Other
//! rows keep their creation time. A load recognises its own rows by number and time: if the sequence was set back, old rows
//! may have the same number.

use super::batch::Batch;
use crate::store::ResourceTable;
use crate::store::statement::sql;
use fhir_bulk_pg::error::{Error, or_raise};
use fhir_bulk_pg::memory::with_scratch;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::PgSqlErrorCode;
use std::collections::HashSet;
use std::ffi::{CStr, CString};

/// How often to look and insert again if other sessions insert rows in between. After that a statement waits for them.
const ROUNDS: usize = 3;

/// The table that statements write, as `t`.
pub(super) struct Target {
    /// `schema.table`, quoted.
    table: String,
    has_cts: bool,
    /// See [`ResourceTable::status`].
    status: String,
    /// The conflict target: see [`super::path::IdIndex`].
    conflict: String,
}

impl Target {
    pub fn new(table: &ResourceTable, has_cts: bool, conflict: Option<String>) -> Target {
        // If there is none, no statement with ON CONFLICT runs.
        let conflict = conflict.unwrap_or_else(|| "(id)".to_owned());
        Target { table: table.sql_name.clone(), has_cts, status: table.status("t."), conflict }
    }
}

/// The statements for one table.
pub(super) struct Statements {
    known: CString,
    lock: CString,
    keep: Option<Box<Keep>>,
    update: CString,
    insert: CString,
    insert_if_new: CString,
    upsert: CString,
}

/// The statements that keep replaced versions.
struct Keep {
    keep: CString,
    /// Finds a version that was not kept, because the history has another one with its number.
    lost: Option<CString>,
}

impl Keep {
    /// `any` selects the rows to keep.
    fn new(history: &History, any: &str) -> Keep {
        let History { sql_name, columns, can_compare, has_deferrable, may_refuse } = history;
        let own = is_own(("$2", "$3"));
        let same = format!(
            "SELECT FROM {sql_name} AS h WHERE h.id OPERATOR(pg_catalog.=) t.id AND h.txid OPERATOR(pg_catalog.=) t.txid"
        );
        // ON CONFLICT does not work with deferrable keys.
        let unless_there =
            if *has_deferrable { format!("AND NOT EXISTS ({same})") } else { "ON CONFLICT DO NOTHING".to_owned() };
        // A version that a trigger or rule kept out is not an error.
        let unless_refused = if *may_refuse { format!("AND EXISTS ({same})") } else { String::new() };
        Keep {
            keep: sql(format!(
                "INSERT INTO {sql_name} ({columns}) SELECT {columns} FROM {any} AND NOT {own} {unless_there}"
            )),
            lost: can_compare.then(|| {
                sql(format!(
                    "SELECT pg_catalog.concat(t.txid, ' of ', t.id) FROM {any} AND NOT {own} AND NOT EXISTS \
                     ({same} AND COALESCE(h.ts OPERATOR(pg_catalog.=) t.ts, h.ts IS NULL AND t.ts IS NULL)) \
                     {unless_refused} LIMIT 1"
                ))
            }),
        }
    }
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
        let insert = format!(
            "INSERT INTO {table} AS t (id, txid, ts, resource_type, status, resource{cts}) \
             SELECT r.id, $3, $4, $5, 'created', r.resource{value} FROM {rows}"
        );
        let any = format!("{table} AS t WHERE t.id OPERATOR(pg_catalog.=) ANY ($1)");
        Statements {
            known: sql(format!("SELECT t.id FROM {any}")),
            lock: sql(match lock {
                Lock::Select => format!("SELECT t.id FROM {any} ORDER BY t.id FOR UPDATE"),
                Lock::Update => {
                    format!(
                        "UPDATE {table} AS t SET txid = t.txid WHERE t.id OPERATOR(pg_catalog.=) ANY ($1) RETURNING t.id"
                    )
                }
            }),
            keep: history.map(|history| Box::new(Keep::new(history, &any))),
            update: sql(format!(
                "UPDATE {table} AS t SET txid = $3, ts = $4, resource_type = $5, resource = r.resource, {}{set_update} \
                 FROM {rows} WHERE t.id OPERATOR(pg_catalog.=) r.id AND t.id OPERATOR(pg_catalog.=) ANY ($1)",
                set_status(PARAMETERS, status)
            )),
            insert_if_new: sql(format!("{insert} ON CONFLICT {conflict} DO NOTHING RETURNING id")),
            upsert: sql(format!("{insert} {}{set_insert}", on_conflict(target))),
            insert: sql(insert),
        }
    }

    /// The ids of these rows that the table has.
    fn known(&self, batch: &Batch, rows: &[usize]) -> HashSet<String> {
        with_scratch(|| spi::texts(&self.known, &[batch.ids(rows)])).into_iter().collect()
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
            self.run(&self.upsert, batch, &rows)
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
        stored + self.run(&self.upsert, batch, &rest)
    }

    /// Updates rows that the table has. Returns how many.
    pub fn update(&self, batch: &Batch, rows: &[usize]) -> u64 {
        self.run(&self.update, batch, rows)
    }

    /// Updates the known rows and inserts the others, without ON CONFLICT. Returns how many rows the statements wrote.
    pub fn update_insert(&self, batch: &Batch, rows: Vec<usize>) -> u64 {
        let found = self.known(batch, &rows);
        let (known, new) = rows.into_iter().partition::<Vec<_>, _>(|row| found.contains(batch.id(*row)));
        self.keep(batch, &known);
        self.update(batch, &known) + self.run(&self.insert, batch, &new)
    }

    fn keep(&self, batch: &Batch, known: &[usize]) {
        if let Some(Keep { keep, lost }) = self.keep.as_deref()
            && !known.is_empty()
        {
            let parameters = || {
                let [txid, ts, _] = batch.stamp_parameters();
                [batch.ids(known), txid, ts]
            };
            let kept = with_scratch(|| spi::execute(keep, &parameters()));
            if kept < known.len() as u64
                && let Some(lost) = lost
                && let Some(version) = with_scratch(|| spi::texts(lost, &parameters())).pop()
            {
                or_raise::<()>(Err(history_has_another(&version)));
            }
        }
    }

    fn run(&self, statement: &CString, batch: &Batch, rows: &[usize]) -> u64 {
        if rows.is_empty() { 0 } else { with_scratch(|| spi::execute(statement, &batch.parameters(rows))) }
    }
}

fn history_has_another(version: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        format!("version {version} cannot be kept: the history table already has another version with this number"),
    )
    .hint("transaction_id_seq seems to be behind the rows: SELECT setval('transaction_id_seq', ...) beyond the highest txid.")
}

/// How rows are locked while they are kept and replaced.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    /// `SELECT … FOR UPDATE`.
    Select,
    /// An `UPDATE` that changes nothing: Citus does not support `FOR UPDATE` of rows on several servers.
    Update,
}

/// The history table, in which replaced versions are kept.
pub(super) struct History {
    sql_name: String,
    /// The columns that both tables have.
    columns: String,
    /// Whether the caller sees all its rows, and versions have a time.
    can_compare: bool,
    /// Whether it has a deferrable key.
    has_deferrable: bool,
    /// Whether triggers or rules may keep rows out of it.
    may_refuse: bool,
}

impl History {
    /// The history of a resource table.
    pub fn of(table: &ResourceTable, history: &ResourceTable) -> History {
        let both = [Parameter::oid(table.oid), Parameter::oid(history.oid)];
        let columns = spi::catalog_texts(COLUMNS_OF_BOTH, &both).join(", ");
        let can_compare = table.has_column(c"ts") && history.has_column(c"ts") && history.is_open();
        let has = |query| !spi::catalog_texts(query, &[Parameter::oid(history.oid)]).is_empty();
        let (has_deferrable, may_refuse) = (has(DEFERRABLE_KEYS), has(TRIGGERS_OR_RULES));
        History { sql_name: history.sql_name.clone(), columns, can_compare, has_deferrable, may_refuse }
    }
}

/// The columns that both tables have and that can be written, quoted: those of a resource, and others of the same type.
const COLUMNS_OF_BOTH: &CStr = c"SELECT quote_ident(t.attname) FROM pg_attribute t \
    JOIN pg_attribute h ON h.attname = t.attname \
    WHERE t.attrelid = $1 AND h.attrelid = $2 AND t.attnum > 0 AND h.attnum > 0 \
    AND NOT t.attisdropped AND NOT h.attisdropped AND h.attgenerated = '' AND h.attidentity <> 'a' \
    AND (t.atttypid = h.atttypid \
        OR t.attname IN ('id', 'txid', 'ts', 'resource_type', 'status', 'resource', 'cts')) \
    ORDER BY t.attnum";
/// Whether a table has a deferrable key.
const DEFERRABLE_KEYS: &CStr = c"SELECT 'yes' FROM pg_index WHERE indrelid = $1 AND NOT indimmediate LIMIT 1";
/// Whether triggers or rules may keep rows out of a table or a partition.
const TRIGGERS_OR_RULES: &CStr = c"SELECT 'yes' FROM pg_class \
    WHERE (relhastriggers OR relhasrules) \
    AND (oid = $1 OR oid IN (SELECT p.relid FROM pg_partition_tree($1) p)) LIMIT 1";

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
