//! Collects the resources that are written to a table together.

use super::columns::Columns;
use fhir_bulk_pg::datum::{self, Value, Values, prefix};
use fhir_bulk_pg::find::Old;
use fhir_bulk_pg::spi::Parameter;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::{HashSet, TryReserveError};

/// A batch for pages is full when it has this many rows or bytes.
pub(super) const ROWS: usize = 4000;
pub(super) const BYTES: usize = 2 << 20;

/// What a batch of a shard's takes at once: what grows is copied each time.
const FIRST_SPARE_BYTES: usize = 256 << 10;
/// The most memory that is kept for batches to come, in a worker that writes shards.
const MOST_SPARE_BYTES: usize = 64 << 20;

thread_local! {
    /// Memory of batches that have been written.
    static SPARE: RefCell<Vec<(Values, Vec<Row>)>> = const { RefCell::new(Vec::new()) };
}

/// The values that all rows of a load share.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The load's number of `transaction_id_seq`.
    pub txid: i64,
    /// `now()`.
    pub ts: i64,
}

/// The rows of one type that are not written yet.
pub(super) struct Batch {
    stamp: Stamp,
    /// The values that all rows share, as datums.
    constants: Values,
    resource_type: Value,
    status_created: pg_sys::Datum,
    pub has_cts: bool,
    values: Values,
    rows: Vec<Row>,
}

#[derive(Clone, Copy)]
struct Row {
    id: Value,
    cts: Option<i64>,
    resource: Value,
}

impl Batch {
    pub fn new(stamp: Stamp, resource_type: &str, status_created: pg_sys::Datum, has_cts: bool) -> Batch {
        let mut constants = Values::default();
        let resource_type = push_text(&mut constants, resource_type);
        let (values, rows) = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        Batch { stamp, constants, resource_type, status_created, has_cts, values, rows }
    }

    /// # Errors
    /// Out of memory.
    pub fn push(&mut self, id: &str, resource: &[u8], created_at: Option<i64>) -> Result<(), TryReserveError> {
        let id = push_text(&mut self.values, id);
        let value = self.values.push::<TryReserveError>(|out| {
            out.try_reserve(resource.len())?;
            out.extend_from_slice(resource);
            Ok(())
        })?;
        self.rows.push(Row { id, cts: created_at, resource: value });
        Ok(())
    }

    /// Takes memory for the rows of a shard, if there is any: else it takes it later, bit by bit.
    pub fn take_room(&mut self) {
        if self.values.room() < FIRST_SPARE_BYTES {
            let _ = self.values.reserve(FIRST_SPARE_BYTES);
        }
    }

    /// Keeps its memory for the next ones. Those of the shards of Citus are many, and open for a transaction only: taking and
    /// giving back their memory each time costs as much as filling it.
    pub fn spare(mut self) {
        self.clear(2 * BYTES);
        SPARE.with_borrow_mut(|spare| {
            let bytes: usize = spare.iter().map(|(values, _)| values.room()).sum();
            if bytes + self.values.room() <= MOST_SPARE_BYTES {
                spare.push((self.values, self.rows));
            }
        });
    }

