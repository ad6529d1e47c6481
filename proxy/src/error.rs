//! Errors as callers see them: a status and a message. This file maps SQLSTATEs to statuses.

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio_postgres::error::{DbError, ErrorPosition};

/// An error response. `observe` writes it in the form of the API that was called.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// The message for the caller.
    pub message: String,
    /// The code of the error in OAuth's terms, where it is one of these.
    pub code: Option<&'static str>,
    /// The parameter that is wrong, if that is known: the `expression` of the response.
    pub parameter: Option<String>,
    /// The code of HL7's issue-type value set, if the status alone does not tell it.
    pub issue: Option<&'static str>,
    /// The cause, only for the log.
    pub cause: Option<Box<str>>,
    /// After how many seconds the caller may try again, if that is known.
    pub retry_after: Option<u64>,
}

/// The result of a handler.
pub type Result<T> = std::result::Result<T, Problem>;

/// The message for every failed login, so that it does not reveal the reason.
pub const WRONG_PASSWORD: &str = "unknown role or wrong password";

/// The routine in errors that the extension itself raises.
const OUR_ROUTINE: &str = "fhir_bulk";

/// What may have caused an error of the database. It decides what the caller sees of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The arguments of the request.
    Request,
    /// The resources in the request, or their source.
    Data,
    /// An SQL query of the caller, who may see its errors.
    Query,
}

impl Problem {
    /// A problem with its status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Problem {
        let message = message.into();
        Problem { status, message, code: None, parameter: None, issue: None, cause: None, retry_after: None }
    }

    /// A request that cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, message)
    }

    /// A parameter with a wrong value. `what` goes on after its name: "is empty".
    pub fn parameter(name: &str, what: &str) -> Problem {
        Problem::bad_request(format!("the parameter {name} {what}")).at(name)
    }

    /// Adds the parameter that is wrong.
    pub fn at(self, parameter: &str) -> Problem {
        Problem { parameter: Some(parameter.to_owned()), ..self }
    }

    /// Missing or wrong credentials.
    pub fn unauthorized(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, message)
    }

    /// The database cannot be reached now.
    pub fn unavailable(cause: impl ToString) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached now").because(cause)
    }

    /// Too many wrong passwords.
    pub fn slowed(wait: Duration) -> Problem {
        let message = "too many wrong passwords for this role; wait, then try again";
        Problem::busy(StatusCode::TOO_MANY_REQUESTS, message, wait)
    }

    /// A problem that is over after some time.
    pub fn busy(status: StatusCode, message: impl Into<String>, wait: Duration) -> Problem {
        // Rounded up, so that a retry at that time succeeds.
        Problem { retry_after: Some(wait.as_secs() + 1), ..Problem::new(status, message) }
    }

    /// Adds the cause for the log.
    pub fn because(mut self, cause: impl ToString) -> Problem {
        self.cause = Some(printable(&cause.to_string()).into());
        self
    }

    /// The code of HL7's issue-type value set that fits the status best.
    pub fn issue_type(&self) -> &'static str {
        if let Some(issue) = self.issue {
            return issue;
        }
        match self.status.as_u16() {
            400 => "invalid",
            401 => "login",
            403 => "forbidden",
            404 => "not-found",
            405 | 406 | 415 | 501 | 505 => "not-supported",
            408 => "timeout",
            409 => "conflict",
            413 => "too-long",
            422 => "processing",
            429 => "throttled",
            503 => "transient",
            _ => "exception",
        }
    }

    /// An error of a statement.
    pub fn of_statement(error: &tokio_postgres::Error, blame: Blame) -> Problem {
        let Some(error) = error.as_db_error() else { return Problem::unavailable(error) };
        let is_ours = error.routine() == Some(OUR_ROUTINE);
        // An error in a load's arguments, and not in a line of its source, is the request's mistake.
        let blame = match blame {
            Blame::Data if is_ours && error.code().code() == "22023" && !error.message().starts_with("line ") => {
                Blame::Request
            }
            // What keeps an export of a query from starting is no mistake of the query.
            Blame::Query if is_ours && ["53400", "55000"].contains(&error.code().code()) => Blame::Request,
            blame => blame,
        };
        match status(error.code().code(), is_ours, blame) {
            StatusCode::SERVICE_UNAVAILABLE => {
                let message = "the database cannot do this now; try again later";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).because(in_full(error))
            }
            StatusCode::INTERNAL_SERVER_ERROR => {
                let message = "the database failed to do this; the log of the proxy says why";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message).because(in_full(error))
            }
            status => {
                let parameter = is_ours.then(|| search_parameter(error.message())).flatten();
                // A hint about a value goes to the caller; a hint about rights and settings goes to the log.
                let takes_hint = blame == Blame::Query || parameter.is_some() || error.code().code().starts_with("22");
                let hint = error.hint().filter(|_| !takes_hint).map(|hint| format!(": {hint}")).unwrap_or_default();
                let is_unsupported = is_ours && error.code().code() == "0A000" && status == StatusCode::BAD_REQUEST;
                Problem {
                    parameter: parameter.map(str::to_owned),
                    issue: is_unsupported.then_some("not-supported"),
                    ..Problem::new(status, for_callers(error, takes_hint))
                }
                .because(format!("{}{hint}", error.code().code()))
            }
        }
    }

    /// An error when a role that the caller named logs in to the database.
    pub fn of_login(error: &tokio_postgres::Error) -> Problem {
        let Some(database_error) = error.as_db_error() else { return Problem::unavailable(error) };
        match database_error.code().code() {
            "28P01" | "28000" => Problem::unauthorized(WRONG_PASSWORD),
            "42501" => Problem::new(StatusCode::FORBIDDEN, "this role may not connect to the database"),
            _ => Problem::unavailable(error),
        }
        .because(in_full(database_error))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.cause.iter().try_for_each(|cause| write!(f, " ({cause})"))
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// How many characters of a text the log shows.
const MOST_SHOWN: usize = 2000;

/// A text made safe for the log: on one line, in one direction, and of limited length.
pub fn printable(text: &str) -> String {
    // Control characters, line separators, invisible characters, and those that change the direction of text.
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == MOST_SHOWN {
            shown.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => shown.extend(c.escape_default()),
            _ if hides(c) => shown.extend(c.escape_unicode()),
            _ => shown.push(c),
        }
    }
    shown
}

