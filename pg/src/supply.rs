//! Rows for a statement that asks for them while it runs, made by the code that runs it.
//!
//! A function in the statement returns them. Parameters would have all of them in memory before the first one is written.

use std::cell::Cell;
use std::ptr::NonNull;

/// Makes rows of one kind.
pub trait Supply<T> {
    /// The next row; `None` after the last one.
    fn next(&mut self) -> Option<T>;
}

/// The supply of the statement that runs; `T` is the kind of its rows.
pub struct Supplied<T> {
    current: Cell<Option<NonNull<dyn Supply<T>>>>,
    state: Cell<State>,
    /// Counts statements, so that none takes the rows of another one.
    number: Cell<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No statement asks for rows.
    None,
    /// A statement will ask.
    Offered,
    /// Its function has been called.
    Taken,
}

/// The rows of one statement, for the function that returns them.
pub struct Taken(u64);

impl<T: 'static> Supplied<T> {
    /// For a `thread_local`.
    pub const fn new() -> Supplied<T> {
        Supplied { current: Cell::new(None), state: Cell::new(State::None), number: Cell::new(0) }
    }

    /// Runs a statement, whose function may take the rows of `supply`.
    pub fn offer<R>(&self, supply: &mut (dyn Supply<T> + '_), statement: impl FnOnce() -> R) -> R {
        struct End<'s, T>(&'s Supplied<T>);
        impl<T> Drop for End<'_, T> {
            fn drop(&mut self) {
                self.0.current.set(None);
                self.0.state.set(State::None);
            }
        }
        assert!(self.state.get() == State::None, "one statement at a time");
        // SAFETY: only the lifetime changes. `End` forgets the pointer before the borrow ends, however `statement` ends.
        let supply: NonNull<dyn Supply<T>> = unsafe {
            std::mem::transmute::<NonNull<dyn Supply<T> + '_>, NonNull<dyn Supply<T> + 'static>>(NonNull::from(supply))
        };
        let _end = End(self);
        self.number.set(self.number.get() + 1);
        self.current.set(Some(supply));
        self.state.set(State::Offered);
        statement()
    }

    /// Takes the rows of the statement that runs: the first call of its function. `None` if nothing is offered, or all of it is
    /// taken: code that the statement calls, such as that of a trigger, gets none of its rows.
    pub fn take(&self) -> Option<Taken> {
        if self.state.get() != State::Offered {
            return None;
        }
        self.state.set(State::Taken);
        Some(Taken(self.number.get()))
    }

    /// The next row; `None` after the last one, and when the statement has ended.
    pub fn next(&self, taken: &Taken) -> Option<T> {
        if taken.0 != self.number.get() {
            return None;
        }
        // While a row is made nobody else reaches the supply.
        let mut supply = self.current.take()?;
        struct Back<'s, T>(&'s Supplied<T>, NonNull<dyn Supply<T>>);
        impl<T> Drop for Back<'_, T> {
            fn drop(&mut self) {
                self.0.current.set(Some(self.1));
            }
        }
        let _back = Back(self, supply);
        // SAFETY: `offer` has borrowed it mutably for as long as `current` has it, and nobody else has the pointer.
        unsafe { supply.as_mut() }.next()
    }
}

impl<T: 'static> Default for Supplied<T> {
    fn default() -> Supplied<T> {
        Supplied::new()
    }
}
