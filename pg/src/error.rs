//! Errors as users see them: SQLSTATE, a message that names the thing, DETAIL with the place, HINT with the remedy. Each
//! module makes its own errors; this file reports them to PostgreSQL.

use crate::whole;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder};
use std::panic::AssertUnwindSafe;

/// An error to be reported to the client.
#[derive(Debug)]
pub struct Error {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    reason: Option<String>,
    position: Option<i32>,
    /// Whether PostgreSQL or an extension raised it, or another server.
    is_raised: bool,
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its SQLSTATE and primary message.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            detail: None,
            hint: None,
            reason: None,
            position: None,
            is_raised: false,
        }
    }

    /// Adds the DETAIL: where it happened.
    pub fn detail(mut self, detail: impl Into<String>) -> Error {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the DETAIL if there is none yet.
    pub fn detail_if_none(self, detail: impl Into<String>) -> Error {
        if self.detail.is_some() { self } else { self.detail(detail) }
    }

    /// Adds the HINT: what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the reason without the name of the thing, for places that show the name elsewhere.
    pub fn with_reason(mut self, reason: impl Into<String>) -> Error {
        self.reason = Some(reason.into());
        self
    }

    /// Puts what it is about before the message.
    pub fn about(self, what: &str) -> Error {
        Error { message: format!("{what}: {}", self.message), ..self }
    }

    /// Adds the position in the client's statement, in characters from 1. It needs [`reporting`](whole::reporting).
    pub fn at(self, position: Option<i32>) -> Error {
        Error { position, ..self }
    }

    /// An error for an argument that is not allowed (22023).
    pub fn invalid_argument(message: impl Into<String>) -> Error {
        Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// An error that another server has reported.
    pub fn of_another_server(self) -> Error {
        Error { is_raised: true, ..self }
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The reason without the name of the thing: `403: Forbidden` of `could not read https://…: 403: Forbidden`.
    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or(&self.message)
    }

    /// The SQLSTATE.
    pub fn code(&self) -> PgSqlErrorCode {
        self.code
    }

    /// The SQLSTATE, five characters.
    pub fn sqlstate(&self) -> String {
        unpack_sqlstate(self.code as i32)
    }

    /// Whether another server that has a part of a table is down, or has ended the connection: raised in this process, it
    /// cannot be about this process's own client.
    pub fn is_of_server_away(&self) -> bool {
        let state = self.sqlstate();
        self.is_raised && (state.starts_with("08") || state.starts_with("57P0"))
    }

    /// Reports the error to PostgreSQL, which ends the statement.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.code, self.message, "fhir_bulk");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        if let Some(position) = self.position {
            whole::place_next_error(self.code, position);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

/// Converts an error of PostgreSQL or a panic that a worker caught in order to go on.
impl From<CaughtError> for Error {
    fn from(caught: CaughtError) -> Error {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = caught;
        Error {
            code: report.sql_error_code(),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            hint: report.hint().map(str::to_owned),
            reason: None,
            position: None,
            is_raised: true,
        }
    }
}

/// Returns the value, or raises the error: for the SQL function of an operation.
pub fn or_raise<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| error.raise())
}

/// Runs `work`. An error that PostgreSQL raises in it becomes an `Err`, which the caller must raise again, or end the
/// transaction for.
///
/// # Errors
/// The errors of `work`, and those that PostgreSQL raises.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    PgTryBuilder::new(AssertUnwindSafe(work)).catch_others(|error| Err(Error::from(error))).execute()
}

/// The five characters of an error code.
fn unpack_sqlstate(code: i32) -> String {
    // PGUNSIXBIT: six bits per character, the first one in the lowest bits (elog.h).
    (0..5).map(|at| (((code >> (6 * at)) & 0x3F) as u8 + b'0') as char).collect()
}
