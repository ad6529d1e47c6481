//! Bytes that are no jsonb. PostgreSQL never stores such: it makes jsonb itself, and pages have checksums. If a disk makes some
//! of it nevertheless, a filter has to end, and to end by unwinding at most: the extension turns a panic into an error of the
//! statement, and `#![forbid(unsafe_code)]` leaves nothing worse. That walks end follows from the format: a value starts behind
//! the header of its container, so nothing contains itself, and a program goes down a fixed number of steps.

mod common;

use common::queries::{Random, parameters, values};
use common::{Stored, stored};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::search::{Filter, Searched};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

/// Each example with a filter for each parameter of its type.
fn examples() -> Vec<(Stored, Vec<Filter>)> {
    let mut by_type: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
    for row in common::examples(Version::R4).iter().map(|line| stored(Version::R4, line)) {
        by_type.entry(row.resource_type.clone()).or_default().push(row);
    }
    let mut all = Vec::new();
    for (resource_type, rows) in by_type {
        let searched = Searched { version: Version::R4, resource_type: &resource_type, own: &[], bases: &[] };
        let mut filters = Vec::new();
        for definition in parameters(Version::R4, &resource_type) {
            let values = rows.iter().flat_map(|row| values(Version::R4, &definition, row));
            let value = values.last().unwrap_or_else(|| "2020".to_owned());
            for query in [format!("{}={value}", definition.code), format!("{}:missing=true", definition.code)] {
                filters.push(Filter::new(&query, &searched).unwrap());
            }
        }
        let few = rows.into_iter().filter(|row| row.jsonb.len() < 4000).take(2);
        all.extend(few.map(|row| (row, filters.clone())));
    }
    all
}

#[test]
fn damaged_bytes_end_a_filter_at_worst_by_unwinding() {
    // Backtraces of thousands of panics would take minutes.
    set_hook(Box::new(|_| {}));
    let mut random = Random(3);
    let (mut ended, mut panicked) = (0, 0);
    for (row, filters) in examples() {
        for _ in 0..60 {
            let mut damaged = row.clone();
            let bytes = &mut damaged.jsonb;
            match random.below(4) {
                0 => bytes.truncate(random.below(bytes.len())),
                1 => (0..3).for_each(|_| {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }),
                // Headers and the entries behind them, where it hurts most.
                2 => {
                    let at = random.below(bytes.len().min(120));
                    bytes[at] = random.below(256) as u8;
                }
                _ => {
                    let at = random.below(bytes.len() / 4) * 4;
                    let word = [0xFFFF_FFFFu32, 0, 0x8000_0000, 0x5FFF_FFFF, 0x2FFF_FFFF, 0xD000_0004][random.below(6)];
                    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
                }
            }
            for filter in &filters {
                match catch_unwind(AssertUnwindSafe(|| filter.matches(damaged.resource()))) {
                    Ok(_) => ended += 1,
                    Err(_) => panicked += 1,
                }
            }
        }
    }
    let _ = std::panic::take_hook();
    println!("{ended} ended, {panicked} panicked");
    assert!(ended > 100_000 && panicked > 1000, "{ended} ended, {panicked} panicked");
}
