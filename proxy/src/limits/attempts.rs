//! Limits wrong passwords: counts the failures of a role, and makes the next attempt wait.
//!
//! It counts by role and address together, so that an attacker cannot lock out the role's owner at another address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many attempts in a row may fail before the next one must wait.
const FREE: u32 = 5;
/// The first wait; it doubles with each further failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long failures count after the last one.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// How many roles and addresses are remembered. If there are more, the oldest is removed.
const MOST: usize = 10_000;
/// PostgreSQL truncates longer names.
const ROLE_BYTES: usize = 63;

type Key = (Vec<u8>, IpAddr);

struct Failures {
    count: u32,
    last: Instant,
    /// No attempt is allowed before this time.
    until: Instant,
}

/// The failures of all roles and addresses, bounded.
#[derive(Default)]
pub struct Attempts {
    failures: Mutex<HashMap<Key, Failures>>,
    /// Each attempt holds a permit until its result is known. Otherwise many attempts at the same time would all be allowed
    /// before the first one fails.
    trials: Mutex<HashMap<Key, Weak<Semaphore>>>,
}

impl Attempts {
    /// Waits until few enough attempts have no result yet. The caller holds the permit until it has a result.
    pub async fn trial(&self, role: &str, peer: IpAddr) -> Option<OwnedSemaphorePermit> {
        let permits = {
            let mut all = lock(&self.trials);
            if all.len() >= MOST {
                all.retain(|_, permits| permits.strong_count() > 0);
            }
            let place = all.entry(key(role, peer)).or_default();
            place.upgrade().unwrap_or_else(|| {
                let new = Arc::new(Semaphore::new(FREE as usize));
                *place = Arc::downgrade(&new);
                new
            })
        };
        permits.acquire_owned().await.ok()
    }

    /// How long an attempt would have to wait; `None` if it is allowed now.
    pub fn check(&self, role: &str, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        match self.all().get(&key(role, peer)) {
            Some(failures) if failures.count >= FREE && now < failures.until => Err(failures.until - now),
            _ => Ok(()),
        }
    }

    /// Allows an attempt, or returns how long it must wait. After a wait, one attempt at a time is allowed.
    pub fn admit(&self, role: &str, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut all = self.all();
        let Some(failures) = all.get_mut(&key(role, peer)) else { return Ok(()) };
        if now.duration_since(failures.last) > MEMORY {
            all.remove(&key(role, peer));
            return Ok(());
        }
        if failures.count < FREE {
            return Ok(());
        }
        if now < failures.until {
            return Err(failures.until - now);
        }
        failures.until = now + wait(failures.count);
        Ok(())
    }

    /// Notes a wrong password.
    pub fn failed(&self, role: &str, peer: IpAddr, now: Instant) {
        let mut all = self.all();
        let key = key(role, peer);
        if all.len() >= MOST && !all.contains_key(&key) {
            let oldest = all.iter().min_by_key(|(_, failures)| failures.last).map(|(key, _)| key.clone());
            oldest.map(|key| all.remove(&key));
        }
        let failures = all.entry(key).or_insert(Failures { count: 0, last: now, until: now });
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        failures.until = now + wait(failures.count);
    }

    /// Notes the right password.
    pub fn succeeded(&self, role: &str, peer: IpAddr) {
        self.all().remove(&key(role, peer));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Failures>> {
        lock(&self.failures)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic cannot leave the data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(role: &str, peer: IpAddr) -> Key {
    // An IPv6 /64 network usually belongs to one caller.
    let network = |v6: Ipv6Addr| Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX));
    let peer = match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(network(v6)),
        v4 => v4,
    };
    (role.bytes().take(ROLE_BYTES).collect(), peer)
}

fn wait(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => FIRST_WAIT.saturating_mul(1 << more.min(16)).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn waits_grow_and_end_with_the_right_password() {
        let (attempts, mut now) = (Attempts::default(), Instant::now());
        for _ in 0..FREE {
            assert_eq!(attempts.admit("role", HERE, now), Ok(()));
            attempts.failed("role", HERE, now);
        }
        let mut last = Duration::ZERO;
        for _ in 0..5 {
            let wait = attempts.admit("role", HERE, now).unwrap_err();
            assert!(wait > last, "{wait:?} after {last:?}");
            last = wait;
            now += wait;
            assert_eq!(attempts.admit("role", HERE, now), Ok(()));
            // The other attempts must wait on.
            assert!(attempts.admit("role", HERE, now).is_err());
            attempts.failed("role", HERE, now);
        }
        assert_eq!(attempts.admit("other", HERE, now), Ok(()));
        assert_eq!(attempts.admit("role", "127.0.0.2".parse().unwrap(), now), Ok(()));
        for _ in 0..50 {
            attempts.failed("role", HERE, now);
        }
        assert_eq!(attempts.admit("role", HERE, now), Err(LONGEST_WAIT));
        attempts.succeeded("role", HERE);
        assert_eq!(attempts.admit("role", HERE, now), Ok(()));
    }

    #[test]
    fn other_spellings_of_a_role_or_an_address_are_no_other_callers() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let long = "r".repeat(ROLE_BYTES);
        for n in 0..FREE {
            attempts.failed(&format!("{long}{n}"), format!("2001:db8::{n}").parse().unwrap(), now);
            attempts.failed("role", "::ffff:10.0.0.1".parse().unwrap(), now);
        }
        assert!(attempts.admit(&long, "2001:db8::ffff".parse().unwrap(), now).is_err());
        assert!(attempts.admit(&long, "2001:db8:0:1::1".parse().unwrap(), now).is_ok());
        assert!(attempts.admit("role", "10.0.0.1".parse().unwrap(), now).is_err());
        assert!(attempts.admit("role", "10.0.0.1".parse().unwrap(), now + MEMORY + LONGEST_WAIT).is_ok());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for n in 0..MOST + 100 {
            attempts.failed(&n.to_string(), HERE, now);
        }
        assert_eq!(attempts.all().len(), MOST);
    }
}
