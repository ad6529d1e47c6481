//! Remembers which assertions of SMART clients have been used, so that each is good only once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ring::digest::{SHA256, digest};

/// How many unexpired assertions of one client are remembered. It must wait before it may use more.
const MOST: usize = 1000;

/// The used assertions of each client, by the digests of their ids, and until when they would be valid.
#[derive(Default)]
pub struct Replays(Mutex<HashMap<String, HashMap<[u8; 32], f64>>>);

/// Whether an assertion may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It may, and now has been.
    First,
    /// It has been used before.
    Again,
    /// The client has used too many within their lifetime.
    TooMany,
}

impl Replays {
    /// Uses an assertion of a client, which is valid until `end`. Times are in seconds since 1970. Only for clients that are
    /// known and have proved it, so that nobody else can fill the memory.
    pub fn enter(&self, client: &str, id: &str, end: f64, now: f64) -> Use {
        let digest = digest(&SHA256, id.as_bytes());
        let key = <[u8; 32]>::try_from(digest.as_ref()).expect("SHA-256 has 32 bytes");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, used| {
            used.retain(|_, end| *end > now);
            !used.is_empty()
        });
        let used = all.entry(client.to_owned()).or_default();
        if used.contains_key(&key) {
            return Use::Again;
        }
        if used.len() >= MOST {
            return Use::TooMany;
        }
        used.insert(key, end);
        Use::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_is_good_once_and_memory_has_a_bound() {
        let replays = Replays::default();
        assert_eq!(replays.enter("a", "1", 300.0, 0.0), Use::First);
        assert_eq!(replays.enter("a", "1", 300.0, 299.0), Use::Again);
        assert_eq!(replays.enter("b", "1", 300.0, 0.0), Use::First);
        for n in 2..=MOST {
            assert_eq!(replays.enter("a", &n.to_string(), 300.0, 0.0), Use::First);
        }
        assert_eq!(replays.enter("a", "more", 300.0, 0.0), Use::TooMany);
        assert_eq!(replays.enter("b", "more", 300.0, 0.0), Use::First);
        // What has expired is forgotten.
        assert_eq!(replays.enter("a", "more", 600.0, 300.0), Use::First);
        assert_eq!(replays.0.lock().unwrap().values().map(HashMap::len).sum::<usize>(), 1);
    }
}
