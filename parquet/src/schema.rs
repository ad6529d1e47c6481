//! The schema of a file: how each kind of cell is stored, and what it means.

use crate::cell::{Column, Kind, MAX_PRECISION};
use crate::failed::Failed;
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::schema::types::Type;
use std::sync::Arc;

/// The size of a UUID, and of a decimal of more than 18 digits, in bytes.
pub const LONG: usize = 16;

/// How cells are stored.
pub fn physical(kind: Kind) -> Physical {
    match kind {
        Kind::Bool => Physical::BOOLEAN,
        Kind::Int32 | Kind::Date => Physical::INT32,
        Kind::Int64 | Kind::Time | Kind::Timestamp | Kind::Instant => Physical::INT64,
        Kind::Float32 => Physical::FLOAT,
        Kind::Float64 => Physical::DOUBLE,
        Kind::Decimal { precision: ..=9, .. } => Physical::INT32,
        Kind::Decimal { precision: ..=18, .. } => Physical::INT64,
        Kind::Decimal { .. } | Kind::Uuid => Physical::FIXED_LEN_BYTE_ARRAY,
        Kind::Text | Kind::Json | Kind::Bytes => Physical::BYTE_ARRAY,
    }
}

fn logical(kind: Kind) -> Option<LogicalType> {
    Some(match kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Float32 | Kind::Float64 | Kind::Bytes => return None,
        Kind::Date => LogicalType::Date,
        Kind::Time => LogicalType::time(false, TimeUnit::MICROS),
        Kind::Timestamp => LogicalType::timestamp(false, TimeUnit::MICROS),
        Kind::Instant => LogicalType::timestamp(true, TimeUnit::MICROS),
        Kind::Decimal { precision, scale } => LogicalType::decimal(scale.into(), precision.into()),
        Kind::Text => LogicalType::String,
        Kind::Json => LogicalType::Json,
        Kind::Uuid => LogicalType::Uuid,
    })
}

/// A row of these columns.
pub fn of(columns: &[Column]) -> Result<Type, Failed> {
    let fields = columns.iter().map(|column| field(column).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    Ok(Type::group_type_builder("row").with_fields(fields).build()?)
}

fn field(column: &Column) -> Result<Type, Failed> {
    let kind = column.kind;
    let mut field = Type::primitive_type_builder(&column.name, physical(kind))
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical(kind));
    if physical(kind) == Physical::FIXED_LEN_BYTE_ARRAY {
        field = field.with_length(LONG as i32);
    }
    if let Kind::Decimal { precision, scale } = kind {
        if !(1..=MAX_PRECISION).contains(&precision) {
            return Err(Failed(format!("a decimal of {precision} digits")));
        }
        field = field.with_precision(precision.into()).with_scale(scale.into());
    }
    Ok(field.build()?)
}
