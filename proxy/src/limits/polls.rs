//! Limits how often clients poll the status of one job.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::error::{Problem, Result};

/// The most polls within [`WINDOW`].
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);
/// From this many jobs on, those without recent polls are removed.
const MANY: usize = 1000;

/// The start of each job's window, and the number of polls since.
#[derive(Default)]
pub struct Polls(Mutex<HashMap<String, (Instant, u32)>>);

impl Polls {
    /// Counts a poll by an authenticated caller.
    ///
    /// # Errors
    /// 429.
    pub fn count(&self, job: &str, now: Instant) -> Result<()> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= MANY {
            jobs.retain(|_, (began, _)| now.duration_since(*began) < WINDOW);
        }
        let (began, count) = jobs.entry(job.to_owned()).or_insert((now, 0));
        if now.duration_since(*began) >= WINDOW {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        if *count <= MOST {
            return Ok(());
        }
        let message = format!("the status of this job is asked for more than {MOST} times a second");
        Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, message, WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_are_answered_of_each_job() {
        let (polls, start) = (Polls::default(), Instant::now());
        let asked = |job: &str, millis| polls.count(job, start + Duration::from_millis(millis)).is_ok();
        assert!((0..10).all(|n| asked("a", n)));
        assert!(!asked("a", 11) && !asked("a", 999) && asked("b", 999));
        assert!((0..10).all(|n| asked("a", 1000 + n)) && !asked("a", 1011));
        assert!((0..5000).all(|n| asked(&n.to_string(), 3000 + n)));
        assert!(polls.0.lock().unwrap().len() <= MANY + 1);
    }
}
