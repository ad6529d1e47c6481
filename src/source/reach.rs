//! How sources are reached.

use crate::settings::s3::Account;

/// How sources are reached.
#[derive(Clone, Default)]
pub struct Reach {
    /// How often failures that may be temporary are retried.
    pub retries: u32,
    /// What `s3://` means; `None` for the service and the key of the settings.
    pub account: Option<Account>,
}
