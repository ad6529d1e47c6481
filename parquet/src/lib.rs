//! Writes rows of typed cells as a Parquet file, in pieces.
//!
//! ```
//! use fhir_bulk_parquet::{Cell, Column, File, Kind};
//!
//! let column = |name: &str, kind| Column { name: name.to_owned(), kind };
//! let mut file = File::new(&[column("id", Kind::Text), column("born", Kind::Date)])?;
//! let mut written = Vec::new();
//! for (id, days) in [("p-1", Some(7305)), ("p-2", None)] {
//!     file.push(Cell::Bytes(id.as_bytes()));
//!     file.push(days.map_or(Cell::Null, Cell::Int));
//!     if file.end_row()? {
//!         file.take(&mut written); // a row group is complete
//!     }
//! }
//! file.finish()?;
//! file.take(&mut written);
//! assert!(written.starts_with(b"PAR1") && written.ends_with(b"PAR1"));
//! # Ok::<(), fhir_bulk_parquet::Failed>(())
//! ```
//!
//! Memory is that of one row group, and of the metadata of all, some 100 bytes for each column of each. All columns may have
//! nulls, and have statistics; pages are compressed with zstd.
#![forbid(unsafe_code)]

mod cell;
mod column;
mod failed;
mod file;
mod schema;

pub use cell::{Cell, Column, Kind, MAX_PRECISION};
pub use failed::Failed;
pub use file::File;
