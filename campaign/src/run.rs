//! One part of a campaign while it runs: its random numbers, its time, what it tried and what it found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fhir_bulk_tests::kills::Random;

/// A part that has found so much ends.
const MOST_FOUND: usize = 20;

/// A part: something that is tried again and again, in random variations.
pub struct Part {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it tries and what must hold, as a row of the report says it.
    pub what: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Tries until [`Run::goes_on`] says no.
    pub run: fn(&mut Run),
}

/// A part that runs.
pub struct Run {
    /// From the seed alone.
    pub random: Random,
    seed: u64,
    start: Instant,
    time: Duration,
    most: u64,
    tried: u64,
    found: Vec<String>,
    notes: Vec<String>,
}

/// A part has ended.
pub struct Ended {
    pub tried: u64,
    /// What did not hold, each with its place in the run.
    pub found: Vec<String>,
    /// What the row says besides its figures.
    pub notes: Vec<String>,
    pub time: Duration,
}

impl Run {
    /// Runs a part for this time, or until it has tried so often. What panics in it has been found.
    pub fn of(part: &Part, seed: u64, time: Duration, most: u64) -> Ended {
        let mut run = Run {
            random: Random::new(seed),
            seed,
            start: Instant::now(),
            time,
            most,
            tried: 0,
            found: Vec::new(),
            notes: Vec::new(),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (part.run)(&mut run))) {
            run.found(text_of(panic.as_ref()));
        }
        Ended { tried: run.tried, found: run.found, notes: run.notes, time: run.start.elapsed() }
    }

    /// Whether there is time, and something left to try. At least one try is made.
    pub fn goes_on(&self) -> bool {
        self.tried == 0 || self.tried < self.most && self.start.elapsed() < self.time && self.found.len() < MOST_FOUND
    }

    /// The part of the time that has passed, from 0 to 1.
    pub fn passed(&self) -> f64 {
        (self.start.elapsed().as_secs_f64() / self.time.as_secs_f64()).min(1.0)
    }

    /// So much has been tried.
    pub fn tried(&mut self, more: u64) {
        self.tried += more;
    }

    /// How much has been tried.
    pub fn so_far(&self) -> u64 {
        self.tried
    }

    /// Something does not hold.
    pub fn found(&mut self, what: String) {
        if self.found.len() < MOST_FOUND {
            eprintln!("FOUND (try {}, seed {}): {what}", self.tried, self.seed);
        }
        self.found.push(what);
    }

    /// As [`Run::found`], unless it holds.
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.found(what());
        }
    }

    /// Says more in the row.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".to_owned())
}
