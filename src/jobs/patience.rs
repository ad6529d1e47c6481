//! How long a task waits for a server that has a part of its tables: a worker of Citus, a server of foreign tables.

use fhir_bulk_pg::error::Error;
use fhir_bulk_pg::worker;
use std::time::{Duration, Instant};

/// A server that restarts is back within this time. After it the task fails, so that its slot is free for others.
const MOST: Duration = Duration::from_secs(3600);
/// The first wait, and the longest: each is twice as long as the one before.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The waits of a task.
#[derive(Default)]
pub struct Patience {
    since: Option<Instant>,
    last: Option<Duration>,
}

impl Patience {
    /// Waits if the error is that of a server that is away. False if it is another error, or the patience has come to its end.
    pub fn wait(&mut self, error: &Error) -> bool {
        if !error.is_of_server_away() || self.since.get_or_insert_with(Instant::now).elapsed() > MOST {
            return false;
        }
        let wait = self.last.map_or(WAITS[0], |last| (last * 2).min(WAITS[1]));
        self.last = Some(wait);
        worker::wait(wait);
        true
    }
}
