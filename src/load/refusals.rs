//! Makes PostgreSQL errors of what the feed reports: lines that cannot be loaded, sources that cannot be read.

use crate::source;
use crate::store::ResourceType;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::jsonb::MAX_DEPTH;
use fhir_bulk_codec::ndjson::ReadError;
use fhir_bulk_codec::{LineError, Reason};
use fhir_bulk_feed::{Change, Failure, Position, Refusal};
use fhir_bulk_pg::error::Error;
use pgrx::PgSqlErrorCode;
use std::io;

/// The error for line `line` of a source. `expected` is the type that all lines must have.
pub fn of_line(source: &str, line: u64, why: &Refusal, expected: Option<&ResourceType>) -> Error {
    match why {
        Refusal::TooLong(limit) => unreadable(source, line, &ReadError::LineTooLong(*limit)),
        Refusal::Bad(error) => bad_line(source, line, error),
        Refusal::ForeignType(given) => {
            foreign_type(source, line, given, expected.map(ResourceType::as_str).unwrap_or_default())
        }
        Refusal::MissingType => missing_type(source, line),
        Refusal::InvalidType(name) => match ResourceType::new(name) {
            Err(error) => error.detail(place_of_type(source, line)),
            Ok(_) => missing_type(source, line),
        },
        Refusal::InvalidCreatedAt(text) => invalid_created_at(source, line, text),
    }
}

/// The DETAIL that says which line named a type first.
pub fn place_of_type(source: &str, line: u64) -> String {
    format!("The type is that of line {line} of {source}.")
}

/// The error for a source that could not be read to its end. An earlier load has stored the lines before `start`.
pub fn of_source(source: &str, failure: &Failure, start: Position) -> Error {
    match failure {
        Failure::Source { error, line } => unreadable(source, *line, error),
        Failure::Changed(change) => changed(source, *change, start),
        Failure::Lost => {
            Error::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("the thread that reads {source} is gone"))
        }
    }
}

fn changed(source: &str, change: Change, stored: Position) -> Error {
    let how = match change {
        Change::Shorter => "is shorter than when it was first read",
        Change::Other => "has changed since it was first read",
    };
    let Position { lines, bytes, .. } = stored;
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("{source} {how}"))
        .with_reason(format!("{source} {how}: its lines 1 to {lines} were imported as they were then"))
        .detail(format!("Its lines 1 to {lines}, {bytes} bytes, are stored as they were then."))
        .hint("Start a new job to import the source as it is now.")
}

fn unreadable(source: &str, line: u64, error: &ReadError) -> Error {
    match error {
        ReadError::LineTooLong(limit) => Error::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("line {line} of {source} is longer than {limit} bytes"),
        )
        .hint("Raise fhir_bulk.max_line_bytes if a resource may be this large."),
        ReadError::TooBlank(limit) => Error::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("line {line} of {source}: there are more than {limit} bytes of blank lines"),
        )
        .hint("Remove the blank lines."),
        ReadError::OutOfMemory(bytes) => {
            Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("out of memory for line {line} of {source}"))
                .detail(format!("The line takes at least {bytes} bytes."))
        }
        ReadError::Io(error) => unreadable_source(source, line, error),
    }
}

fn unreadable_source(source: &str, line: u64, error: &io::Error) -> Error {
    if let Some(error) = source::failure(source, error) {
        return error.detail_if_none(format!("Reading failed in line {line}."));
    }
    // The gzip decoder reports a bad stream by these kinds. The file system's errors have other kinds.
    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) {
        return Error::new(
            PgSqlErrorCode::ERRCODE_BAD_COPY_FILE_FORMAT,
            format!("line {line} of {source}: the gzip stream is truncated or corrupt"),
        )
        .detail(format!("{error}."))
        .hint("Check it with gzip -t.");
    }
    Error::new(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not read {source}: {error}"))
        .detail(format!("Reading failed in line {line}."))
}

fn foreign_type(source: &str, line: u64, given: &str, expected: &str) -> Error {
    let shown: String = given.chars().take(80).collect();
    Error::invalid_argument(format!("line {line} of {source}: a resource of type \"{shown}\", not \"{expected}\""))
        .hint("A source of mixed types takes bulk_load without resource_type, or COPY bulk_resource.")
}

fn missing_type(source: &str, line: u64) -> Error {
    Error::invalid_argument(format!("line {line} of {source}: the resource has no resourceType")).hint(
        "If all lines are of one type, bulk_load takes it as resource_type, and COPY bulk_resource as RESOURCE_TYPE.",
    )
}

fn invalid_created_at(source: &str, line: u64, text: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::new(
        PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT,
        format!("line {line} of {source}: createdAt \"{shown}\" is not an instant"),
    )
    .hint("An instant has a date, a time and an offset: 2021-06-10T08:26:10.707454Z")
}

/// The error for a line that is not a resource.
fn bad_line(source: &str, number: u64, error: &LineError) -> Error {
    let out = Error::new(sqlstate(error.reason), format!("line {number} of {source}: {}", error.reason))
        .detail(format!("The error is at byte {} of the line.", error.offset + 1));
    match hint(error.reason) {
        Some(hint) => out.hint(hint),
        None => out,
    }
}

fn sqlstate(reason: Reason) -> PgSqlErrorCode {
    match reason {
        Reason::Syntax(_) | Reason::TrailingData | Reason::LoneSurrogate => {
            PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION
        }
        Reason::Encoding => PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
        Reason::NulCharacter => PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
        Reason::NumberOverflow => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        Reason::TooDeep => PgSqlErrorCode::ERRCODE_STATEMENT_TOO_COMPLEX,
        Reason::TooLarge => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Reason::OutOfMemory => PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        Reason::NotAnObject
        | Reason::MissingId
        | Reason::IdNotString
        | Reason::InvalidId(_)
        | Reason::TypeNotString
        | Reason::MetaNotObject
        | Reason::CreatedAtNotString => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
    }
}

fn hint(reason: Reason) -> Option<String> {
    Some(match reason {
        Reason::TrailingData => "NDJSON has one resource on each line.".into(),
        Reason::Encoding => "NDJSON is UTF-8; convert the source first.".into(),
        Reason::TooDeep => format!("At most {MAX_DEPTH} levels of arrays and objects can be loaded."),
        Reason::NotAnObject => "Each line is one resource, a JSON object.".into(),
        Reason::MissingId | Reason::IdNotString => "Every resource needs an id, a string.".into(),
        Reason::InvalidId(IdRule::Fhir) => "A FHIR id has 1 to 64 letters, digits, '-' and '.'.".into(),
        Reason::InvalidId(IdRule::Aidbox) => "An id has 1 to 255 bytes and no control characters.".into(),
        _ => return None,
    })
}
