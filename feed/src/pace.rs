//! Whether the thread may run ahead.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How far ahead of the taker the thread makes chunks: as far as there is room, or only what is asked for, so that the
/// two of them never take more than one core. Clones are the same.
#[derive(Clone, Default)]
pub struct Pace(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    held_back: bool,
    asked: bool,
    ended: bool,
}

impl Pace {
    /// Lets the thread run ahead, as it does at first, or not.
    pub fn run_ahead(&self, ahead: bool) {
        self.change(|state| state.held_back = !ahead);
    }

    /// The taker waits for a chunk.
    pub(crate) fn ask(&self) {
        self.change(|state| state.asked = true);
    }

    /// Nobody waits for anything any more.
    pub(crate) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Waits until the next chunk may be made.
    pub(crate) fn wait(&self) {
        let mut state = self.state();
        while state.held_back && !state.asked && !state.ended {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A chunk is there for who asked.
    pub(crate) fn answer(&self) {
        self.change(|state| state.asked = false);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
