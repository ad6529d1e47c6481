//! Controls whether the feed's thread may run ahead of the backend.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How far the thread runs ahead: until the queue is full, or only to the chunk that the backend waits for. In the second
/// case both together never use more than one core. Clones share the state.
#[derive(Clone, Default)]
pub struct Pace(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    held_back: bool,
    asked: bool,
    ended: bool,
}

impl Pace {
    /// Sets whether the thread may run ahead. At first it may.
    pub fn run_ahead(&self, ahead: bool) {
        self.change(|state| state.held_back = !ahead);
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
        while state.held_back && !state.asked && !state.ended {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that the backend has a chunk.
    pub(crate) fn answer(&self) {
        self.change(|state| state.asked = false);
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
