//! Writes the resources of one type, those whose shard Citus has on this server straight into it: Citus would carry each
//! row to its shard as text, which is then parsed once more.

use super::placed::{Shard, show_shards};
use super::write::{Known, Next, Path, Stamp, Stored, TableWriter, path_into};
use super::{ResourceTable, ResourceType};
use crate::store::keys::Keys;
use fhir_bulk_codec::share::hash;
use fhir_bulk_pg::error::{Result, or_raise};
use std::collections::TryReserveError;

/// Writes the resources of one type.
pub struct Writer {
    whole: TableWriter,
    here: Vec<Here>,
    resource_type: ResourceType,
    stamp: Stamp,
    rule: Known,
}

/// A shard on this server.
struct Here {
    shard: Shard,
    writer: Option<TableWriter>,
}

impl Writer {
    /// Opens a table, as [`TableWriter::open`] does.
    ///
    /// # Errors
    /// As for [`TableWriter::open`].
    pub fn open(
        table: &ResourceTable,
        resource_type: &ResourceType,
        stamp: Stamp,
        rule: Known,
        keys: Option<Keys>,
    ) -> Result<Writer> {
        let whole = TableWriter::open(table, resource_type, stamp, rule, keys)?;
        Ok(Writer { whole, here: Vec::new(), resource_type: resource_type.clone(), stamp, rule })
    }

    /// Has it write the shards that are here itself, if Citus would do nothing else with the rows than store them. The
    /// transaction must have nothing else to do with the table: other connections, which Citus may write it by, and this one
    /// would wait for each other.
    ///
    /// # Errors
    /// 3F000; 42P01 without a history table.
    pub fn beside_shards(mut self, table: &ResourceTable) -> Result<Writer> {
        if path_into(table)?.0 == Path::Shards {
            show_shards();
            let history = if self.rule.keeps_history() { Some(table.history()?) } else { None };
            let shards = Shard::lock_all_here(table, history.as_ref())?;
            // Triggers of their own, foreign keys and other storage are Citus's to deal with. All shards are alike; one that is
            // not is written as any table of its kind.
            let is_plain = shards.first().map(|shard| path_into(&shard.table)).transpose()?;
            if is_plain.is_some_and(|(path, _)| path == Path::Direct) {
                self.here = shards.into_iter().map(|shard| Here { shard, writer: None }).collect();
            }
        }
        Ok(self)
    }

    /// Adds one resource: see [`TableWriter::push`].
    ///
    /// # Errors
    /// Out of memory. Errors of writing are raised.
    pub fn push(
        &mut self,
        id: &str,
        resource: &[u8],
        created_at: Option<i64>,
    ) -> std::result::Result<(), TryReserveError> {
        let Writer { whole, here, resource_type, stamp, rule } = self;
        if here.is_empty() {
            return whole.push(id, resource, created_at);
        }
        let hash = hash(id.as_bytes());
        match here.iter_mut().find(|here| here.shard.share.has_hash(hash)) {
            None => whole.push(id, resource, created_at),
            Some(Here { shard, writer }) => {
                let open = || {
                    or_raise(TableWriter::open_shard(
                        &shard.table,
                        shard.history.as_ref(),
                        resource_type,
                        *stamp,
                        *rule,
                    ))
                };
                writer.get_or_insert_with(open).push(id, resource, created_at)
            }
        }
    }

    /// See [`TableWriter::runs_others_code`].
    pub fn runs_others_code(&self) -> bool {
        self.whole.runs_others_code()
    }

    /// See [`TableWriter::lacks_keys`].
    pub fn lacks_keys(&self) -> bool {
        self.whole.lacks_keys()
    }

    /// See [`TableWriter::streams`].
    pub fn streams(&self) -> bool {
        self.here.is_empty() && self.whole.streams()
    }

    /// See [`TableWriter::stream`].
    ///
    /// # Errors
    /// Those of `next`. Errors of writing are raised.
    pub fn stream(&mut self, next: &mut Next<'_>) -> Result<()> {
        self.whole.stream(next)
    }

    /// Writes what is left and closes the tables.
    pub fn finish(self) -> Stored {
        let mut stored = self.whole.finish();
        // Whether the ids of a source are known is mostly the same in all shards.
        let mut are_new = false;
        for mut writer in self.here.into_iter().filter_map(|here| here.writer) {
            if are_new {
                writer.expect_new();
            }
            are_new = writer.settle();
            let Stored { lines, unchanged } = writer.finish();
            stored.lines += lines;
            stored.unchanged += unchanged;
        }
        stored
    }
}
