//! `bulk_load` from files of the server.

mod formats;
mod kinds;
mod new_tables;
mod own_tables;
mod stored;
mod transactions;
mod upsert;
