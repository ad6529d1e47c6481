//! The half of a load that needs no PostgreSQL, on a thread of its own: gzip, lines, JSON text into jsonb bytes. While
//! the backend writes rows, the next ones are made.
//!
//! The backend [takes](Feed::take) [chunks](Chunk) of rows and, where the thread can't read the [source](Source) by itself,
//! [gives](Feed::give) it blocks; both ways are bounded, so that memory is the same for any source. It never waits inside: [`Feed::wake_fd`] becomes readable when
//! there is something to take or room to give.
#![forbid(unsafe_code)]

mod chunk;
mod failure;
mod feed;
mod maker;
mod pace;

pub use chunk::{Chunk, Item, Refusal, Refused, Row};
pub use failure::Failure;
pub use feed::{Blocks, Event, Feed, Source};
pub use fhir_bulk_codec::ndjson::{Change, Position};
pub use maker::Plan;
pub use pace::Pace;
