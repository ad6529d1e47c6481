//! A file, written row by row.

use crate::cell::{Cell, Column};
use crate::column::Buffer;
use crate::failed::Failed;
use crate::schema;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use std::sync::Arc;

/// A row group ends when it has so many rows, as DuckDB has them.
const GROUP_ROWS: usize = 122_880;
/// Or when its cells take so many bytes.
const GROUP_BYTES: usize = 16 << 20;

/// A file that is being written.
pub struct File {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Buffer>,
    /// How many cells the current row has.
    at: usize,
    /// The complete rows of the current group, and how many bytes all its cells take.
    rows: usize,
    bytes: usize,
}

impl File {
    /// A file with these columns, which have different names.
    ///
    /// # Errors
    /// No columns, or a decimal with more digits after the point than it has.
    pub fn new(columns: &[Column]) -> Result<File, Failed> {
        if columns.is_empty() {
            return Err(Failed("a file needs a column".to_owned()));
        }
        let schema = schema::of(columns)?;
        let properties = WriterProperties::builder()
            .set_created_by(format!("fhir_bulk {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // The index of all pages would be kept until the end of the file.
            .set_offset_index_disabled(true)
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
        let columns = columns.iter().map(|column| Buffer::new(column.kind)).collect();
        Ok(File { writer, columns, at: 0, rows: 0, bytes: 0 })
    }

    /// Adds the next cell of the current row.
    ///
    /// # Panics
    /// The row has its cells already, or the column is of another kind.
    #[inline]
    pub fn push(&mut self, cell: Cell<'_>) {
        self.bytes += self.columns[self.at].push(cell);
        self.at += 1;
    }

    /// Ends the current row. Returns whether it was the last one of a row group, so that there are bytes to [`File::take`].
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// Cells are missing.
    pub fn end_row(&mut self) -> Result<bool, Failed> {
        assert_eq!(std::mem::take(&mut self.at), self.columns.len(), "a cell for each column");
        self.rows += 1;
        let is_full = self.rows == GROUP_ROWS || self.bytes >= GROUP_BYTES;
        if is_full {
            self.end_group()?;
        }
        Ok(is_full)
    }

    /// Ends the file, after the last row.
    ///
    /// # Errors
    /// Out of memory.
    pub fn finish(&mut self) -> Result<(), Failed> {
        if self.rows > 0 {
            self.end_group()?;
        }
        self.writer.finish()?;
        self.writer.flush().map_err(ParquetError::from)?;
        Ok(())
    }

    /// Appends what has been written since the last time.
    pub fn take(&mut self, out: &mut Vec<u8>) {
        let written = self.writer.inner_mut();
        out.append(written);
        written.shrink_to(0);
    }

    fn end_group(&mut self) -> Result<(), Failed> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let mut chunk = group.next_column()?.expect("a chunk for each column");
            column.write(&mut chunk)?;
            chunk.close()?;
        }
        group.close()?;
        self.writer.flush().map_err(ParquetError::from)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}
