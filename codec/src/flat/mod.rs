//! Resources as flat rows: a column for each path to a string, number or boolean, such as `name.0.given.0`, as CSV.
//!
//! The columns are those of all rows, so all rows are read twice: [`Columns`] collects the paths, then [`Table`] writes the
//! rows. The memory depends on the number of columns, and not on that of rows.

mod leaves;
mod paths;
mod problem;
mod table;

pub use problem::Problem;
pub use table::{Columns, Table};