    /// What all rows share.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn bytes(&self) -> usize {
        self.values.size()
    }

    /// Whether its rows should be written, if they go into pages.
    pub fn is_full(&self) -> bool {
        self.len() >= ROWS || self.bytes() >= BYTES
    }

    /// Removes all rows, and frees the memory beyond `keep` bytes, which a huge resource may have used.
    pub fn clear(&mut self, keep: usize) {
        self.rows.clear();
        self.values.clear(keep);
    }

    /// The type of all rows.
    pub fn resource_type(&self) -> &str {
        str::from_utf8(self.constants.bytes(self.resource_type)).unwrap_or_default()
    }

    /// The indexes of all rows.
    pub fn all(&self) -> Vec<usize> {
        (0..self.rows.len()).collect()
    }

    pub fn id(&self, row: usize) -> &str {
        // It is valid UTF-8: `push` got a str.
        str::from_utf8(self.id_bytes(row)).unwrap_or_default()
    }

    pub fn id_bytes(&self, row: usize) -> &[u8] {
        self.values.bytes(self.rows[row].id)
    }

    /// These rows in the order of their ids, of each id the last: a statement may meet each id only once, and two sessions
    /// must wait for each other's rows in the same order.
    pub fn last_of_each_id(&self, rows: Vec<usize>) -> Vec<usize> {
        // The first bytes mostly decide; they are compared as one number.
        let mut keyed: Vec<_> = rows.into_iter().map(|row| (prefix(self.id_bytes(row)), row)).collect();
        keyed.sort_unstable_by(|(a, at), (b, bt)| {
            a.cmp(b).then_with(|| self.id_bytes(*at).cmp(self.id_bytes(*bt))).then_with(|| at.cmp(bt))
        });
        let mut last: Vec<usize> = Vec::with_capacity(keyed.len());
        for (_, row) in keyed {
            match last.last_mut() {
                Some(before) if self.id_bytes(*before) == self.id_bytes(row) => *before = row,
                _ => last.push(row),
            }
        }
        last
    }

    /// An id that more than one row has.
    pub fn repeated_id(&self) -> Option<&str> {
        let mut seen = HashSet::with_capacity(self.rows.len());
        (0..self.rows.len()).find(|row| !seen.insert(self.id_bytes(*row))).map(|row| self.id(row))
    }

    /// Whether a row that the table has is live, and has the type and the resource of this one, byte by byte: numbers that
    /// are equal may have other digits.
    pub fn is_same(&self, row: usize, old: &Old<'_>, columns: &Columns, statuses: &Statuses) -> bool {
        let is_live = old.get(columns.status).is_some_and(|status| !statuses.is_deleted(status));
        let type_name = self.constants.bytes(self.resource_type);
        let has_type = old.get(columns.resource_type).is_none() || old.has_bytes(columns.resource_type, type_name);
        is_live && has_type && old.has_bytes(columns.resource, self.values.bytes(self.rows[row].resource))
    }

    /// A row's values, in the order of [`super::columns::Columns::numbers`].
    pub fn row_values(&self, row: usize, to: &mut Vec<pg_sys::Datum>) {
        let Row { id, cts, resource } = self.rows[row];
        to.push(self.values.datum(id));
        to.push(self.stamp.txid.into());
        to.push(self.stamp.ts.into());
        to.push(self.constants.datum(self.resource_type));
        to.push(self.status_created);
        to.push(self.values.datum(resource));
        if self.has_cts {
            to.push(cts.unwrap_or(self.stamp.ts).into());
        }
    }

    /// The new values for a row that the table has, in the order of [`Columns::updated`], by the rules of
    /// [`super::statements`].
    pub fn new_version(
        &self,
        row: usize,
        old: &Old<'_>,
        columns: &Columns,
        statuses: &Statuses,
        to: &mut Vec<Option<pg_sys::Datum>>,
    ) {
        let Row { cts, resource, .. } = self.rows[row];
        let Stamp { txid, ts } = self.stamp;
        let (old_txid, old_ts, old_status) = (old.get(columns.txid), old.get(columns.ts), old.get(columns.status));
        let is_own = old_txid == Some(txid.into()) && old_ts == Some(ts.into());
        let status = match old_status {
            Some(own) if is_own => own,
            Some(old) if statuses.is_deleted(old) => statuses.recreated,
            _ => statuses.updated,
        };
        to.push(Some(txid.into()));
        to.push(Some(ts.into()));
        to.push(Some(self.constants.datum(self.resource_type)));
        to.push(Some(status));
        to.push(Some(self.values.datum(resource)));
        if let Some(column) = columns.cts {
            let is_new = is_own && statuses.is_created(status);
            to.push(if is_new { Some(cts.unwrap_or(ts).into()) } else { old.get(column) });
        }
    }

    /// `id, resource, cts` of a row. A missing creation time becomes the load's time.
    pub fn staged_values(&self, row: usize, to: &mut Vec<pg_sys::Datum>) {
        let Row { id, cts, resource } = self.rows[row];
        to.push(self.values.datum(id));
        to.push(self.values.datum(resource));
        to.push(cts.unwrap_or(self.stamp.ts).into());
    }

    /// The ids of these rows, as text.
    pub fn id_datums(&self, rows: &[usize]) -> impl Iterator<Item = pg_sys::Datum> {
        rows.iter().map(|row| self.values.datum(self.rows[*row].id))
    }

    /// The ids of these rows as `text[]`.
    pub fn ids(&self, rows: &[usize]) -> Parameter {
        Parameter::texts(&mut self.id_datums(rows).collect::<Vec<_>>())
    }

    /// Only ids, resources and type, as `$1` to `$3`.
    pub fn resource_parameters(&self, rows: &[usize]) -> [Parameter; 3] {
        let mut resources: Vec<_> = rows.iter().map(|row| self.values.datum(self.rows[*row].resource)).collect();
        let resource_type = Parameter::text(self.constants.datum(self.resource_type));
        [self.ids(rows), Parameter::jsonbs(&mut resources), resource_type]
    }

    /// The parameters of [`super::statements`]: `$1` ids, `$2` resources, `$3` txid, `$4` ts, `$5` type, `$6` creation
    /// times.
    pub fn parameters(&self, rows: &[usize]) -> Vec<Parameter> {
        let mut resources: Vec<_> = rows.iter().map(|row| self.values.datum(self.rows[*row].resource)).collect();
        let created: Vec<_> = rows.iter().map(|row| self.rows[*row].cts).collect();
        let mut parameters = vec![self.ids(rows), Parameter::jsonbs(&mut resources)];
        parameters.extend(self.stamp_parameters());
        parameters.push(Parameter::timestamptzs(&created));
        parameters
    }

    /// Only txid, ts and type, as `$1` to `$3`.
    pub fn stamp_parameters(&self) -> [Parameter; 3] {
        [
            Parameter::int8(self.stamp.txid),
            Parameter::timestamptz(self.stamp.ts),
            Parameter::text(self.constants.datum(self.resource_type)),
        ]
    }
}

/// The values of the enumerated status.
pub(super) struct Statuses {
    created: pg_sys::Datum,
    updated: pg_sys::Datum,
    deleted: pg_sys::Datum,
    recreated: pg_sys::Datum,
}

impl Statuses {
    /// The values of a type. Raises 22P02 if the type lacks one.
    pub fn of(status_type: pg_sys::Oid) -> Statuses {
        let value = |label| datum::input(status_type, label);
        Statuses {
            created: value(c"created"),
            updated: value(c"updated"),
            deleted: value(c"deleted"),
            recreated: value(c"recreated"),
        }
    }

    fn is_deleted(&self, status: pg_sys::Datum) -> bool {
        is_same_enum(status, self.deleted)
    }

    fn is_created(&self, status: pg_sys::Datum) -> bool {
        is_same_enum(status, self.created)
    }
}

/// An enum's value is an OID: only the lower 32 bits count.
fn is_same_enum(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    a.value() as u32 == b.value() as u32
}

fn push_text(values: &mut Values, text: &str) -> Value {
    let pushed = values.push::<std::convert::Infallible>(|out| {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    });
    match pushed {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
