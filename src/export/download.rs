//! `bulk_export_file`: a file that an export wrote, for whoever has its signed URL.

use super::{location, signer};
use crate::arguments::required;
use crate::error::{Error, Result, or_raise};
use crate::pg::datum::Bytea;
use crate::pg::session;
use pgrx::PgSqlErrorCode;
use pgrx::prelude::*;
use std::fs::File;
use std::io::Read;

/// How many bytes a row has, but for the last one.
const CHUNK_BYTES: u64 = 256 << 10;

/// The bytes of a file in pieces.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_export_file(url: Option<&str>) -> SetOfIterator<'static, Bytea> {
    let mut file = or_raise(required(url, "url").and_then(open));
    let mut chunk = Vec::new();
    SetOfIterator::new(std::iter::from_fn(move || or_raise(next(&mut file, &mut chunk))))
}

fn open(url: &str) -> Result<File> {
    let file = signer().verify(url, session::unix_time())?;
    location()?.open(file.job, file.name)
}

fn next(file: &mut File, chunk: &mut Vec<u8>) -> Result<Option<Bytea>> {
    chunk.clear();
    file.take(CHUNK_BYTES).read_to_end(chunk).map_err(|error| {
        Error::new(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not read the exported file: {error}"))
    })?;
    Ok((!chunk.is_empty()).then(|| Bytea::new(chunk)))
}
