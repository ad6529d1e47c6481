//! What to measure.

use std::path::PathBuf;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder of `<Type>.ndjson` or `<Type>.ndjson.gz`, of which the largest is measured; else a sample is made.
    pub data: Option<PathBuf>,
    /// How many Observations the sample has.
    pub resources: u64,
    /// How often operation and baseline take turns.
    pub runs: usize,
    /// Only the rows whose name or baseline has this in it, and no memory rows; empty for all.
    pub only: String,
    /// How many bytes of NDJSON the memory rows move.
    pub memory_bytes: u64,
    /// How many small resources the scale rows compare with few; none without.
    pub scale: Option<u64>,
    /// A page whose figures are drawn, and nothing is measured.
    pub draw: Option<PathBuf>,
    /// Where the report, or the picture, is written.
    pub out: PathBuf,
}
