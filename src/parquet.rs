//! What is common to Parquet files of queries and of views: the columns and cells for PostgreSQL's types and values.

use fhir_bulk_parquet::{Cell, Column, Failed, Kind, MAX_PRECISION};
use fhir_bulk_pg::class::Class;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::value::{Content, INFINITE_DATES, INFINITE_TIMES, Value};
use pgrx::PgSqlErrorCode;

/// From 1970-01-01, where Parquet starts to count, to 2000-01-01, where PostgreSQL does.
const DAYS_TO_2000: i64 = 10_957;
const MICROS_TO_2000: i64 = DAYS_TO_2000 * DAY;
/// The microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// The kind of a column's cells.
pub fn kind(class: Class) -> Kind {
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

/// The cell of a value that is neither jsonb nor made of others; of these it is PostgreSQL's text.
///
/// # Errors
/// 22003 and 22008 for a value that has no place in the column.
pub fn cell<'a>(column: &Column, value: &Value<'a>) -> Result<Cell<'a>> {
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
        (Content::Timestamp(at) | Content::Timestamptz(at), _) => moment(at).ok_or_else(no_time)?,
        (Content::Uuid(bytes), _) => Cell::Bytes(bytes),
        (Content::Bytea(bytes), _) => Cell::Bytes(bytes.get()),
        (Content::Text(text) | Content::Json(text), _) => Cell::Bytes(text),
        _ => Cell::Bytes(value.text()),
    };
    Ok(cell)
}

/// The cell of a moment in microseconds since 2000-01-01T00:00:00; `None` for one that is infinite or too late.
pub fn moment(at: i64) -> Option<Cell<'static>> {
    let at = Some(at).filter(|at| !INFINITE_TIMES.contains(at));
    at.and_then(|at| at.checked_add(MICROS_TO_2000)).map(Cell::Int)
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
}

/// A file that could not be written.
pub fn failed(why: Failed) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("the Parquet file could not be written: {why}"))
}

/// A file is not asked for in lines: 22023.
pub fn no_lines(function: &str) -> Error {
    Error::invalid_argument("format parquet is binary, and has no lines").hint(format!("Call {function}()."))
}

/// A file is not asked for with gzip: 22023.
pub fn no_gzip() -> Error {
    Error::invalid_argument("format parquet is compressed in itself, and takes no gzip").hint("Leave out gzip.")
}
