//! The cells of one column in one row group.

use crate::cell::{Cell, Kind};
use crate::failed::Failed;
use crate::schema::{LONG, physical};
use parquet::basic::Type as Physical;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
};
use parquet::file::writer::SerializedColumnWriter;
use std::mem::{size_of, take};

/// How many strings are handed over at a time.
const BATCH: usize = 1024;

/// The cells of a column, and which rows have one.
pub struct Buffer {
    /// 1 for a cell, 0 for null.
    levels: Vec<i16>,
    cells: Cells,
}

enum Cells {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    /// All strings, and where each ends.
    Strings(Vec<u8>, Vec<usize>),
    /// Strings of [`LONG`] bytes.
    Long(Vec<u8>),
}

impl Buffer {
    pub fn new(kind: Kind) -> Buffer {
        let cells = match physical(kind) {
            Physical::BOOLEAN => Cells::Bool(Vec::new()),
            Physical::INT32 => Cells::Int32(Vec::new()),
            Physical::INT64 => Cells::Int64(Vec::new()),
            Physical::FLOAT => Cells::Float32(Vec::new()),
            Physical::DOUBLE => Cells::Float64(Vec::new()),
            Physical::FIXED_LEN_BYTE_ARRAY => Cells::Long(Vec::new()),
            Physical::BYTE_ARRAY | Physical::INT96 => Cells::Strings(Vec::new(), Vec::new()),
        };
        Buffer { levels: Vec::new(), cells }
    }

    /// Adds a cell. Returns how many bytes it takes.
    #[inline]
    pub fn push(&mut self, cell: Cell<'_>) -> usize {
        if cell == Cell::Null {
            self.levels.push(0);
            return size_of::<i16>();
        }
        self.levels.push(1);
        let size = match (&mut self.cells, cell) {
            (Cells::Bool(cells), Cell::Bool(cell)) => put(cells, cell),
            (Cells::Int32(cells), Cell::Int(cell)) => put(cells, cell.try_into().expect("a number of 32 bits")),
            (Cells::Int64(cells), Cell::Int(cell)) => put(cells, cell),
            (Cells::Float32(cells), Cell::Float(cell)) => put(cells, cell as f32),
            (Cells::Float64(cells), Cell::Float(cell)) => put(cells, cell),
            (Cells::Int32(cells), Cell::Decimal(cell)) => put(cells, cell.try_into().expect("a decimal of 9 digits")),
            (Cells::Int64(cells), Cell::Decimal(cell)) => put(cells, cell.try_into().expect("a decimal of 18 digits")),
            (Cells::Long(cells), Cell::Decimal(cell)) => put_bytes(cells, &cell.to_be_bytes()),
            (Cells::Long(cells), Cell::Bytes(cell)) => {
                assert_eq!(cell.len(), LONG, "the bytes of a UUID");
                put_bytes(cells, cell)
            }
            (Cells::Strings(cells, ends), Cell::Bytes(cell)) => put_bytes(cells, cell) + put(ends, cells.len()),
            (_, cell) => panic!("a cell of another kind than its column's: {cell:?}"),
        };
        size + size_of::<i16>()
    }

    /// Writes the cells, and forgets them.
    pub fn write(&mut self, chunk: &mut SerializedColumnWriter<'_>) -> Result<(), Failed> {
        let levels = &self.levels;
        match &mut self.cells {
            Cells::Bool(cells) => write::<BoolType>(chunk, cells, levels)?,
            Cells::Int32(cells) => write::<Int32Type>(chunk, cells, levels)?,
            Cells::Int64(cells) => write::<Int64Type>(chunk, cells, levels)?,
            Cells::Float32(cells) => write::<FloatType>(chunk, cells, levels)?,
            Cells::Float64(cells) => write::<DoubleType>(chunk, cells, levels)?,
            Cells::Strings(cells, ends) => {
                let mut ends = take(ends).into_iter();
                write_slices::<ByteArrayType>(chunk, take(cells), levels, || {
                    ends.next().expect("a string of each cell")
                })?;
            }
            Cells::Long(cells) => {
                let mut end = 0;
                write_slices::<FixedLenByteArrayType>(chunk, take(cells), levels, || {
                    end += LONG;
                    end
                })?;
            }
        }
        self.levels.clear();
        Ok(())
    }
}

fn put<T>(cells: &mut Vec<T>, cell: T) -> usize {
    cells.push(cell);
    size_of::<T>()
}

fn put_bytes(cells: &mut Vec<u8>, cell: &[u8]) -> usize {
    cells.extend_from_slice(cell);
    cell.len()
}

fn write<T: DataType>(
    chunk: &mut SerializedColumnWriter<'_>,
    cells: &mut Vec<T::T>,
    levels: &[i16],
) -> Result<(), Failed> {
    chunk.typed::<T>().write_batch(cells, Some(levels), None)?;
    cells.clear();
    Ok(())
}

/// Writes strings that share their memory. `end` says where the next one ends.
fn write_slices<T: DataType>(
    chunk: &mut SerializedColumnWriter<'_>,
    cells: Vec<u8>,
    levels: &[i16],
    mut end: impl FnMut() -> usize,
) -> Result<(), Failed>
where
    T::T: From<ByteArray>,
{
    let cells = ByteArray::from(cells);
    let mut start = 0;
    for levels in levels.chunks(BATCH) {
        let present = levels.iter().filter(|level| **level == 1);
        let values: Vec<T::T> = present
            .map(|_| {
                let (from, to) = (start, end());
                start = to;
                T::T::from(cells.slice(from, to - from))
            })
            .collect();
        chunk.typed::<T>().write_batch(&values, Some(levels), None)?;
    }
    Ok(())
}
