//! COPY … FROM: loads bytes from the client, or from a file or program of the server.

use super::end;
use super::options::{Format, Options};
use crate::extension;
use crate::load::{Batch, Load, OnError, Plan, Position, answer};
use crate::source::{self, Source};
use crate::store::{ResourceTable, ResourceType, type_of_table};
use fhir_bulk_pg::client;
use fhir_bulk_pg::copy::{Copy, End};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::progress::{self, Copying, Work};
use fhir_bulk_pg::session;
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode, pg_sys};
use serde_json::Value;
use std::cell::RefCell;

/// How often progress is shown.
const LINES_PER_LOOK: u64 = 1024;

thread_local! {
    /// The result of the session's last COPY FROM, and the role that ran it.
    static LAST: RefCell<Option<(pg_sys::Oid, Value)>> = const { RefCell::new(None) };
}

/// The result of the last `COPY … FROM` in one of our formats, in this session and by this role, in the form of `bulk_load`. NULL
/// before the first one, and after one that failed.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_load_result() -> Option<JsonB> {
    let own = |(role, answer): &(pg_sys::Oid, Value)| (*role == session::role()).then(|| JsonB(answer.clone()));
    LAST.with_borrow(|last| last.as_ref().and_then(own))
}

/// Forgets the result of the last COPY FROM.
pub fn forget_last() {
    LAST.set(None);
}

/// The target of the lines.
struct Target {
    relation: pg_sys::Oid,
    /// `None` for `bulk_resource`: each type has its own table.
    table: Option<ResourceTable>,
    resource_type: Option<ResourceType>,
}

/// 1. check that the transaction may write, and that the role may read the file or run the program
/// 2. find the table and its type
/// 3. store all lines; if they come from the client, ask for them when the table is open
pub fn run(copy: &Copy<'_>, mut options: Options) -> Result<u64> {
    if options.format == Format::Ndjson {
        return Err(Copy::unsupported("format ndjson is for COPY TO")
            .hint("The formats fhir and aidbox read resources, one JSON object per line."));
    }
    session::prevent_if_read_only(c"COPY FROM");
    end::check(copy.end(), true)?;
    let target = target(copy, options.resource_type.take())?;
    match copy.end() {
        End::Client => client::copy_in(|data| store(copy, target, source::client::source(data), options))?,
        End::File(name) => {
            let file = source::file::of_path(&name.to_string_lossy(), &end::path(name))?;
            store(copy, target, file, options)
        }
        End::Program(command) => {
            let output = source::program::open(&command.to_string_lossy())?;
            store(copy, target, output, options)
        }
    }
}

fn store(copy: &Copy<'_>, target: Target, source: Source, options: Options) -> Result<u64> {
    let Target { relation, table, resource_type } = target;
    let read = source.progress.clone();
    let typed = resource_type.is_some() || table.is_some();
    let (skips, compares) = (options.load.on_error != OnError::Abort, options.load.known.skips_unchanged());
    let plan = Plan {
        resource_type,
        table,
        fhir: options.format == Format::Fhir,
        options: options.load,
        mistaken: Some(if skips { never_a_line } else { mistaken }),
        share: None,
        start: Position::default(),
        txid: None,
    };
    let mut load = Load::start(source, plan)?;
    let work = Work::Copy { relation, through: end::through(copy.end()) };
    progress::show(Copying::From { read_bytes: 0, all_bytes: None }, 0, work);
    let Batch { counts, unchanged, .. } = load.batch(|lines, _| {
        if lines % LINES_PER_LOOK == 1 {
            let copying = Copying::From { read_bytes: read.read_bytes(), all_bytes: read.total_bytes() };
            progress::show(copying, lines - 1, work);
        }
        false
    })?;
    let errors = load.finish();
    progress::end();
    if let Some(errors) = errors.filter(|errors| *errors > 0) {
        let lines = if errors == 1 { "1 line was" } else { &format!("{errors} lines were") };
        pgrx::notice!("{lines} not loaded; SELECT * FROM bulk_load_reject shows why");
    }
    LAST.set(Some((session::role(), answer(&counts, typed, compares.then_some(unchanged), errors))));
    Ok(counts.values().sum())
}

fn target(copy: &Copy<'_>, resource_type: Option<ResourceType>) -> Result<Target> {
    let relation = copy.lock_relation();
    if extension::is_own_relation(relation, c"bulk_resource") {
        return Ok(Target { relation, table: None, resource_type });
    }
    if resource_type.is_some() {
        return Err(Copy::unsupported("option RESOURCE_TYPE is for COPY bulk_resource FROM")
            .hint("The name or the rows of a table tell its type."));
    }
    let table = ResourceTable::at(relation)?;
    let resource_type = type_of_table(&table);
    Ok(Target { relation, table: Some(table), resource_type })
}

/// The error for a first line that looks like data in another format, and for lines of [`never_a_line`].
fn mistaken(number: u64, line: &[u8]) -> Option<Error> {
    let looks_like = match line.trim_ascii() {
        _ if number > 1 => None,
        [b'{' | b'[', ..] => None,
        line if line.contains(&b'\t') => Some("COPY's text format"),
        line if line.contains(&b',') => Some("CSV"),
        _ => None,
    };
    never_a_line(number, line).or_else(|| looks_like.map(looks))
}

/// The error for a line which shows that all the data is in another format, or is a psql script. It ends the COPY, even if bad
/// lines may be skipped.
fn never_a_line(number: u64, line: &[u8]) -> Option<Error> {
    if line.trim_ascii() == b"\\." {
        let message = format!("line {number} of the data is \\., which does not end the data in this format");
        return Some(bad_format(message).hint(
            "A psql script cannot hold the data. Use \\copy FROM 'file', or COPY FROM STDIN with the data as psql's input.",
        ));
    }
    (number == 1 && line.starts_with(b"PGCOPY")).then(|| looks("COPY's binary format"))
}

fn looks(like: &str) -> Error {
    bad_format(format!("the data looks like {like}, not like NDJSON")).hint(
        "The formats fhir and aidbox read resources, one JSON object per line. Leave out FORMAT to copy rows of columns.",
    )
}

fn bad_format(message: String) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_BAD_COPY_FILE_FORMAT, message)
}
