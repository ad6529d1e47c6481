//! Rows of a view as a Parquet file, with the types that a view of SQL has.

use super::sql_types::ColumnType;
use crate::parquet::{self, failed};
use fhir_bulk_codec::instant;
use fhir_bulk_codec::rows::json::read_base64;
use fhir_bulk_parquet::{Cell, Column, File, Kind};
use fhir_bulk_paths::item::{Item, Resource};
use fhir_bulk_pg::cast::Cast;
use fhir_bulk_pg::class::Class;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::memory::Scratch;
use fhir_bulk_views::cell::{Scalar, Texts, scalar};
use fhir_bulk_views::{self as views, View};
use pgrx::PgSqlErrorCode;
use std::ffi::{CStr, CString};
use std::ops::RangeInclusive;

/// A buffer that a huge value made larger than this is shrunk to this size.
const KEEP_BYTES: usize = 4 << 20;

/// A file with a typed column for each of a view.
pub struct ParquetRows {
    file: File,
    columns: Vec<Typed>,
    cells: Cells,
}

/// A column, and how its cells get their type.
struct Typed {
    column: Column,
    way: Way,
}

enum Way {
    /// Any text is one.
    Text,
    /// FHIR's JSON.
    Json,
    /// Base64 of bytes.
    Base64,
    /// As a cast from text has it. Whole numbers that are among `whole` are what they are.
    Cast { cast: Cast, whole: Option<RangeInclusive<i64>> },
}

/// Makes cells of a view's cells.
struct Cells {
    texts: Texts,
    text: Vec<u8>,
    bytes: Vec<u8>,
    scratch: Scratch,
}

impl ParquetRows {
    /// A file of a view's rows. It uses memory of the current memory context, which must live as long as it does.
    ///
    /// # Errors
    /// 22023 for a tag `ansi/type` that is not known; 53200.
    pub fn new(view: &View) -> Result<ParquetRows> {
        let columns: Vec<Typed> = view.columns().iter().map(Typed::new).collect::<Result<_>>()?;
        let file = new_file(&columns)?;
        let texts = Texts::new(view.version());
        let cells = Cells { texts, text: Vec::new(), bytes: Vec::new(), scratch: Scratch::default() };
        Ok(ParquetRows { file, columns, cells })
    }

    /// Writes a row; whether it was the last one of a group, which is then in `out`.
    ///
    /// # Errors
    /// Those of class 22 of a cast, with the column and the resource.
    pub fn row(&mut self, resource: &Resource<'_>, cells: &[views::Cell<'_>], out: &mut Vec<u8>) -> Result<bool> {
        let ParquetRows { file, columns, cells: made } = self;
        for (typed, cell) in columns.iter().zip(cells) {
            made.push(typed, resource, cell, file)?;
        }
        made.text.shrink_to(KEEP_BYTES);
        made.bytes.shrink_to(KEEP_BYTES);
        let ended = file.end_row().map_err(failed)?;
        if ended {
            file.take(out);
        }
        Ok(ended)
    }

    /// Ends the file. What is written next begins another one.
    ///
    /// # Errors
    /// 53200.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.file.finish().map_err(failed)?;
        self.file.take(out);
        self.file = new_file(&self.columns)?;
        Ok(())
    }
}

fn new_file(columns: &[Typed]) -> Result<File> {
    let schema: Vec<Column> = columns.iter().map(|typed| typed.column.clone()).collect();
    File::new(&schema).map_err(failed)
}

impl Typed {
    fn new(column: &views::Column) -> Result<Typed> {
        let ColumnType { name, is_base64 } = ColumnType::of(column)?;
        let cast = Cast::new(&CString::new(name.as_str()).expect("a name that is known"));
        let kind = parquet::kind(cast.class());
        let whole = match kind {
            Kind::Int32 if name == "smallint" => Some(i16::MIN.into()..=i16::MAX.into()),
            Kind::Int32 => Some(i32::MIN.into()..=i32::MAX.into()),
            Kind::Int64 => Some(i64::MIN..=i64::MAX),
            _ => None,
        };
        let way = match cast.class() {
            _ if is_base64 => Way::Base64,
            Class::Json => Way::Json,
            Class::Text if !cast.has_length() => Way::Text,
            _ => Way::Cast { cast, whole },
        };
        Ok(Typed { column: Column { name: column.name.clone(), kind }, way })
    }
}

impl Cells {
    /// Adds a cell to a file.
    fn push(
        &mut self,
        Typed { column, way }: &Typed,
        resource: &Resource<'_>,
        cell: &views::Cell<'_>,
        file: &mut File,
    ) -> Result<()> {
        let Cells { texts, text, bytes, scratch } = self;
        let item = match cell {
            views::Cell::Null => {
                file.push(Cell::Null);
                return Ok(());
            }
            views::Cell::One(item) => Some(item),
            views::Cell::Many(_) => None,
        };
        let known = item.and_then(|item| known(way, column.kind, item));
        if let Some(known) = known {
            file.push(known);
            return Ok(());
        }
        text.clear();
        match way {
            Way::Json => texts.json(resource, cell, text),
            _ => texts.text(resource, cell, text),
        }
        match way {
            Way::Text | Way::Json => file.push(Cell::Bytes(text)),
            Way::Base64 => {
                let digits = text.iter().filter(|byte| !byte.is_ascii_whitespace()).count();
                let read = std::str::from_utf8(text).ok().and_then(read_base64);
                // With its padding, as PostgreSQL and FHIR have it.
                let read = read.filter(|read| read.len().div_ceil(3) * 4 == digits);
                *bytes = read.ok_or_else(|| no_base64().about(&place(column, resource)))?;
                file.push(Cell::Bytes(bytes));
            }
            Way::Cast { cast, .. } => {
                text.push(0);
                let text = CStr::from_bytes_until_nul(text).expect("it ends with one");
                let pushed = cast.of(text, scratch, |value| {
                    file.push(parquet::cell(column, value)?);
                    Ok(())
                });
                pushed.map_err(|error| error.about(&place(column, resource)).hint(WAY_OUT))?;
            }
        }
        Ok(())
    }
}

/// The cell of an item that is of the column's type as it is.
fn known<'i>(way: &Way, kind: Kind, item: &'i Item<'_>) -> Option<Cell<'i>> {
    match way {
        Way::Text => item.text().map(Cell::Bytes),
        Way::Json | Way::Base64 => None,
        Way::Cast { whole, .. } => match (scalar(item), kind) {
            (Scalar::Boolean(value), Kind::Bool) => Some(Cell::Bool(value)),
            (Scalar::Integer(value), _) if whole.as_ref().is_some_and(|whole| whole.contains(&value)) => {
                Some(Cell::Int(value))
            }
            (Scalar::Instant(at), Kind::Instant) => parquet::moment(at),
            (Scalar::Text, Kind::Instant) => {
                let text = std::str::from_utf8(item.text()?).ok()?;
                // PostgreSQL has its own way to round what is smaller than its units.
                let is_exact =
                    text.split_once('.').is_none_or(|(_, rest)| !rest.bytes().take(7).all(|b| b.is_ascii_digit()));
                instant::parse(text).filter(|_| is_exact).and_then(parquet::moment)
            }
            _ => None,
        },
    }
}

const WAY_OUT: &str =
    "Leave out the column's type, for its text, or take an expression that has values of the type only.";

/// What an error is about.
fn place(column: &Column, resource: &Resource<'_>) -> String {
    format!("column \"{}\" of {} \"{}\"", column.name, resource.resource_type, resource.id)
}

fn no_base64() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, "the value is not base64").hint(WAY_OUT)
}
