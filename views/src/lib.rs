//! ViewDefinitions of SQL on FHIR over stored resources, without PostgreSQL: a [`View`] is compiled once, and makes rows of typed
//! cells of each resource's jsonb bytes, one by one.
//!
//! | module | contents |
//! |---|---|
//! | `compile` | a ViewDefinition → a [`View`] |
//! | `run` | a resource → its rows, as they are passed to [`Rows`] |
//! | [`cell`] | cells, and their text |
//! | [`rows`] | rows as CSV, JSON and `INSERT`s |
//!
//! A view is written by whoever may call it. Compiling it takes time and memory by its size; what nests or multiplies too much is
//! refused. Running it takes memory by the size of a resource, not by the number of its rows; [`Rows::tick`] may end it.
#![forbid(unsafe_code)]

pub mod cell;
mod column;
mod compile;
mod error;
mod plan;
pub mod rows;
mod run;
mod steps;

pub use cell::Cell;
pub use column::{Column, SqlType};
pub use error::{Invalid, Problem, RowError};
pub use plan::View;
pub use run::{Resources, Rows};
