//! Writes the lines of a table on threads beside the backend, which reads its rows: as many as `fhir_bulk.dump_workers` says.

use super::read::{Reader, not_an_object};
use crate::settings;
use crate::stream::{Lines, More};
use fhir_bulk_drain::{Drain, Failed, Piece, Why};
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use pgrx::PgSqlErrorCode;
use std::ops::ControlFlow;

/// The lines of a [`Reader`], in its order.
pub struct Beside {
    reader: Reader,
    workers: usize,
    /// None until there is a piece.
    drain: Option<Drain>,
    /// The piece whose lines are passed on.
    current: Option<Piece>,
    /// Pieces that are empty again.
    free: Vec<Piece>,
    at_end: bool,
}

impl Beside {
    /// With as many threads as the session wants.
    pub fn of(reader: Reader) -> Beside {
        let workers = settings::dumps::workers();
        Beside { reader, workers, drain: None, current: None, free: Vec::new(), at_end: false }
    }

    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.reader.close_with_statement(calling);
    }

    /// Reads the next rows into a piece, and passes it to a thread, or writes it here.
    fn read_piece(&mut self) -> Result<()> {
        let mut piece = self.free.pop().unwrap_or_default();
        let more = self.reader.each(|stored| {
            piece.push(&stored.envelope, stored.resource.json).map_err(|_| out_of_memory(stored.resource.id))?;
            Ok(if piece.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        self.at_end = more == More::No;
        // A single piece needs no thread.
        let workers = if self.at_end { 0 } else { self.workers };
        let Beside { reader, drain, .. } = self;
        let drain = drain.get_or_insert_with(|| Drain::start(workers, || reader.writer.another()));
        if drain.has_room() {
            drain.give(piece);
        } else {
            piece.write(&reader.writer);
            drain.keep(piece);
        }
        Ok(())
    }

    /// Waits for the lines of the next piece, if there is one, and has the threads busy meanwhile. A cancel takes effect here.
    fn take(&mut self) -> Result<()> {
        loop {
            session::check_for_interrupts();
            let is_wanted = |drain: &Drain| drain.has_room() || drain.is_empty();
            if !self.at_end && self.drain.as_ref().is_none_or(is_wanted) {
                self.read_piece()?;
                continue;
            }
            let Some(drain) = &mut self.drain else { return Ok(()) };
            let lost = |_| Error::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a thread that writes lines has ended");
            self.current = drain.take().map_err(lost)?;
            if self.current.is_some() || drain.is_empty() {
                return Ok(());
            }
            if !self.at_end && drain.may_keep() {
                self.read_piece()?;
            } else if let Some(done) = drain.wake_fd() {
                session::wait(&[Waiting::Readable(done)]);
            }
        }
    }
}

impl Lines for Beside {
    /// Fails like [`Reader`]'s.
    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        if self.workers == 0 {
            return self.reader.read(out, pause);
        }
        loop {
            if let Some(piece) = &mut self.current {
                while let Some(line) = piece.next_line() {
                    out.extend_from_slice(line);
                    if pause(out) {
                        return Ok(More::Yes);
                    }
                }
                if let Some(Failed { resource_type, id, why }) = piece.failed() {
                    return Err(match why {
                        Why::NotAnObject => not_an_object(resource_type, id),
                        Why::OutOfMemory => out_of_memory(id),
                    });
                }
                piece.clear();
                self.free.extend(self.current.take());
            }
            self.take()?;
            if self.current.is_none() {
                return Ok(More::No);
            }
        }
    }
}

fn out_of_memory(id: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
        .detail(format!("The resource has the id \"{id}\"."))
}
