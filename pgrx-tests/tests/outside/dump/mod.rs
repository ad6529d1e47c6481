//! `bulk_dump` and `bulk_dump_chunks`.

mod chunks;
mod rows;
mod seeds;
mod stream;
mod tables;
mod time;
mod waits;