/// The status of an SQLSTATE. `is_ours` means that the extension raised it, about the arguments of its function. Other
/// errors may come from any trigger or policy, and may reveal what the caller must not know.
fn status(code: &str, is_ours: bool, blame: Blame) -> StatusCode {
    match (code, blame) {
        ("42501" | "25006", _) => return StatusCode::FORBIDDEN,
        // A resource type without a table, an unknown job, a removed file.
        ("42P01" | "58P01" | "P0002", Blame::Request) if is_ours => return StatusCode::NOT_FOUND,
        ("23505" | "40001" | "40P01" | "42710" | "55P03", _) => return StatusCode::CONFLICT,
        // The role has too many jobs. For others' errors of this kind it is not known whether they are temporary.
        ("53400", Blame::Request) if is_ours => return StatusCode::TOO_MANY_REQUESTS,
        ("53400" | "54000", _) => return StatusCode::PAYLOAD_TOO_LARGE,
        // More than the role may have stored, not a disk that is full.
        ("53100", Blame::Request) if is_ours => return StatusCode::PAYLOAD_TOO_LARGE,
        // The server is not set up for it: it has no location for exports.
        ("55000", Blame::Request) if is_ours => return StatusCode::NOT_IMPLEMENTED,
        _ => {}
    }
    match (code.get(..2).unwrap_or_default(), blame) {
        ("42", Blame::Request | Blame::Data) if !is_ours => StatusCode::INTERNAL_SERVER_ERROR,
        // An error in the source; the request itself is valid.
        ("08" | "0A" | "22" | "23" | "42" | "54" | "58" | "P0", Blame::Data) => StatusCode::UNPROCESSABLE_ENTITY,
        ("0A" | "22" | "23" | "42" | "54" | "P0", Blame::Request) => StatusCode::BAD_REQUEST,
        ("53" | "57" | "58", _) => StatusCode::SERVICE_UNAVAILABLE,
        ("XX", _) | (_, Blame::Request | Blame::Data) => StatusCode::INTERNAL_SERVER_ERROR,
        // Any other error in a query is a mistake of its author.
        (_, Blame::Query) => StatusCode::BAD_REQUEST,
    }
}

