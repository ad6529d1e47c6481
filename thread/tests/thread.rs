//! A thread and its owner: who hears what, and who waits for whom.

use fhir_bulk_thread::{Gone, Thread};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use std::sync::mpsc::{channel, sync_channel};
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Waits as a backend does.
fn wait_readable<E>(thread: &Thread<E>) {
    let mut fds = [PollFd::new(thread.wake_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::try_from(LONG).unwrap()), Ok(1));
}

fn all<E>(thread: &mut Thread<E>) -> Vec<E> {
    let mut events = Vec::new();
    loop {
        match thread.take() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => wait_readable(thread),
            Err(Gone) => return events,
        }
    }
}

#[test]
fn an_owner_that_waits_for_the_descriptor_misses_no_event_and_hears_of_the_end() {
    let mut thread = Thread::start("t", 2, |hand| {
        for n in 0..10_000 {
            assert!(hand.over(n));
        }
    })
    .unwrap();
    assert!(all(&mut thread).into_iter().eq(0..10_000));
    // What has ended stays readable: nobody waits for it in vain.
    wait_readable(&thread);
    assert!(matches!(thread.wait(LONG), Err(Gone)));
}

#[test]
fn an_owner_that_does_not_look_is_signalled_without_the_thread_having_to_wait() {
    let (done, is_done) = channel();
    let mut thread = Thread::start("t", 1, move |hand| {
        // More than any pipe holds.
        (0..1_000_000).for_each(|_| hand.wake());
        done.send(()).unwrap();
        hand.over(());
    })
    .unwrap();
    is_done.recv_timeout(LONG).unwrap();
    assert_eq!(all(&mut thread).len(), 1);
}

#[test]
fn signals_are_blocked_in_the_thread_and_as_before_in_its_owner() {
    let before = SigSet::thread_get_mask().unwrap();
    let mut thread = Thread::start("t", 1, |hand| {
        hand.over(SigSet::thread_get_mask().unwrap());
    })
    .unwrap();
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    let mask = all(&mut thread).remove(0);
    // Those that cannot be blocked, and those of libc's own, are what is missing.
    let signals = [nix::libc::SIGTERM, nix::libc::SIGINT, nix::libc::SIGUSR1, nix::libc::SIGURG, nix::libc::SIGALRM];
    for signal in signals.map(|signal| signal.try_into().unwrap()) {
        assert!(mask.contains(signal) && !before.contains(signal), "{signal}");
    }
}

#[test]
fn a_thread_that_panics_is_gone_and_what_it_said_before_is_there() {
    let mut thread = Thread::start("t", 1, |hand| {
        hand.over(1);
        panic!("a defect, on purpose");
    })
    .unwrap();
    assert_eq!(all(&mut thread), [1]);
}

/// Says when it is dropped.
struct Held(std::sync::mpsc::Sender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn one_that_is_dismissed_has_ended_and_dropped_what_it_held_whatever_it_waited_for() {
    type Work = fn(&fhir_bulk_thread::Hand<u8>);
    // For room, for time to pass, for nothing at all.
    let works: [Work; 3] = [
        |hand| while hand.over(0) && hand.is_wanted() {},
        |hand| assert!(!hand.wait(LONG)),
        |hand| while hand.is_wanted() {},
    ];
    for work in works {
        let (dropped, is_dropped) = channel();
        let held = Held(dropped);
        let mut thread = Thread::start("t", 1, move |hand| {
            let _held = &held;
            work(&hand);
        })
        .unwrap();
        thread.dismiss(LONG);
        assert_eq!(is_dropped.try_recv(), Ok(()));
    }
}

#[test]
fn one_that_does_not_end_is_left_alone() {
    let (end, ended) = channel::<()>();
    // One that hangs, and one that goes on to hand over.
    let mut hanging = Thread::<()>::start("t", 1, move |hand| {
        let _ = ended.recv();
        drop(hand);
    })
    .unwrap();
    hanging.dismiss(Duration::from_millis(10));
    let mut busy = Thread::start("t", 1, |hand| while hand.over(()) {}).unwrap();
    busy.dismiss(Duration::from_millis(10));
    // Only when its owner is gone does it hear of it.
    drop((end, hanging, busy));
}

#[test]
fn a_thread_whose_owner_is_gone_hears_of_it_at_once() {
    let (say, said) = sync_channel(0);
    let thread = Thread::<u8>::start("t", 1, move |hand| {
        let start = Instant::now();
        say.send((hand.is_wanted(), LONG)).unwrap();
        assert!(!hand.wait(LONG));
        say.send((hand.is_wanted() || hand.over(0), start.elapsed())).unwrap();
    })
    .unwrap();
    assert!(said.recv_timeout(LONG).unwrap().0);
    drop(thread);
    let (is_wanted, took) = said.recv_timeout(LONG).unwrap();
    assert!(!is_wanted && took < LONG);
}
