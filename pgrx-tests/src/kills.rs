//! How often, and at which random moments, tests kill servers.

use std::time::{Duration, UNIX_EPOCH};

/// How many kills a test has; `FHIR_BULK_KILLS=30` for a night.
pub fn number() -> usize {
    std::env::var("FHIR_BULK_KILLS").map_or(3, |number| number.parse().expect("FHIR_BULK_KILLS is a number"))
}

/// Random numbers. A test that fails prints the seed that repeats them, `FHIR_BULK_TEST_SEED`.
pub struct Random(u64);

impl Random {
    /// From the seed of the environment, or a new one.
    pub fn from_environment() -> Random {
        let seed = std::env::var("FHIR_BULK_TEST_SEED").ok().map_or_else(
            || UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
            |seed| seed.parse().expect("FHIR_BULK_TEST_SEED is a number"),
        );
        println!("FHIR_BULK_TEST_SEED={seed}");
        Random::new(seed)
    }

    /// From a seed that the caller shows.
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed | 1);
        // Seeds that lie beside each other begin alike.
        random.below(2);
        random
    }

    /// A number from 0 to less than `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// Sleeps for less than `most`.
    pub fn sleep(&mut self, most: Duration) {
        std::thread::sleep(Duration::from_micros(self.below(most.as_micros() as u64)));
    }
}
