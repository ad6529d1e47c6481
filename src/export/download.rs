//! `bulk_export_file` and `bulk_export_file_part`: return an exported file to a caller who has its signed URL.

use super::signature::{VALID_SECONDS, verify};
use super::target::Target;
use super::{NAME, signer};
use crate::arguments::required;
use crate::extension;
use crate::jobs;
use crate::settings;
use crate::sink::gone;
use fhir_bulk_pg::datum::Bytea;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::{session, spi};
use fhir_bulk_transfer::SignedFile;
use pgrx::PgSqlErrorCode;
use pgrx::prelude::*;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// How many bytes a row has. The last row may have fewer.
const CHUNK_BYTES: u64 = 256 << 10;
/// The most bytes in one part.
const MOST_BYTES: i32 = 64 << 20;

/// Returns the bytes of a file in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_export_file(url: Option<&str>) -> SetOfIterator<'static, Bytea> {
    let opened = required(url, "url").and_then(|url| open(&verify(&signer(), url, session::unix_time())?));
    let mut file = or_raise(opened);
    let mut chunk = Vec::new();
    SetOfIterator::new(std::iter::from_fn(move || or_raise(next(&mut file, &mut chunk))))
}

/// Returns at most `length` bytes of a file from byte `start` on, the size of the file, and a URL that is valid for another
/// hour. So a download that begins in time can go on, however long it takes.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_export_file_part(
    url: Option<&str>,
    start: Option<i64>,
    length: Option<i32>,
) -> TableIterator<'static, (name!(bytes, Vec<u8>), name!(file_bytes, i64), name!(next_url, String))> {
    let part = || {
        may_read_files()?;
        part(required(url, "url")?, required(start, "start")?, required(length, "length")?)
    };
    TableIterator::once(or_raise(part()))
}

/// Checks that the role may call `bulk_export_file`: whoever may read the whole file may read a part. The query finds the
/// function by its name, as GRANT does.
///
/// # Errors
/// 42501.
fn may_read_files() -> Result<()> {
    let query = c"SELECT p.oid::text FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass \
        AND d.objid = p.oid AND d.refobjid = $1 AND d.refclassid = 'pg_extension'::regclass \
        WHERE p.proname = 'bulk_export_file' AND has_function_privilege(p.oid, 'EXECUTE')";
    if !spi::catalog_texts(query, &[spi::Parameter::oid(extension::this_extension().oid)]).is_empty() {
        return Ok(());
    }
    let message = "permission denied for function bulk_export_file";
    Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
        .hint("GRANT EXECUTE ON FUNCTION bulk_export_file(text) TO ...; it also allows bulk_export_file_part()."))
}

fn part(url: &str, start: i64, length: i32) -> Result<(Vec<u8>, i64, String)> {
    let start = u64::try_from(start).map_err(|_| Error::invalid_argument("start is negative"))?;
    if !(1..=MOST_BYTES).contains(&length) {
        return Err(Error::invalid_argument(format!("length is not a number of bytes from 1 to {MOST_BYTES}")));
    }
    let (signer, now) = (signer(), session::unix_time());
    let signed = verify(&signer, url, now)?;
    let mut file = open(&signed)?;
    let mut bytes = Vec::new();
    let mut read = || -> io::Result<u64> {
        let all = file.metadata()?.len();
        file.seek(SeekFrom::Start(start))?;
        (&mut file).take(length.unsigned_abs().into()).read_to_end(&mut bytes)?;
        Ok(all)
    };
    let all = read().map_err(|error| unreadable(&error))?;
    Ok((bytes, all as i64, signer.sign(&settings::export::url(), &signed, now, VALID_SECONDS)))
}

/// Opens the file in the location of its export, even if the setting has changed since.
fn open(file: &SignedFile<'_>) -> Result<File> {
    match jobs::input(NAME, file.job) {
        Some(input) => Target::of(&input).location()?.open(file.job, file.name),
        None => Err(gone(file.job, file.name)),
    }
}

fn next(file: &mut File, chunk: &mut Vec<u8>) -> Result<Option<Bytea>> {
    chunk.clear();
    file.take(CHUNK_BYTES).read_to_end(chunk).map_err(|error| unreadable(&error))?;
    Ok((!chunk.is_empty()).then(|| Bytea::new(chunk)))
}

fn unreadable(error: &io::Error) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not read the exported file: {error}"))
}
