//! What routes ask of tokens with scopes. A route that says nothing, or too little, is closed to them.

use axum::http::StatusCode;

use crate::error::{Problem, Result};
use crate::smart::scopes::{Permissions, SUBMIT, Scopes};

/// What a route asks of a token with scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It takes no token, or shows more to those who have one.
    Open,
    /// No scopes open it: what it reads or writes cannot be told from the request.
    Closed,
    /// Any scope: jobs are their client's own, which the database checks.
    OwnJob,
    /// The scope of submissions.
    Submit,
    /// This for the type in its path.
    OfType(Permissions),
    /// This for all types.
    OfAll(Permissions),
    /// This for one type at least. The handler narrows its work to such types.
    OfSome(Permissions),
}

/// How far the scopes of a request's token have been heeded.
pub enum Narrowing {
    /// They have been, or there are none.
    Done,
    /// The handler must still do it.
    Due(Scopes),
}

impl Need {
    /// Checks a token's scopes before its request is handled. `resource_type` is the type in the path.
    ///
    /// # Errors
    /// 403 with what it lacks.
    pub fn check(self, scopes: Scopes, resource_type: Option<&str>) -> Result<Narrowing> {
        match (self, resource_type) {
            (Need::OwnJob, _) => Ok(Narrowing::Done),
            (Need::Submit, _) if scopes.permit_submissions() => Ok(Narrowing::Done),
            (Need::Submit, _) => Err(lacks(SUBMIT)),
            (Need::OfType(needed), Some(name)) => require(&scopes, name, needed).map(|()| Narrowing::Done),
            (Need::OfAll(needed), _) => require_all(&scopes, needed).map(|()| Narrowing::Done),
            (Need::OfSome(needed), _) => match scopes.types(needed) {
                Some(types) if types.is_empty() => Err(lacks(&format!("a scope with .{needed}"))),
                _ => Ok(Narrowing::Due(scopes)),
            },
            (Need::Open | Need::Closed | Need::OfType(_), _) => {
                Err(Problem::new(StatusCode::FORBIDDEN, "a token with scopes does not open this address"))
            }
        }
    }
}

/// Checks that scopes permit something for a type.
///
/// # Errors
/// 403.
pub fn require(scopes: &Scopes, name: &str, needed: Permissions) -> Result<()> {
    if scopes.permit(name, needed) { Ok(()) } else { Err(lacks(&format!("system/{name}.{needed}"))) }
}

/// Checks that scopes permit something for all types.
///
/// # Errors
/// 403.
pub fn require_all(scopes: &Scopes, needed: Permissions) -> Result<()> {
    if scopes.permit_all(needed) { Ok(()) } else { Err(lacks(&format!("system/*.{needed}"))) }
}

fn lacks(what: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, format!("the scopes of the token do not permit this; it needs {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_must_narrow_its_work_is_told_so_and_others_are_closed() {
        let scopes = || Scopes::of_known("system/Patient.rs");
        let check = |need: Need, name| need.check(scopes(), name);
        assert!(matches!(check(Need::OfSome(Permissions::READ_ALL), None), Ok(Narrowing::Due(_))));
        assert!(matches!(check(Need::OfType(Permissions::READ), Some("patient")), Ok(Narrowing::Done)));
        assert!(matches!(check(Need::OwnJob, None), Ok(Narrowing::Done)));
        for (need, name) in [
            (Need::OfSome(Permissions::LOAD), None),
            (Need::OfType(Permissions::READ), Some("Group")),
            // A route whose path has no type.
            (Need::OfType(Permissions::READ), None),
            (Need::OfAll(Permissions::READ), None),
            (Need::Submit, None),
            (Need::Open, None),
            (Need::Closed, Some("Patient")),
        ] {
            assert!(matches!(check(need, name), Err(Problem { status: StatusCode::FORBIDDEN, .. })), "{need:?}");
        }
    }
}
