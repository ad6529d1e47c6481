//! Keeps replaced versions in the history table, with the caller's rights.

use super::batch::Batch;
use crate::citus;
use crate::store::ResourceTable;
use crate::store::statement::sql;
use fhir_bulk_pg::error::{Error, or_raise};
use fhir_bulk_pg::memory::with_scratch;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::PgSqlErrorCode;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// The statements that keep replaced versions. Their parameters: `$1` ids, `$2` txid, `$3` ts of the load.
pub(super) struct Keep {
    keep: CString,
    /// Finds a version that was not kept, because the history has another one with its number.
    lost: Lost,
}

enum Lost {
    Unknown,
    /// The statement that finds it.
    Found(CString),
    /// Citus cannot join the two tables: the statements that read the versions of each, and whether one that the history
    /// does not have counts.
    Compared {
        versions: CString,
        kept: CString,
        may_refuse: bool,
    },
}

impl Keep {
    /// `any` selects the rows to keep, as `t`; `own` those of them that the load has written itself.
    pub fn new(history: &History, any: &str, own: &str) -> Keep {
        let History { sql_name, columns, can_compare, has_deferrable, may_refuse, is_apart } = history;
        let same = format!(
            "SELECT FROM {sql_name} AS h WHERE h.id OPERATOR(pg_catalog.=) t.id AND h.txid OPERATOR(pg_catalog.=) t.txid"
        );
        // ON CONFLICT does not work with deferrable keys.
        let unless_there =
            if *has_deferrable { format!("AND NOT EXISTS ({same})") } else { "ON CONFLICT DO NOTHING".to_owned() };
        // A version that a trigger or rule kept out is not an error.
        let unless_refused = if *may_refuse { format!("AND EXISTS ({same})") } else { String::new() };
        let lost = if !can_compare {
            Lost::Unknown
        } else if *is_apart {
            // Number and id, and after a character that no id has, the time.
            let version = "pg_catalog.concat(r.txid, ' of ', r.id, pg_catalog.chr(10), extract(epoch FROM r.ts))";
            Lost::Compared {
                versions: sql(format!(
                    "SELECT {version} FROM (SELECT t.txid, t.id, t.ts FROM {any} AND NOT {own}) AS r"
                )),
                kept: sql(format!("SELECT {version} FROM {sql_name} AS r WHERE r.id OPERATOR(pg_catalog.=) ANY ($1)")),
                may_refuse: *may_refuse,
            }
        } else {
            Lost::Found(sql(format!(
                "SELECT pg_catalog.concat(t.txid, ' of ', t.id) FROM {any} AND NOT {own} AND NOT EXISTS \
                 ({same} AND COALESCE(h.ts OPERATOR(pg_catalog.=) t.ts, h.ts IS NULL AND t.ts IS NULL)) \
                 {unless_refused} LIMIT 1"
            )))
        };
        let keep =
            format!("INSERT INTO {sql_name} ({columns}) SELECT {columns} FROM {any} AND NOT {own} {unless_there}");
        Keep { keep: sql(keep), lost }
    }

    /// Keeps the versions that these rows replace. Raises 23505 if the history has another version with the number of one.
    pub fn run(&self, batch: &Batch, known: &[usize]) {
        let parameters = || {
            let [txid, ts, _] = batch.stamp_parameters();
            [batch.ids(known), txid, ts]
        };
        let kept = with_scratch(|| spi::execute(&self.keep, &parameters()));
        if kept >= known.len() as u64 {
            return;
        }
        let lost = match &self.lost {
            Lost::Unknown => None,
            Lost::Found(find) => with_scratch(|| spi::texts(find, &parameters())).pop(),
            Lost::Compared { versions, kept, may_refuse } => {
                let versions = with_scratch(|| spi::texts(versions, &parameters()));
                let kept = with_scratch(|| spi::texts(kept, &[batch.ids(known)]));
                find_lost(&versions, &kept, *may_refuse)
            }
        };
        if let Some(version) = lost {
            or_raise::<()>(Err(history_has_another(&version)));
        }
    }
}

/// A version, `number of id`, that the history does not have with its time. Behind each version is a line with its time,
/// which is empty if it has none.
fn find_lost(versions: &[String], kept: &[String], may_refuse: bool) -> Option<String> {
    let parts = |line: &'_ String| line.rsplit_once('\n').map(|(version, at)| (version.to_owned(), at.to_owned()));
    let kept: HashMap<_, _> = kept.iter().filter_map(parts).collect();
    let is_lost = |(version, at): &(String, String)| kept.get(version).map_or(!may_refuse, |there| there != at);
    versions.iter().filter_map(parts).find(is_lost).map(|(version, _)| version)
}

fn history_has_another(version: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        format!("version {version} cannot be kept: the history table already has another version with this number"),
    )
    .hint("transaction_id_seq seems to be behind the rows: SELECT setval('transaction_id_seq', ...) beyond the highest txid.")
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
    /// Whether its rows are on other servers than those of the table.
    is_apart: bool,
}

impl History {
    /// The history of a resource table.
    pub fn of(table: &ResourceTable, history: &ResourceTable) -> History {
        let both = [Parameter::oid(table.oid), Parameter::oid(history.oid)];
        let columns = spi::catalog_texts(COLUMNS_OF_BOTH, &both).join(", ");
        let can_compare = table.has_column(c"ts") && history.has_column(c"ts") && history.is_open();
        let has = |query| !spi::catalog_texts(query, &[Parameter::oid(history.oid)]).is_empty();
        let (has_deferrable, may_refuse) = (has(DEFERRABLE_KEYS), has(TRIGGERS_OR_RULES));
        let is_apart = citus::are_apart(table.oid, history.oid);
        History { sql_name: history.sql_name.clone(), columns, can_compare, has_deferrable, may_refuse, is_apart }
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
