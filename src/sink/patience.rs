//! How long to wait for a service.

/// How often a service is asked that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Once: the caller asks again later.
    Once,
    /// Some times.
    Some,
}
