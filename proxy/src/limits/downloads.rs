//! Limits parallel downloads: of one file, and to one address, so that the holder of one URL cannot use up the connections
//! of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;

use crate::error::{Problem, Result};

/// The most downloads of one file.
const PER_FILE: usize = 8;
/// The most downloads to one address.
const PER_ADDRESS: usize = 16;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    File(String),
    Address(IpAddr),
}

/// The downloads that are running.
#[derive(Default)]
pub struct Downloads(Mutex<HashMap<Key, usize>>);

/// A running download. Drop ends it.
pub struct Running {
    all: Arc<Downloads>,
    keys: [Key; 2],
}

impl Downloads {
    /// Begins a download.
    ///
    /// # Errors
    /// 429 if there are too many.
    pub fn begin(self: &Arc<Downloads>, file: &str, address: IpAddr) -> Result<Running> {
        let keys = [Key::File(file.to_owned()), Key::Address(address)];
        let mut all = self.all();
        for (key, most, what) in [(&keys[0], PER_FILE, "of this file"), (&keys[1], PER_ADDRESS, "to this address")] {
            if all.get(key).is_some_and(|count| *count >= most) {
                let message = format!("too many downloads {what} are running");
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, message));
            }
        }
        for key in &keys {
            *all.entry(key.clone()).or_default() += 1;
        }
        Ok(Running { all: self.clone(), keys })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        // A panic cannot leave the data half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut all = self.all.all();
        for key in &self.keys {
            if let Some(count) = all.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    all.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_counted_until_they_end() {
        let downloads = Arc::new(Downloads::default());
        let address = |n: usize| IpAddr::from([10, 0, 0, n as u8]);
        let of_file: Vec<_> = (0..PER_FILE).map(|n| downloads.begin("file", address(n)).unwrap()).collect();
        assert!(downloads.begin("file", address(99)).is_err());
        assert!(downloads.begin("other", address(99)).is_ok());
        let to_address: Vec<_> =
            (0..PER_ADDRESS).map(|n| downloads.begin(&n.to_string(), address(200)).unwrap()).collect();
        assert!(downloads.begin("more", address(200)).is_err());
        drop((of_file, to_address));
        assert!(downloads.all().is_empty());
    }
}
