//! The shards of a distributed table that Citus has placed on this server: they are tables, with the rights, the policies and
//! the indexes of the whole, and the rows whose ids have certain hashes.
//!
//! Whoever reads or writes them straight must see that they are still what Citus reads and writes. A move of a shard ends
//! with a lock that every writer of Citus's takes, too; after it the shard that was left behind is nobody's.

use super::ResourceTable;
use super::table::schema_oid;
use super::write::{Path, path_into};
use crate::citus;
use crate::settings;
use fhir_bulk_codec::share::{self, Share};
use fhir_bulk_pg::catalog;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::guc;
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// A shard on this server.
#[derive(Clone)]
pub struct Shard {
    pub table: ResourceTable,
    /// The shard of the history table with the same ids.
    pub history: Option<ResourceTable>,
    /// Which ids it has.
    pub share: Share,
    /// Its number, and that of its history.
    ids: (i64, Option<i64>),
}

/// The shards of `$1` here that nobody else has a copy of, with the hashes that they have, and those of the history `$2` that
/// are here, too. Hashes are those of `codec::share` if ids are texts that are equal only if they have the same bytes.
const HERE: &CStr = c"SELECT concat_ws(' ', s.shardid, s.shardminvalue, s.shardmaxvalue, h.shardid) \
    FROM pg_dist_partition t JOIN pg_dist_shard s ON s.logicalrelid = t.logicalrelid \
    JOIN pg_attribute a ON a.attrelid = t.logicalrelid AND a.attname = column_to_column_name(t.logicalrelid, t.partkey) \
    LEFT JOIN pg_collation c ON c.oid = a.attcollation \
    LEFT JOIN pg_dist_partition ht ON ht.logicalrelid = $2 AND ht.colocationid = t.colocationid AND ht.partmethod = 'h' \
    LEFT JOIN pg_dist_shard h ON h.logicalrelid = ht.logicalrelid \
        AND h.shardminvalue = s.shardminvalue AND h.shardmaxvalue = s.shardmaxvalue \
    WHERE t.logicalrelid = $1 AND t.partmethod = 'h' AND a.attname = 'id' AND a.atttypid IN ('text'::regtype, 'varchar'::regtype) \
    AND COALESCE(c.collisdeterministic, true) AND s.shardstorage = 't' AND hashtext($3) = $4 \
    AND (SELECT count(*) = 1 AND bool_and(p.shardstate = 1 AND p.groupid = (SELECT l.groupid FROM pg_dist_local_group l)) \
        FROM pg_dist_placement p WHERE p.shardid = s.shardid) \
    AND ($2 IS NULL OR h.shardid IS NOT NULL) \
    ORDER BY s.shardid";

/// A text whose hash tells how PostgreSQL hashes.
const PROBE: &str = "a text of more than twelve bytes";

impl Shard {
    /// The shards of a table, and with each the one of its history if that is given. None without Citus, or of a table that
    /// Citus does not distribute by `id`.
    ///
    /// # Errors
    /// 3F000.
    pub fn all_here(table: &ResourceTable, history: Option<&ResourceTable>) -> Result<Vec<Shard>> {
        if citus::distribution_column(table.oid).is_none_or(|column| column != "id") {
            return Ok(Vec::new());
        }
        let history_oid = history.map_or(pg_sys::InvalidOid, |history| history.oid);
        let history_or_null = if history.is_some() { Parameter::oid(history_oid) } else { Parameter::no_oid() };
        let mut found = Vec::new();
        // Should PostgreSQL ever hash otherwise, no row goes into a wrong shard.
        let known = [Parameter::string(PROBE), Parameter::int4(share::hash(PROBE.as_bytes()))];
        let parameters: Vec<_> = [Parameter::oid(table.oid), history_or_null].into_iter().chain(known).collect();
        for line in spi::catalog_texts(HERE, &parameters) {
            let numbers: Vec<i64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
            let [id, first, last, ..] = numbers[..] else { continue };
            let (Ok(first), Ok(last)) = (i32::try_from(first), i32::try_from(last)) else { continue };
            let of_history = numbers.get(3).copied();
            let shard_of_history = match (history, of_history) {
                (Some(history), Some(id)) => relation_of(history, id)?,
                _ => None,
            };
            if history.is_some() && shard_of_history.is_none() {
                continue;
            }
            if let Some(table) = relation_of(table, id)? {
                let share = Share::of(vec![(first, last)]);
                found.push(Shard { table, history: shard_of_history, share, ids: (id, of_history) });
            }
        }
        Ok(found)
    }

