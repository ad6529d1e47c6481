//! The columns of a table, and its lines.

use super::leaves::{self, Frames};
use super::paths::{NodeId, Paths, ROOT, Step};
use super::problem::Problem;
use crate::jsonb::text::{Spacing, Text};
use crate::jsonb::walk::{Slice, Value};
use crate::reuse::emptied;
use crate::rows::csv::Csv;
use std::mem::take;

/// Collects the columns of any number of resources.
pub struct Columns {
    paths: Paths,
    own: [NodeId; 2],
    frames: Frames<'static>,
}

/// The columns that all resources have, and that are not in the stored jsonb.
const OWN: [&[u8]; 2] = [b"id", b"resourceType"];

impl Columns {
    /// The columns `id` and `resourceType`.
    pub fn new() -> Columns {
        let mut paths = Paths::new();
        let own = OWN.map(|name| {
            let node = paths.insert(ROOT, Step::Name(Slice::of(name))).expect("two short names");
            paths.add_column(node).expect("two columns");
            node
        });
        Columns { paths, own, frames: Frames::default() }
    }

    /// Adds the columns of a stored resource: the jsonb after its length header.
    ///
    /// # Errors
    /// [`Problem::NotAnObject`], [`Problem::TooManyColumns`], [`Problem::NamesTooLong`].
    pub fn add(&mut self, resource: &[u8]) -> Result<(), Problem> {
        let mut frames = take(&mut self.frames).reuse();
        leaves::each(resource, &mut self.paths, &mut frames, |paths, mut leaf| {
            let node = leaf.node.map_or_else(|| leaf.add(paths), Ok)?;
            paths.add_column(node)
        })?;
        self.frames = frames.reuse();
        Ok(())
    }

    /// The table with these columns, in the order of their names' code points.
    pub fn into_table(mut self) -> Table {
        let csv = Csv::new(",", "").expect("a comma and an empty text");
        let names = self.paths.sort_columns();
        let mut header = Vec::new();
        csv.header(names.iter().map(AsRef::as_ref), &mut header);
        let own = self.own.map(|node| self.paths.column(node).expect("made with the columns"));
        let (width, cells) = (names.len() as u32, Vec::new());
        Table { paths: self.paths, width, own, header, csv, cells, frames: self.frames }
    }
}

impl Default for Columns {
    fn default() -> Columns {
        Columns::new()
    }
}

/// Writes resources as lines of CSV, without newlines at their ends.
pub struct Table {
    paths: Paths,
    width: u32,
    /// The columns of [`OWN`].
    own: [u32; 2],
    header: Vec<u8>,
    csv: Csv,
    /// The memory for a row's cells.
    cells: Vec<Cell<'static>>,
    frames: Frames<'static>,
}

/// A cell that is not empty.
struct Cell<'j> {
    column: u32,
    content: Content<'j>,
}

enum Content<'j> {
    Text(&'j [u8]),
    /// A number or a boolean.
    Other(Value<'j>),
}

impl Table {
    /// Appends the names of the columns.
    pub fn header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header);
    }

    /// Appends the line of a row. `resource` is the jsonb after its length header.
    ///
    /// # Errors
    /// [`Problem::NotAnObject`], [`Problem::NewPath`]; then nothing is appended.
    pub fn row<'j>(
        &mut self,
        id: &'j str,
        resource_type: &'j str,
        resource: &'j [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        let mut frames = take(&mut self.frames).reuse();
        let mut cells: Vec<Cell<'j>> = emptied(take(&mut self.cells));
        for (column, text) in self.own.into_iter().zip([id, resource_type]) {
            cells.push(Cell { column, content: Content::Text(text.as_bytes()) });
        }
        leaves::each(resource, &mut self.paths, &mut frames, |paths, leaf| {
            let column = leaf.node.and_then(|node| paths.column(node));
            let column = column.ok_or_else(|| Problem::NewPath(String::from_utf8_lossy(&leaf.top()).into_owned()))?;
            let content = leaf.value.string().map_or(Content::Other(leaf.value), Content::Text);
            cells.push(Cell { column, content });
            Ok(())
        })?;
        cells.sort_unstable_by_key(|cell| cell.column);
        self.write(&cells, out);
        self.frames = frames.reuse();
        self.cells = emptied(cells);
        Ok(())
    }

    fn write(&self, cells: &[Cell<'_>], out: &mut Vec<u8>) {
        let mut at = 0;
        for Cell { column, content } in cells {
            self.skip(at, *column, out);
            at = *column;
            match content {
                Content::Text(text) => self.csv.field(text, false, out),
                Content::Other(value) => {
                    let mut text = Text::new(Spacing::Compact, NUMBER_BYTES, out);
                    text.value(*value, &mut Vec::new());
                    text.finish(out);
                }
            }
        }
        self.skip(at, self.width - 1, out);
    }

    /// Appends the delimiters from one column to another.
    fn skip(&self, from: u32, to: u32, out: &mut Vec<u8>) {
        for _ in from..to {
            self.csv.delimiter(out);
        }
    }
}

/// About how many bytes a number has.
const NUMBER_BYTES: usize = 24;
