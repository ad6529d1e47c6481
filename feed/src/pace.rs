//! Controls how far the feed's thread runs ahead of the backend.

use crate::chunk::FULL_BYTES;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many chunks the thread makes ahead: enough for a backend that takes chunk after chunk.
const FEW: usize = 3;
/// The most, for a backend that takes many at once: this much memory a load may use for it.
pub(crate) const MOST: usize = 16;

/// How far the thread runs ahead: by some chunks, or only to the one that the backend waits for. In the second case both
/// together never use more than one core. Clones share the state.
#[derive(Clone, Default)]
pub struct Pace(Arc<(Mutex<State>, Condvar)>);

struct State {
    held_back: bool,
    /// How many chunks may wait to be taken.
    room: usize,
    waiting: usize,
    asked: bool,
    ended: bool,
}

impl State {
    fn must_wait(&self) -> bool {
        let has_enough = if self.held_back { !self.asked } else { self.waiting >= self.room };
        has_enough && !self.ended
    }
}

impl Default for State {
    fn default() -> State {
        State { held_back: false, room: FEW, waiting: 0, asked: false, ended: false }
    }
}

impl Pace {
    /// Sets whether the thread may run ahead. At first it may.
    pub fn run_ahead(&self, ahead: bool) {
        self.change(|state| state.held_back = !ahead);
    }

    /// How many bytes of rows the backend takes before it pauses to write them. The thread makes as many meanwhile, within
    /// limits.
    pub fn expect(&self, bytes: usize) {
        self.change(|state| state.room = (bytes / FULL_BYTES).clamp(FEW, MOST));
    }

    /// Notes that the backend waits for a chunk.
    pub(crate) fn ask(&self) {
        self.change(|state| state.asked = true);
    }

    /// Ends all waiting.
    pub(crate) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Waits until the thread may make the next chunk.
    pub(crate) fn wait(&self) {
        let mut state = self.state();
        while state.must_wait() {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a chunk is made.
    pub(crate) fn answer(&self) {
        self.change(|state| {
            state.asked = false;
            state.waiting += 1;
        });
    }

    /// Notes that the backend has taken a chunk.
    pub(crate) fn taken(&self) {
        self.change(|state| state.waiting -= 1);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