    /// As [`Shard::all_here`], for writing: until the transaction ends none of them is moved away or split.
    ///
    /// # Errors
    /// 3F000.
    pub fn lock_all_here(table: &ResourceTable, history: Option<&ResourceTable>) -> Result<Vec<Shard>> {
        let seen = Shard::all_here(table, history)?;
        if seen.is_empty() {
            return Ok(seen);
        }
        // As every statement of Citus's that writes shards does; by SQL only the tables' owner may.
        let numbers = seen.iter().flat_map(|shard| [Some(shard.ids.0), shard.ids.1]).flatten();
        let numbers = Parameter::int8s(numbers.collect::<Vec<_>>().into_iter());
        session::as_bootstrap_superuser(|| {
            spi::texts(c"SELECT lock_shard_metadata(5, $1)", &[numbers]);
        });
        let left = Shard::all_here(table, history)?;
        // One that has come meanwhile is not locked.
        Ok(left.into_iter().filter(|shard| seen.iter().any(|known| known.ids == shard.ids)).collect())
    }

    /// Locks a shard of a table for reading, until the transaction ends, if there is a relation of its name. Takes no snapshot.
    ///
    /// # Errors
    /// 42809 if it is no shard of the table.
    pub fn lock_to_read(table: &ResourceTable, shard: i64) -> Result<Option<ResourceTable>> {
        catalog::lock_for_select(&shard_name(table, shard), table.schema()).map(ResourceTable::at).transpose()
    }

    /// Its number.
    pub fn id(&self) -> i64 {
        self.ids.0
    }
}

/// Whether Citus would carry the rows of a load by the current role to the shards of a table, and do nothing else with them:
/// it distributes the table by `id`, and no policy or trigger has its say.
///
/// # Errors
/// As for [`path_into`].
pub fn is_sharded(table: &ResourceTable) -> Result<bool> {
    Ok(citus::distribution_column(table.oid).is_some() && path_into(table)?.0 == Path::Shards)
}

/// A table of resources in `fhir_bulk.data_schema` that Citus distributes by `id`, if it distributes all that are there.
///
/// # Errors
/// 3F000.
pub fn distributed_in_schema() -> Result<Option<ResourceTable>> {
    let schema = schema_oid(&settings::data_schema()?)?;
    let query = c"SELECT COALESCE(bool_and(p.partmethod = 'h' AND column_to_column_name(p.logicalrelid, p.partkey) = 'id'), false) \
            || ' ' || min(c.oid::int8) \
        FROM pg_class c LEFT JOIN pg_dist_partition p ON p.logicalrelid = c.oid \
        WHERE c.relnamespace = $1 AND c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND 5 = (SELECT count(*) FROM pg_attribute a \
            WHERE a.attrelid = c.oid AND a.attname IN ('id', 'txid', 'resource_type', 'status', 'resource') AND NOT a.attisdropped)";
    let found = spi::catalog_texts(query, &[Parameter::oid(schema)]);
    let oid = found.first().and_then(|found| found.strip_prefix("true ")?.parse::<u32>().ok());
    oid.map(|oid| ResourceTable::at(oid.into())).transpose()
}

/// Until the transaction ends, shards are tables like others, in catalogues and in statements: Citus hides them from the
/// first, and has only its own connections write them.
pub fn show_shards() {
    for (name, value) in
        [(c"citus.override_table_visibility", c"off"), (c"citus.enable_manual_changes_to_shards", c"on")]
    {
        if guc::get(name).is_some() {
            guc::set_local(name, value);
        }
    }
}

fn shard_name(table: &ResourceTable, shard: i64) -> CString {
    CString::new(format!("{}_{shard}", table.name())).expect("no NUL in a name")
}

/// The table that is a shard: its name ends with the shard's number.
fn relation_of(table: &ResourceTable, shard: i64) -> Result<Option<ResourceTable>> {
    catalog::relation(&shard_name(table, shard), schema_oid(table.schema())?).map(ResourceTable::at).transpose()
}
