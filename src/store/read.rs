//! Reads the live resources of a table, as a stream of lines.

use super::live::{Live, Rows};
use super::{Filter, ResourceTable};
use crate::stream::{Lines, More};
use fhir_bulk_codec::instant;
use fhir_bulk_codec::resource::{Envelope, Writer};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use std::ops::ControlFlow;

/// Reads a table's live rows under one snapshot.
pub struct Reader {
    live: Live,
    pub(super) writer: Writer,
    last_updated: Instant,
    created_at: Instant,
    zone: Zone,
}

/// The time zone in which instants are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zone {
    Session,
    Utc,
}

impl Reader {
    /// Opens a table for the current role. Of the rows, those count that the filter lets through.
    ///
    /// # Errors
    /// As for [`Live::open`].
    pub fn open(
        table: &ResourceTable,
        resource_type: &str,
        rows: Rows<'_>,
        filter: Option<Filter>,
        writer: Writer,
    ) -> Result<Reader> {
        Ok(Reader::of(Live::open(table, resource_type, rows, filter)?, writer))
    }

    /// Writes rows that are being read.
    pub fn of(live: Live, writer: Writer) -> Reader {
        let (last_updated, created_at) = (Instant::default(), Instant::default());
        Reader { live, writer, last_updated, created_at, zone: Zone::Session }
    }

    /// Writes instants in UTC instead of the session's TimeZone.
    pub fn in_utc(self) -> Reader {
        Reader { zone: Zone::Utc, ..self }
    }

    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.live.close_with_statement(calling);
    }

    /// Checks that the transaction's snapshot shows this table, for one of several reads under that snapshot.
    ///
    /// # Errors
    /// 40001 if the table was truncated or rewritten after the snapshot.
    pub fn of_one_moment(self) -> Result<Reader> {
        self.live.check_moment()?;
        Ok(self)
    }

    /// Passes resources to `handle` until it breaks. After the last one the query is closed.
    ///
    /// # Errors
    /// As for [`Live::each`].
    pub fn each(&mut self, mut handle: impl FnMut(&Stored<'_>) -> Result<ControlFlow<()>>) -> Result<More> {
        let Reader { live, writer, last_updated, created_at, zone } = self;
        live.each(|resource, created| {
            let envelope = Envelope {
                id: resource.id,
                resource_type: resource.resource_type,
                version_id: resource.version_id,
                last_updated: last_updated.text(resource.last_updated, *zone),
                created_at: created_at.text(created, *zone),
            };
            handle(&Stored { envelope, resource, writer })
        })
    }
}

impl Lines for Reader {
    /// Fails like [`Reader::each`], and with 22023 for a row whose `resource` is not an object.
    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        self.each(|stored| {
            stored.write(out)?;
            Ok(if pause(out) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
}

/// A resource in its row.
pub struct Stored<'a> {
    pub(super) envelope: Envelope<'a>,
    /// The resource.
    pub resource: Resource<'a>,
    writer: &'a Writer,
}

impl Stored<'_> {
    /// Appends its line, without a newline.
    ///
    /// # Errors
    /// 22023 if it is not an object.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let Resource { id, resource_type, .. } = self.resource;
        self.writer.write(&self.envelope, self.resource.json, out).map_err(|_| not_an_object(resource_type, id))
    }
}

/// The text of the last instant: all rows of a load have the same.
#[derive(Default)]
struct Instant {
    micros: Option<i64>,
    text: String,
}

impl Instant {
    fn text(&mut self, micros: Option<i64>, zone: Zone) -> Option<&str> {
        let micros = micros?;
        if self.micros != Some(micros) {
            let offset = if zone == Zone::Utc { 0 } else { session::utc_offset(micros) };
            self.text = instant::format(micros, offset);
            self.micros = Some(micros);
        }
        Some(&self.text)
    }
}

/// The error for a resource that is not an object (22023).
pub fn not_an_object(resource_type: &str, id: &str) -> Error {
    Error::invalid_argument(format!("the resource of {resource_type} \"{id}\" is not a JSON object"))
        .hint("Correct or delete this row; a resource is an object.")
}
