//! What can be wrong with a view, and with a resource under a view.

use std::fmt;

/// Why a ViewDefinition cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What is wrong.
    pub message: String,
    /// The element of the view: `select[0].column[2].path`; empty for the view itself.
    pub element: String,
    /// The byte of the element's expression at which it was noticed, where that is known.
    pub at: Option<usize>,
    /// The way out, where there is one to tell.
    pub hint: Option<String>,
}

impl Invalid {
    pub(crate) fn new(element: &str, message: impl Into<String>) -> Invalid {
        Invalid { message: message.into(), element: element.to_owned(), at: None, hint: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Invalid {
        Invalid { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.element.is_empty() {
            write!(f, "{}: ", self.element)?;
        }
        f.write_str(&self.message)?;
        self.at.map_or(Ok(()), |at| write!(f, " at byte {at}"))
    }
}

impl std::error::Error for Invalid {}

/// Why a resource has no rows under a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// What is wrong with it.
    pub problem: Problem,
    /// The element of the view.
    pub element: String,
}

/// What is wrong with a resource under a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A path of a column that is not a collection has several values.
    SeveralValues {
        /// The column.
        column: String,
    },
    /// A path of `where` has a value that is not a boolean, or several values.
    NotBoolean,
    /// A path looked at too many items of the resource, or computed too much of them.
    TooMuch,
}
