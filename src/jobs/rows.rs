//! What stands in the tables of jobs, as the rest of the house sees it.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A job to be added.
pub struct NewJob<'a> {
    /// Which [`Kind`](super::Kind) does it.
    pub kind: &'static str,
    /// Its owner's name for it, unique among the owner's jobs of the kind.
    pub id: &'a str,
    /// What was asked for.
    pub request: &'a Value,
    /// What each task works on; tasks are numbered from 1 in this order.
    pub inputs: &'a [Value],
}

/// A job of the current role, with its tasks.
#[derive(Deserialize)]
pub struct Job {
    /// What was asked for.
    pub request: Value,
    /// `active`, `finished`, `failed` or `cancelled`.
    pub status: String,
    /// Microseconds since 2000-01-01T00:00:00Z, as all times here.
    pub created_at: i64,
    pub ended_at: Option<i64>,
    /// In order.
    pub tasks: Vec<TaskState>,
}

/// How far a task is.
#[derive(Deserialize)]
pub struct TaskState {
    pub input: Value,
    /// `waiting`, `active`, `finished`, `failed` or `cancelled`.
    pub status: String,
    /// Resources that are committed.
    pub total: u64,
    /// Resources so far, those of the worker's current transaction too.
    pub seen: u64,
    /// Of the input as it is stored, so far.
    pub read_bytes: u64,
    pub all_bytes: Option<u64>,
    pub started_at: Option<i64>,
    pub changed_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub error: Option<String>,
    /// What [`Task::finish`](super::Task::finish) noted.
    pub result: Option<Value>,
}

/// A task that is not over.
#[derive(Deserialize)]
pub struct OpenTask {
    pub job: i64,
    pub number: i32,
}

/// A task as a worker takes it over.
#[derive(Deserialize)]
pub struct TaskRow {
    pub job: i64,
    pub number: i32,
    pub kind: String,
    pub id: String,
    /// Its owner's OID.
    pub role: u32,
    pub request: Value,
    pub settings: Map<String, Value>,
    pub input: Value,
    /// How many tasks the job has.
    pub tasks: i32,
    /// How many processes began it, this one included, since any of it was committed last.
    pub starts: i32,
    /// How far it is.
    #[serde(flatten)]
    pub committed: Committed,
}

/// How far a task is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Committed {
    /// Resources.
    pub total: u64,
    /// Lines and bytes of the decompressed input, and what those bytes were.
    pub lines: u64,
    pub stream_bytes: u64,
    pub stream_checksum: u32,
}

/// A task that is over.
#[derive(Deserialize)]
pub struct EndedTask {
    pub job: i64,
    pub number: i32,
    pub kind: String,
    pub input: Value,
}

impl EndedTask {
    pub fn key(&self) -> (i64, i32) {
        (self.job, self.number)
    }
}

/// A task that was cancelled just now, and the process that worked on it last.
#[derive(Deserialize)]
pub struct CancelledTask {
    pub number: i32,
    pub worker: Option<i32>,
}

/// A job that is to be forgotten.
#[derive(Deserialize)]
pub struct ExpiredJob {
    pub number: i64,
    pub inputs: Vec<Value>,
}

/// What a task has come to with a transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Resources that the transaction adds.
    pub stored: u64,
    /// Lines and bytes of the decompressed input that are done for good, and what those bytes were.
    pub lines: u64,
    pub stream_bytes: u64,
    pub stream_checksum: u32,
    /// Of the input as it is stored.
    pub read_bytes: u64,
    pub all_bytes: Option<u64>,
}
