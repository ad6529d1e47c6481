//! Makes rows of lines.

use crate::chunk::{Chunk, Refusal, Refused};
use crate::failure::Failure;
use fhir_bulk_codec::instant;
use fhir_bulk_codec::ndjson::{Line, Lines, Position, ReadError};
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_codec::share::Share;
use fhir_bulk_codec::{LineError, Reason};
use std::cell::RefCell;
use std::collections::TryReserveError;
use std::io::Read;

/// How to make rows of a source's lines.
pub struct Plan {
    /// Encodes the resources.
    pub encoder: Encoder,
    /// The type of all lines; `None` if each line names its own.
    pub resource_type: Option<String>,
    /// Whether a name is valid for a type.
    pub is_type: fn(&str) -> bool,
    /// JSON text of members, without the braces, that are added at the top of every line; empty for none.
    pub merge: String,
    /// Leave out object members of a line that are null, at any depth.
    pub strip_nulls: bool,
    /// Whether to go on after a refused line; otherwise it is the last.
    pub skip: bool,
    /// The length of the longest line that is accepted.
    pub max_line_bytes: usize,
    /// The lines to make rows of; `None` for all. Others are read, and passed over.
    pub share: Option<Share>,
    /// Where to start. An earlier load of the same source has stored the lines before it.
    pub start: Position,
}

/// Makes rows of a source's lines.
pub(crate) struct Maker<R> {
    plan: Plan,
    lines: Lines<R>,
    /// A line with the merged members.
    merged: Vec<u8>,
}

impl<R: Read> Maker<R> {
    /// Skips to the position where the plan starts.
    ///
    /// # Errors
    /// The errors of reading the source; [`Failure::Changed`] if it has changed before that position.
    pub fn new(plan: Plan, source: R) -> Result<Maker<R>, Failure> {
        let mut lines = Lines::new(source, plan.max_line_bytes);
        match lines.skip_to(plan.start) {
            Ok(None) => Ok(Maker { plan, lines, merged: Vec::new() }),
            Ok(Some(change)) => Err(Failure::Changed(change)),
            Err(error) => Err(Failure::Source { error, line: lines.number() }),
        }
    }

    /// The position in the stream.
    pub fn position(&self) -> Position {
        self.lines.position()
    }

    /// Adds the result of the next line to the chunk. Returns false after the last line.
    ///
    /// # Errors
    /// The failure that ends the source early.
    pub fn take_line(&mut self, chunk: &RefCell<Chunk>) -> Result<bool, Failure> {
        let Maker { plan, lines, merged } = self;
        // Those of other shares that can be told apart now.
        let line = loop {
            match lines.next_line() {
                Ok(Some(line)) if plan.share.as_ref().is_some_and(|own| own.has_line(line.bytes) == Some(false)) => {}
                next => break next,
            }
        };
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(false),
            Err(ReadError::LineTooLong(limit)) if plan.skip => {
                let (number, offset) = (lines.number(), lines.offset());
                let start = Chunk::kept_of(lines.long_line()).to_vec();
                lines.skip_long_line().map_err(|error| Failure::Source { error, line: number })?;
                let why = Refusal::TooLong(limit);
                chunk.borrow_mut().push_refused(self.position(), Refused { why: &why, offset, line: &start });
                return Ok(true);
            }
            Err(error) => return Err(Failure::Source { error, line: lines.number() }),
        };
        let position = line.end;
        let mut chunk = chunk.borrow_mut();
        let Err(why) = store(&line, position, plan, merged, &mut chunk) else { return Ok(true) };
        chunk.push_refused(position, Refused { why: &why, offset: line.offset, line: line.bytes });
        Ok(plan.skip)
    }
}

fn store(
    line: &Line<'_>,
    position: Position,
    plan: &mut Plan,
    merged: &mut Vec<u8>,
    chunk: &mut Chunk,
) -> Result<(), Refusal> {
    let no_memory = |_| Refusal::Bad(LineError { reason: Reason::OutOfMemory, offset: 0 });
    let (bytes, end_of_line) = merge(line.bytes, &plan.merge, merged).map_err(no_memory)?;
    plan.encoder.strip_nulls_before(if plan.strip_nulls { end_of_line } else { 0 });
    let encoded = plan.encoder.encode(bytes).map_err(Refusal::Bad)?;
    if plan.share.as_ref().is_some_and(|own| !own.has(encoded.id().as_bytes())) {
        return Ok(());
    }
    let resource_type = match (encoded.resource_type(), plan.resource_type.as_deref()) {
        (Some(given), Some(expected)) if given != expected => return Err(Refusal::ForeignType(given.to_owned())),
        (Some(given), None) if !(plan.is_type)(given) => return Err(Refusal::InvalidType(given.to_owned())),
        (Some(given), _) => given,
        (None, Some(expected)) => expected,
        (None, None) => return Err(Refusal::MissingType),
    };
    let created_at = match encoded.created_at().map(|text| (text, instant::parse(text))) {
        None => None,
        Some((_, Some(at))) => Some(at),
        Some((text, None)) => return Err(Refusal::InvalidCreatedAt(text.to_owned())),
    };
    chunk.push_row(position, resource_type, &encoded, created_at).map_err(Refusal::Bad)
}

/// The line with `members` inserted before its last brace, so that they come last and win, and where the line's own part
/// ends. A line that is not an object stays unchanged: the parser will refuse it.
fn merge<'a>(line: &'a [u8], members: &str, merged: &'a mut Vec<u8>) -> Result<(&'a [u8], usize), TryReserveError> {
    let inner = line.trim_ascii_end().strip_suffix(b"}").map(<[u8]>::trim_ascii_end);
    let (false, Some(inner)) = (members.is_empty(), inner) else { return Ok((line, line.len())) };
    merged.clear();
    merged.try_reserve(inner.len() + members.len() + 2)?;
    merged.extend_from_slice(inner);
    if !inner.ends_with(b"{") {
        merged.push(b',');
    }
    merged.extend_from_slice(members.as_bytes());
    merged.push(b'}');
    Ok((merged, inner.len()))
}
