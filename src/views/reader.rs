//! Rows of a view as lines of a body, or as parts of a file.

use super::parquet::ParquetRows;
use super::source::{Pause, Source};
use crate::stream::{Divisible, Division, Lines, More};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::error::Result;
use fhir_bulk_views::Cell;
use fhir_bulk_views::rows::RowWriter;

/// The rows of one resource pause when there are so many bytes; those of several ones before.
const MOST_BYTES: usize = 32 << 20;

/// Writes rows in a format. After the end of a body it begins another one.
pub enum Writer {
    /// One that has lines.
    Lines(Box<dyn RowWriter>),
    /// A file of row groups.
    Parquet(Box<ParquetRows>),
}

impl Writer {
    fn has_lines(&self) -> bool {
        matches!(self, Writer::Lines(_))
    }

    /// What is before the first row; whether that is a line.
    fn start(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Writer::Lines(lines) => lines.start(out),
            Writer::Parquet(_) => false,
        }
    }

    /// A row; whether it ends a line, or a part of a file.
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>], out: &mut Vec<u8>) -> Result<bool> {
        match self {
            Writer::Lines(lines) => Ok(lines.row(resource, cells, out)),
            Writer::Parquet(file) => file.row(resource, cells, out),
        }
    }

    /// What is after the last row.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        match self {
            Writer::Lines(lines) => Ok(lines.end(out)),
            Writer::Parquet(file) => file.end(out).map(|()| true),
        }
    }
}

/// An open source and the format of its rows.
pub struct Reader {
    source: Source,
    writer: Writer,
    at_start: bool,
    division: Division,
}

impl Reader {
    /// The rows of `source` as `writer` writes them.
    pub fn new(source: Source, writer: Writer) -> Reader {
        Reader { source, writer, at_start: true, division: Division::default() }
    }

    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.source.close_with_statement(calling);
    }

    /// Ends the query, of which no more rows are wanted.
    pub fn close(&mut self) {
        self.source.close();
    }
}

impl Lines for Reader {
    fn has_lines(&self) -> bool {
        self.writer.has_lines()
    }

    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        let Reader { source, writer, at_start, division } = self;
        if std::mem::take(at_start) && writer.start(out) && pause(out) {
            return Ok(More::Yes);
        }
        let more = source.read(&mut |resource, cells| {
            if division.count() {
                if writer.end(out)? {
                    pause(out);
                }
                division.begin(out.len());
                if writer.start(out) {
                    pause(out);
                }
            }
            let ended = writer.row(resource, cells, out)?;
            Ok(match ended && pause(out) {
                true if out.len() > MOST_BYTES => Pause::Now,
                true => Pause::Soon,
                false => Pause::No,
            })
        })?;
        if more == More::No && writer.end(out)? {
            pause(out);
        }
        Ok(more)
    }
}

impl Divisible for Reader {
    fn division(&mut self) -> &mut Division {
        &mut self.division
    }
}
