//! How often a service is asked.

/// How often a service is asked that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tries {
    /// One: the caller asks again later.
    One,
    /// Several, with a longer wait each time.
    Several,
}
