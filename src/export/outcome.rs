//! What an export came to, as its task keeps it.

use super::files::Written;
use serde::{Deserialize, Serialize};

/// What an export came to.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    /// The folder of its files.
    pub folder: String,
    /// In microseconds since 2000-01-01T00:00:00Z.
    pub transaction_time: i64,
    /// With the type of what is in them; nothing for a file of all types.
    pub output: Vec<(String, Written)>,
    /// Bundles of deletions.
    pub deleted: Vec<Written>,
    /// OperationOutcomes.
    #[serde(default)]
    pub error: Vec<Written>,
}
