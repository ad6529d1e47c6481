//! Makes rows of a source's bytes on a thread of its own, without PostgreSQL: gzip, lines, JSON text to jsonb bytes. It
//! makes the next rows while the backend writes rows.
//!
//! The backend [takes](Feed::take) [chunks](Chunk) of rows. If the thread cannot read the [source](Source) itself, the
//! backend [gives](Feed::give) it blocks. Both queues are bounded, so that memory does not depend on the source. These calls
//! never wait: [`Feed::wake_fd`] becomes readable when there is something to take or room to give.
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
