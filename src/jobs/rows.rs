//! The rows of the job tables as Rust types.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A job to add.
pub struct NewJob<'a> {
    /// Which [`Kind`](super::Kind) runs it.
    pub kind: &'static str,
    /// Its id, unique among the owner's jobs of this kind.
    pub id: &'a str,
    /// The caller's request.
    pub request: &'a Value,
    /// The input of each task that it has at first. Tasks are numbered from 1 in this order.
    pub inputs: &'a [Value],
}

/// A job of the current role, with its tasks.
#[derive(Deserialize)]
pub struct Job {
    /// The caller's request.
    pub request: Value,
    /// `active`, `finished`, `failed` or `cancelled`.
    pub status: String,
    /// In microseconds since 2000-01-01T00:00:00Z, like all times here.
    pub created_at: i64,
    pub ended_at: Option<i64>,
    /// In order. If there are many, only some: first those that failed, then those at work.
    pub tasks: Vec<TaskState>,
    /// Those of all tasks.
    pub sums: Sums,
    /// The indexes that it has dropped, and that are not made again yet: `{"table", "name"}`, and `error` if one cannot be.
    #[serde(default)]
    pub indexes: Vec<Value>,
}

/// Sums over the tasks of a job.
#[derive(Deserialize)]
pub struct Sums {
    /// How many there are, and how many of them failed.
    pub tasks: u64,
    pub failed: u64,
    /// See [`TaskState`].
    pub total: u64,
    pub unchanged: u64,
    pub seen: u64,
    /// Bytes of the inputs read so far, compressed bytes if they are compressed.
    pub read_bytes: u64,
    /// `None` if it is not known of all tasks.
    pub all_bytes: Option<u64>,
    /// When the first one was started.
    pub started_at: Option<i64>,
}

/// The state of a task.
#[derive(Deserialize)]
pub struct TaskState {
    pub input: Value,
    /// `waiting`, `active`, `finished`, `failed` or `cancelled`.
    pub status: String,
    /// Resources that are committed.
    pub total: u64,
    /// How many of them were there already as they are.
    pub unchanged: u64,
    /// Resources so far, with those of the worker's current transaction.
    pub seen: u64,
    pub started_at: Option<i64>,
    pub changed_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub error: Option<String>,
    /// What [`Task::finish`](super::Task::finish) has stored.
    pub result: Option<Value>,
}

/// An index that a job has dropped, and what makes it again.
#[derive(Deserialize)]
pub struct DroppedIndex {
    pub number: i64,
    /// The [`Kind`](super::Kind) of that job, and the OID of its role.
    pub kind: String,
    pub role: u32,
    /// The table's OID.
    pub relation: u32,
    pub name: String,
    /// What makes those of its partitions again, then what makes it.
    pub before: Vec<String>,
    pub statements: Vec<String>,
    pub tablespace: String,
}

/// A task that is not over.
#[derive(Clone, Copy, Deserialize)]
pub struct OpenTask {
    pub job: i64,
    pub number: i32,
    /// How many tasks of the job may be worked on at once; `None` for any number.
    pub workers: Option<u16>,
}

impl OpenTask {
    pub fn key(&self) -> (i64, i32) {
        (self.job, self.number)
    }
}

/// A task that a worker takes.
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
    /// How many processes have started it since its last commit, this one included.
    pub starts: i32,
    /// What [`Task::note`](super::Task::note) has stored.
    #[serde(default)]
    pub result: Option<Value>,
    /// How much of it is committed.
    #[serde(flatten)]
    pub committed: Committed,
}

/// How much of a task is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Committed {
    /// Resources.
    pub total: u64,
    /// Lines and bytes of the decompressed input, and the checksum of these bytes.
    pub lines: u64,
    pub stream_bytes: u64,
    pub stream_checksum: u32,
}

/// A task that has ended.
#[derive(Deserialize)]
pub struct EndedTask {
    pub job: i64,
    pub number: i32,
    pub kind: String,
    /// Its owner's OID.
    pub role: u32,
    pub input: Value,
    pub result: Option<Value>,
}

impl EndedTask {
    pub fn key(&self) -> (i64, i32) {
        (self.job, self.number)
    }
}

/// A task that was just cancelled, and the process that worked on it last.
#[derive(Deserialize)]
pub struct CancelledTask {
    pub number: i32,
    pub worker: Option<i32>,
}

/// A job to delete.
#[derive(Deserialize)]
pub struct ExpiredJob {
    pub number: i64,
    pub inputs: Vec<Value>,
}

/// How far others have come with a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elsewhere {
    /// Resources that are committed, and how many of them were there already as they are.
    pub total: u64,
    pub unchanged: u64,
    /// Bytes of the input read, compressed bytes if it is compressed.
    pub read_bytes: u64,
    pub all_bytes: Option<u64>,
    /// Whether that is all of it.
    pub at_end: bool,
}

/// The progress of a task in one transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Resources that the transaction adds.
    pub stored: u64,
    /// How many of them were there already as they are.
    pub unchanged: u64,
    /// Lines and bytes of the decompressed input that are stored, and the checksum of these bytes.
    pub lines: u64,
    pub stream_bytes: u64,
    pub stream_checksum: u32,
    /// Bytes of the input read, compressed bytes if it is compressed.
    pub read_bytes: u64,
    pub all_bytes: Option<u64>,
}
