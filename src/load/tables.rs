//! The resource tables that a load writes: opens them, and creates those that do not exist.

use crate::settings;
use crate::store::{Known, ResourceTable, ResourceType, Stamp, Stored, Writer, unknown};
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use std::collections::BTreeMap;

/// The tables of a batch. Each is opened, and created if it does not exist, at its first line.
pub struct Tables {
    /// Open writers by table name, each with the type as its lines spell it.
    writers: BTreeMap<String, (String, Writer)>,
    /// Stored lines by type. The lines of an open writer are counted when it finishes.
    counts: BTreeMap<String, u64>,
    /// How many of them the tables had as they are.
    unchanged: u64,
    stamp: Stamp,
    rule: Known,
    /// Whether rows go straight into shards of this server.
    beside_shards: bool,
    /// The only table that lines may go to, if there is one.
    only: Option<ResourceTable>,
    /// How many tables the load has created, in this batch and earlier ones, for types that only lines name.
    created: usize,
    created_before: usize,
    /// Whether a new table may get its keys after its rows. Not once a table with triggers is open: a trigger may query any
    /// table by key.
    keys_may_wait: bool,
    /// The type of the last line and its table: the next line usually has the same.
    last: Option<(String, String)>,
}

impl Tables {
    /// The tables of a batch. Earlier batches of the load have created `created` tables.
    pub fn new(stamp: Stamp, rule: Known, created: usize, only: Option<ResourceTable>) -> Tables {
        let (writers, counts) = (BTreeMap::new(), BTreeMap::new());
        Tables {
            writers,
            counts,
            unchanged: 0,
            stamp,
            rule,
            beside_shards: false,
            only,
            created,
            created_before: created,
            // Only a key tells which ids are known.
            keys_may_wait: rule != Known::Refuse,
            last: None,
        }
    }

    /// Has rows go straight into shards of this server: see [`Writer::beside_shards`].
    pub fn beside_shards(self) -> Tables {
        Tables { beside_shards: true, ..self }
    }

    /// How many tables the load has created, in this batch and earlier ones.
    pub fn created(&self) -> usize {
        self.created
    }

    /// Whether this batch has created a table. No other transaction can create the same until this one commits.
    pub fn has_created(&self) -> bool {
        self.created > self.created_before
    }

    /// The writer for a type that a line names. `place` makes the DETAIL that says which line.
    ///
    /// # Errors
    /// The errors of [`Tables::open`], with `place` as DETAIL.
    pub fn of_type(&mut self, resource_type: &str, place: impl Fn() -> String) -> Result<&mut Writer> {
        if self.last.as_ref().is_none_or(|(spelled, _)| spelled != resource_type) {
            let table = resource_type.to_ascii_lowercase();
            if self.writers.get(&table).is_none_or(|(spelled, _)| spelled != resource_type) {
                let opened = ResourceType::new(resource_type).and_then(|name| self.open(&name, false));
                opened.map_err(|error| error.detail_if_none(place()))?;
            }
            self.last = Some((resource_type.to_owned(), table));
        }
        let (_, table) = self.last.as_ref().expect("set above");
        Ok(&mut self.writers.get_mut(table).expect("opened above").1)
    }

    /// Whether the writer of the only type of a load takes rows while its statement runs.
    pub fn streams(&self, resource_type: &ResourceType) -> bool {
        let only = self.writers.values().next();
        only.is_some_and(|(spelled, writer)| writer.streams() && spelled == resource_type.as_str())
    }

    /// That writer, if it does.
    pub fn streaming(&mut self, resource_type: &ResourceType) -> Option<&mut Writer> {
        if !self.streams(resource_type) {
            return None;
        }
        self.writers.values_mut().next().map(|(_, writer)| writer)
    }

    /// Opens the table of a type. The limit on new tables does not count a type that the caller asked for.
    ///
    /// # Errors
    /// 54000 beyond `fhir_bulk.max_new_tables`; the errors of [`Writer::open`].
    pub fn open(&mut self, resource_type: &ResourceType, asked_for: bool) -> Result<()> {
        let name = resource_type.as_str().to_ascii_lowercase();
        if let Some(only) = self.only.as_ref().filter(|_| !asked_for) {
            self.check_fits(resource_type, only)?;
        }
        // The type is spelled another way for the same table: write the rows so far first.
        if let Some((spelled, writer)) = self.writers.remove(&name) {
            self.count(spelled, writer.finish());
        }
        let found = match &self.only {
            Some(only) => Some(only.clone()),
            None => ResourceTable::find_to_write(resource_type)?,
        };
        let (table, keys) = match found {
            Some(table) => (table, None),
            None => {
                if !asked_for {
                    self.count_new(resource_type)?;
                }
                let keys = ResourceTable::make_for_rows(resource_type, self.keys_may_wait)?;
                let made = ResourceTable::find_to_write(resource_type)?;
                (made.ok_or_else(|| unknown(resource_type.as_str()))?, keys)
            }
        };
        let mut writer = Writer::open(&table, resource_type, self.stamp, self.rule, keys)?;
        if self.beside_shards {
            writer = writer.beside_shards(&table)?;
        }
        if self.keys_may_wait && writer.runs_others_code() {
            self.keys_may_wait = false;
            let lacking = self.writers.extract_if(.., |_, (_, writer)| writer.lacks_keys());
            for (spelled, writer) in lacking.map(|(_, opened)| opened).collect::<Vec<_>>() {
                self.count(spelled, writer.finish());
            }
        }
        self.writers.insert(name, (resource_type.as_str().to_owned(), writer));
        Ok(())
    }

    /// Of a table that is not known to have a type, the first line tells it, if that is how the table is called.
    fn check_fits(&self, resource_type: &ResourceType, only: &ResourceTable) -> Result<()> {
        let given = resource_type.as_str();
        if self.writers.is_empty() && given.eq_ignore_ascii_case(&only.name()) {
            return Ok(());
        }
        let is_of = match self.writers.values().next() {
            Some((spelled, _)) => format!("has resources of type \"{spelled}\""),
            None => "is not the table of that type".to_owned(),
        };
        Err(Error::invalid_argument(format!(
            "a resource of type \"{given}\" for table {}, which {is_of}",
            only.sql_name
        ))
        .hint("COPY bulk_resource FROM takes resources of any type to their tables."))
    }

    fn count(&mut self, resource_type: String, stored: Stored) {
        *self.counts.entry(resource_type).or_default() += stored.lines;
        self.unchanged += stored.unchanged;
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

    /// Writes the rows that are still buffered. Returns how many lines of each type are stored, and how many of them the
    /// tables had as they are.
    pub fn finish(mut self) -> (BTreeMap<String, u64>, u64) {
        for (resource_type, writer) in std::mem::take(&mut self.writers).into_values() {
            self.count(resource_type, writer.finish());
        }
        (self.counts, self.unchanged)
    }
}
