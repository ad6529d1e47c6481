//! The result of an export, which the queue stores with its task.

use super::written::Written;
use serde::{Deserialize, Serialize};

/// The result of an export.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    /// The folder of its files.
    pub folder: String,
    /// In microseconds since 2000-01-01T00:00:00Z.
    pub transaction_time: i64,
    /// Files with their types, or with the names of their subjects; the type is empty for a file of all types.
    pub output: Vec<(String, Written)>,
    /// Bundles of deletions.
    pub deleted: Vec<Written>,
    /// OperationOutcomes.
    #[serde(default)]
    pub error: Vec<Written>,
}