/// Message, detail and perhaps the hint; never the context, the statement or names of source files.
fn for_callers(error: &DbError, with_hint: bool) -> String {
    let mut text = error.message().to_owned();
    if let Some(ErrorPosition::Original(at) | ErrorPosition::Internal { position: at, .. }) = error.position() {
        let _ = write!(text, " (at character {at} of the query)");
    }
    for more in [error.detail(), error.hint().filter(|_| with_hint)].into_iter().flatten() {
        let _ = write!(text, ". {}", more.trim_end_matches('.'));
    }
    text
}

/// The name in an error about a search query, `search parameter "NAME": …`; of an error about the query as a whole, the
/// parameter of requests that has it.
fn search_parameter(message: &str) -> Option<&str> {
    if message.starts_with("the filter is refused: ") {
        return Some("_filter");
    }
    Some(message.strip_prefix("search parameter \"")?.split_once("\": ")?.0)
}

fn in_full(error: &DbError) -> String {
    format!("{}: {}", error.code().code(), for_callers(error, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_shows_stays_on_its_line() {
        assert_eq!(printable("a\nb\r\t\u{1b}[31m\u{202e}é\u{2066}"), r"a\nb\r\t\u{1b}[31m\u{202e}é\u{2066}");
        assert_eq!(printable(&"x".repeat(100_000)).chars().count(), MOST_SHOWN + 1);
    }

    #[test]
    fn an_error_about_a_search_parameter_names_it() {
        assert_eq!(search_parameter(r#"search parameter "code:in": it is not supported"#), Some("code:in"));
        assert_eq!(search_parameter("the filter is refused: it has 65537 bytes"), Some("_filter"));
        assert_eq!(search_parameter(r#"the search parameter "a": b"#), None);
        assert_eq!(search_parameter(r#"search parameter "a" is odd"#), None);
    }

    #[test]
    fn a_status_says_whose_mistake_it_is() {
        let of = |code: &str, is_ours, blame| status(code, is_ours, blame).as_u16();
        assert_eq!(of("42P01", true, Blame::Request), 404);
        assert_eq!(of("42P01", false, Blame::Request), 500);
        assert_eq!(of("42P01", false, Blame::Data), 500);
        assert_eq!(of("42P01", false, Blame::Query), 400);
        assert_eq!(of("42601", false, Blame::Query), 400);
        assert_eq!(of("42883", false, Blame::Request), 500);
        assert_eq!(of("42703", true, Blame::Request), 400);
        assert_eq!(of("22P02", false, Blame::Request), 400);
        assert_eq!(of("22P02", true, Blame::Data), 422);
        assert_eq!(of("08006", true, Blame::Data), 422);
        assert_eq!(of("08006", true, Blame::Request), 500);
        assert_eq!(of("54000", true, Blame::Data), 413);
        assert_eq!(of("53400", true, Blame::Request), 429);
        assert_eq!(of("53400", false, Blame::Request), 413);
        assert_eq!(of("55000", true, Blame::Request), 501);
        assert_eq!(of("23505", false, Blame::Request), 409);
        assert_eq!(of("57014", false, Blame::Request), 503);
        assert_eq!(of("XX000", true, Blame::Request), 500);
    }
}
