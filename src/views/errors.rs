//! Errors of views as users see them.

use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::error::Error;
use fhir_bulk_views::{Invalid, Problem, RowError};
use pgrx::PgSqlErrorCode;

/// A view that cannot be compiled (22023): DETAIL has the element, and the byte of its expression.
pub fn invalid(invalid: Invalid) -> Error {
    let Invalid { message, element, at, hint } = invalid;
    let place = match (element.as_str(), at) {
        ("", _) => "It is about the view itself.".to_owned(),
        (element, None) => format!("It is about {element}."),
        (element, Some(at)) => format!("It is about {element}, at byte {at} of the expression."),
    };
    Error::invalid_argument(format!("invalid view: {message}")).detail(place).hint(hint.unwrap_or_else(|| {
        "A view is a ViewDefinition of SQL on FHIR; docs/views.md says what it may have.".to_owned()
    }))
}

/// A resource that has no rows under a view: 21000 for several values, 42804 for a `where` that is not a boolean, 54000 for too
/// much work.
pub fn of_row(error: RowError, resource: &Resource<'_>) -> Error {
    let RowError { problem, element } = error;
    let (code, message, hint) = match problem {
        Problem::SeveralValues { column } => (
            PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION,
            format!("column \"{column}\" has several values"),
            "Take one of them with first(), iterate over them with forEach, or make the column a collection.",
        ),
        Problem::NotBoolean => (
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            "a condition of the view is not one boolean".to_owned(),
            "Compare its values, or ask whether they exist().",
        ),
        Problem::TooMuch => (
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            "an expression of the view needs too much of one resource".to_owned(),
            "Iterate over its elements with forEach, instead of criteria within criteria.",
        ),
    };
    let place = if element.is_empty() { "the view".to_owned() } else { element };
    Error::new(code, message)
        .detail(format!("It is {place} of {} \"{}\".", resource.resource_type, resource.id))
        .hint(hint)
}
