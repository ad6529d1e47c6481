//! `bulk_dump`, `dump_csv` and what returns their bodies in chunks.

mod chunks;
mod csv;
mod rows;
mod seeds;
mod stream;
mod tables;
mod time;
mod waits;
mod workers;
