//! Writes rows as a Parquet file.

use super::json::Objects;
use super::writer::{KEEP_BYTES, Writer};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_parquet::{Cell, Column, Failed, File, Kind, MAX_PRECISION};
use fhir_bulk_pg::class::Class;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::query::QueryRow;
use fhir_bulk_pg::value::{self, Content, INFINITE_DATES, INFINITE_TIMES, Value};
use pgrx::PgSqlErrorCode;

/// From 1970-01-01, where Parquet starts to count, to 2000-01-01, where PostgreSQL does.
const DAYS_TO_2000: i64 = 10_957;
const MICROS_TO_2000: i64 = DAYS_TO_2000 * DAY;
/// The microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// A file with a typed column for each of the query.
pub struct ParquetWriter {
    file: File,
    columns: Vec<Column>,
    cells: Cells,
}

/// Makes cells of values.
struct Cells {
    jsonb: TextWriter,
    nested: Objects,
    scratch: Vec<u8>,
}

impl ParquetWriter {
    /// # Errors
    /// 53200.
    pub fn new(columns: &[value::Column]) -> Result<ParquetWriter> {
        let column = |column: &value::Column| Column { name: column.name.clone(), kind: kind(column.class()) };
        let columns: Vec<Column> = columns.iter().map(column).collect();
        let file = File::new(&columns).map_err(failed)?;
        let (jsonb, nested) = (TextWriter::new(Spacing::Postgres), Objects::new(&[])?);
        Ok(ParquetWriter { file, columns, cells: Cells { jsonb, nested, scratch: Vec::new() } })
    }
}

fn kind(class: Class) -> Kind {
    match class {
        Class::Bool => Kind::Bool,
        Class::Int4 => Kind::Int32,
        Class::Int8 => Kind::Int64,
        Class::Float4 => Kind::Float32,
        Class::Float8 => Kind::Float64,
        Class::Numeric(declared) => declared.and_then(decimal).unwrap_or(Kind::Text),
        Class::Date => Kind::Date,
        Class::Time => Kind::Time,
        Class::Timestamp => Kind::Timestamp,
        Class::Timestamptz => Kind::Instant,
        Class::Json | Class::Nested => Kind::Json,
        Class::Bytea => Kind::Bytes,
        Class::Uuid => Kind::Uuid,
        Class::Text => Kind::Text,
    }
}

/// The decimal for a declared precision and scale. In PostgreSQL the scale may be negative, or larger than the precision.
fn decimal((precision, scale): (i32, i32)) -> Option<Kind> {
    let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    let precision = u8::try_from(precision).ok().filter(|precision| *precision <= MAX_PRECISION)?;
    Some(Kind::Decimal { precision, scale: scale as u8 })
}

impl Writer for ParquetWriter {
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool> {
        let ParquetWriter { file, columns, cells } = self;
        for (column, value) in columns.iter().zip(row.values()) {
            file.push(match value {
                Some(value) => cells.cell(column, &value)?,
                None => Cell::Null,
            });
        }
        cells.scratch.shrink_to(KEEP_BYTES);
        let ended = file.end_row().map_err(failed)?;
        if ended {
            file.take(out);
        }
        Ok(ended)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        self.file.finish().map_err(failed)?;
        self.file.take(out);
        Ok(true)
    }
}

impl Cells {
    fn cell<'a>(&'a mut self, column: &Column, value: &Value<'a>) -> Result<Cell<'a>> {
        let no_time = || no_place(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, column, value);
        let cell = match (value.content(), column.kind) {
            (Content::Bool(cell), _) => Cell::Bool(cell),
            (Content::Int(cell), _) => Cell::Int(cell),
            (Content::Float4(cell), _) => Cell::Float(cell.into()),
            (Content::Float8(cell), _) => Cell::Float(cell),
            (Content::Numeric, Kind::Decimal { precision, scale }) => {
                let digits = unscaled(value.text(), precision, scale);
                let code = PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
                Cell::Decimal(digits.ok_or_else(|| no_place(code, column, value))?)
            }
            (Content::Date(days), _) => {
                let days = Some(days).filter(|days| !INFINITE_DATES.contains(days));
                let days = days.map(|days| i64::from(days) + DAYS_TO_2000);
                Cell::Int(days.filter(|days| i32::try_from(*days).is_ok()).ok_or_else(no_time)?)
            }
            (Content::Time(at), _) => Cell::Int(Some(at).filter(|at| *at < DAY).ok_or_else(no_time)?),
            (Content::Timestamp(at) | Content::Timestamptz(at), _) => {
                let at = Some(at).filter(|at| !INFINITE_TIMES.contains(at));
                Cell::Int(at.and_then(|at| at.checked_add(MICROS_TO_2000)).ok_or_else(no_time)?)
            }
            (Content::Uuid(bytes), _) => Cell::Bytes(bytes),
            (Content::Bytea(bytes), _) => Cell::Bytes(bytes.get()),
            (Content::Text(text) | Content::Json(text), _) => Cell::Bytes(text),
            (Content::Jsonb(bytes), _) => {
                self.scratch.clear();
                self.jsonb.write(bytes, &mut self.scratch);
                Cell::Bytes(&self.scratch)
            }
            (Content::Array(_) | Content::Composite(_), _) => {
                self.scratch.clear();
                self.nested.value(Some(*value), &mut self.scratch)?;
                Cell::Bytes(&self.scratch)
            }
            (Content::Numeric | Content::Bits | Content::Castable(_) | Content::Other, _) => Cell::Bytes(value.text()),
        };
        Ok(cell)
    }
}

/// A number's digits, with so many of them after the point. `None` for NaN, and for numbers that need more digits.
fn unscaled(text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let (is_negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
    let (mut number, mut after) = (0_i128, None);
    for byte in digits {
        match (byte, after) {
            (b'.', None) => after = Some(0),
            (b'0'..=b'9', Some(places)) if places == scale => {
                if *byte != b'0' {
                    return None;
                }
            }
            (b'0'..=b'9', _) => {
                number = number.checked_mul(10)?.checked_add((byte - b'0').into())?;
                after = after.map(|places| places + 1);
            }
            _ => return None,
        }
    }
    for _ in after.unwrap_or(0)..scale {
        number = number.checked_mul(10)?;
    }
    (number < 10_i128.pow(precision.into())).then_some(if is_negative { -number } else { number })
}

fn no_place(code: PgSqlErrorCode, column: &Column, value: &Value<'_>) -> Error {
    let (name, text) = (&column.name, String::from_utf8_lossy(value.text()));
    Error::new(code, format!("column \"{name}\" has the value {text}, which is none in Parquet"))
        .hint(format!("Write NULL in its place, as NULLIF does, or the column as text: \"{name}\"::text."))
}

fn failed(why: Failed) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("the Parquet file could not be written: {why}"))
}
