//! Reads the lines of a source into rows, without storing them.

use super::options::{OnError, Options};
use super::refusals;
use crate::settings;
use crate::source::{Arriving, Bytes, Piece, Progress, Source};
use crate::store::ResourceType;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_codec::share::Share;
use fhir_bulk_feed::{self as feed, Chunk, Event, Feed, Item, Pace, Position};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use pgrx::PgSqlErrorCode;
use std::mem::replace;

/// The lines of a source, as rows that can be stored and lines that cannot.
pub struct Lines {
    name: String,
    progress: Progress,
    /// Reads the source on this thread, as long as the feed's thread cannot.
    arriving: Option<Box<dyn Arriving>>,
    /// Makes rows of the source's bytes on a thread of its own.
    feed: Feed,
    /// The chunk that the feed made last, and the index of its next item.
    chunk: Chunk,
    next: usize,
    position: Position,
    /// There are no more lines.
    at_end: bool,
    start: Position,
}

/// How to read lines.
pub struct Form<'a> {
    /// The type of all lines; `None` if each line names its own.
    pub resource_type: Option<&'a ResourceType>,
    /// Whether the lines are in FHIR's form, not in Aidbox's.
    pub fhir: bool,
    /// Those of the load.
    pub options: &'a Options,
    /// The lines that count; `None` for all.
    pub share: Option<&'a Share>,
    /// Where to start. An earlier load of the same source has stored the lines before it.
    pub start: Position,
}

impl Lines {
    /// Starts the feed on a source, under the current role's settings.
    ///
    /// # Errors
    /// 53000 when the thread cannot be started.
    pub fn start(source: Source, form: &Form<'_>) -> Result<Lines> {
        let Source { name, bytes, progress } = source;
        let (source, arriving) = match bytes {
            Bytes::Anywhere(source) => (source, None),
            Bytes::Here(arriving) => (feed::Source::Given, Some(arriving)),
        };
        let feed = Feed::start(plan(form), source).map_err(|error| {
            Error::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
                format!("could not start to read {name}: {error}"),
            )
        })?;
        let (chunk, next, start) = (Chunk::default(), 0, form.start);
        Ok(Lines { name, progress, arriving, feed, chunk, next, position: start, at_end: false, start })
    }

    /// The source's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the next line begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many bytes of the source have been read.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How far the feed reads ahead.
    pub fn pace(&self) -> &Pace {
        self.feed.pace()
    }

    /// Waits for a line. Returns false at the end of the source.
    ///
    /// # Errors
    /// Class 22 and 54 for a source that cannot be read to its end; 55000 if it has changed before `start`; the errors of its
    /// scheme.
    pub fn has_line(&mut self) -> Result<bool> {
        while self.next == self.chunk.len() && !self.at_end {
            match self.wait()? {
                Event::Lines(chunk) => {
                    self.feed.reuse(replace(&mut self.chunk, chunk));
                    self.next = 0;
                }
                Event::End(position) => (self.position, self.at_end) = (position, true),
                Event::Failed(failure) => return Err(refusals::of_source(&self.name, &failure, self.start)),
            }
        }
        Ok(!self.at_end)
    }

    /// The line that [`Lines::has_line`] has waited for, and the position after it.
    pub fn line(&self) -> Option<(Position, Item<'_>)> {
        self.chunk.get(self.next)
    }

    /// Goes on to the next line.
    pub fn pass(&mut self) {
        if let Some(reached) = self.chunk.position(self.next) {
            self.position = reached;
            self.next += 1;
        }
    }

    /// Waits for the next event of the feed, and gives the feed blocks meanwhile. A cancel takes effect here.
    fn wait(&mut self) -> Result<Event> {
        loop {
            session::check_for_interrupts();
            // Blocks first: the feed's thread works on them while this thread stores rows.
            let mut runs_dry = false;
            if let Some(arriving) = &mut self.arriving {
                while !runs_dry && self.feed.has_room() {
                    match arriving.next()? {
                        Some(Piece::Block(block)) => self.feed.give(Ok(block)),
                        Some(Piece::Rest(rest)) => self.feed.give_rest(rest),
                        None => runs_dry = true,
                    }
                }
            }
            if let Some(event) = self.feed.take() {
                return Ok(event);
            }
            let made = Waiting::Readable(self.feed.wake_fd());
            match &self.arriving {
                Some(arriving) if runs_dry => session::wait(&[made, Waiting::Readable(arriving.fd())]),
                _ => session::wait(&[made]),
            }
        }
    }
}

/// Collects what the feed needs to know. Its thread must not call PostgreSQL.
fn plan(form: &Form<'_>) -> feed::Plan {
    let Form { resource_type, fhir, options, share, start } = form;
    let created_at_url = settings::created_at_url();
    let resource_type = resource_type.map(|resource_type| resource_type.as_str().to_owned());
    let encoder = if *fhir {
        let expected = resource_type.as_deref();
        Encoder::new(IdRule::Fhir, &created_at_url).from_fhir(
            settings::fhir_version(),
            settings::convert_extensions(),
            expected,
        )
    } else {
        Encoder::new(IdRule::Aidbox, &created_at_url)
    };
    feed::Plan {
        encoder,
        resource_type,
        is_type: |name| ResourceType::new(name).is_ok(),
        skip: options.on_error != OnError::Abort,
        merge: options.merge.clone(),
        strip_nulls: options.strip_nulls,
        max_line_bytes: settings::max_line_bytes(),
        share: share.cloned(),
        start: *start,
    }
}
