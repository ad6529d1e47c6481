//! Why a row has no place in a table.

/// The reason for which a row has no place in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The `resource` is a jsonb array or scalar.
    NotAnObject,
    /// The rows have more columns than this.
    TooManyColumns {
        /// The most columns.
        limit: usize,
    },
    /// The names of the columns are longer than this.
    NamesTooLong {
        /// How many bytes they may take.
        limit: usize,
    },
    /// A path that was not there when the columns were collected, in this member of the resource.
    NewPath(String),
}
