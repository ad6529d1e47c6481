//! The tables that the lines of a load go to.

use crate::error::{Error, Result};
use crate::settings;
use crate::store::{ResourceTable, ResourceType, Stamp, TableWriter, unknown};
use pgrx::PgSqlErrorCode;
use std::collections::BTreeMap;

/// The tables of a load, each opened, and made if need be, at its first line.
pub struct Tables {
    writers: BTreeMap<String, TableWriter>,
    stamp: Stamp,
    keep_history: bool,
    /// How many tables were made for lines that named their type, those of earlier batches too.
    created: usize,
    created_before: usize,
    /// The type of the last line; most lines have the same.
    last: Option<String>,
}

impl Tables {
    /// Those of a batch, before which `created` tables were made.
    pub fn new(stamp: Stamp, keep_history: bool, created: usize) -> Tables {
        Tables { writers: BTreeMap::new(), stamp, keep_history, created, created_before: created, last: None }
    }

    /// How many tables were made, those of earlier batches too.
    pub fn created(&self) -> usize {
        self.created
    }

    /// Whether this batch has made a table, which nobody else can make until it commits.
    pub fn has_created(&self) -> bool {
        self.created > self.created_before
    }

    /// The writer of a type that a line names; `place` says where it stands.
    ///
    /// # Errors
    /// Those of [`Tables::open`], with the place.
    pub fn of_type(&mut self, resource_type: &str, place: impl Fn() -> String) -> Result<&mut TableWriter> {
        if self.last.as_deref() != Some(resource_type) {
            if !self.writers.contains_key(resource_type) {
                let opened = ResourceType::new(resource_type).and_then(|name| self.open(&name, false));
                opened.map_err(|error| error.detail_if_none(place()))?;
            }
            self.last = Some(resource_type.to_owned());
        }
        Ok(self.writers.get_mut(resource_type).expect("opened above"))
    }

    /// Opens the table of a type. One that the caller asked for may always be made.
    ///
    /// # Errors
    /// 54000 beyond `fhir_bulk.max_new_tables`; those of [`TableWriter::open`].
    pub fn open(&mut self, resource_type: &ResourceType, asked_for: bool) -> Result<()> {
        let (table, keys) = match ResourceTable::find_to_write(resource_type)? {
            Some(table) => (table, None),
            None => {
                if !asked_for {
                    self.count_new(resource_type)?;
                }
                let keys = ResourceTable::make_for_rows(resource_type)?;
                let made = ResourceTable::find_to_write(resource_type)?;
                (made.ok_or_else(|| unknown(resource_type.as_str()))?, keys)
            }
        };
        let writer = TableWriter::open(&table, resource_type, self.stamp, self.keep_history, keys)?;
        self.writers.insert(resource_type.as_str().to_owned(), writer);
        Ok(())
    }

    fn count_new(&mut self, resource_type: &ResourceType) -> Result<()> {
        let limit = settings::max_new_tables();
        if self.created >= limit {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "the source has more than {limit} types without a table, such as \"{}\"",
                    resource_type.as_str()
                ),
            )
            .hint("Raise fhir_bulk.max_new_tables, or correct resourceType in the source."));
        }
        self.created += 1;
        Ok(())
    }

    /// Writes what is left; how many lines of each type are stored.
    pub fn finish(self) -> BTreeMap<String, u64> {
        self.writers.into_iter().map(|(name, writer)| (name, writer.finish())).collect()
    }
}
