//! A backend's memory stays flat however much goes through it.

use crate::from::session;
use crate::support::{patient, run};
use fhir_bulk_tests::memory::growth;
use fhir_bulk_tests::{Client, Database, gzip};
use std::io::{Read as _, Write as _};

/// What a backend may grow by.
const GROWTH: i64 = 64 << 20;
const LINES: usize = 170_000;

#[test]
fn copies_of_150_mb_do_not_grow_a_backend() {
    let database = Database::new();
    let filler = "Lorem ipsum dolor sit amet, consetetur sadipscing elitr. ".repeat(14);
    let large: String =
        (0..LINES).map(|n| patient(&format!("p-{n}"), n).replace("1970-01-01", &filler) + "\n").collect();
    assert!(large.len() > 140 << 20);
    let zipped = gzip(large.as_bytes());
    let mut client = session(&database);
    run(&mut client, "SELECT bulk_create_table('Patient')");
    let mut grown = Vec::new();
    for (name, bytes, piece) in [
        ("insert", large.as_bytes(), 8000),
        ("in pieces of 1 MB", large.as_bytes(), 1 << 20),
        ("gzip", &zipped[..], 8000),
    ] {
        let load = |client: &mut Client| {
            let mut writer = client.copy_in("COPY patient FROM STDIN (FORMAT fhir)").unwrap();
            bytes.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
            assert_eq!(writer.finish().unwrap(), LINES as u64);
        };
        grown.push((name, growth(&mut client, load) >> 20));
    }
    for options in ["FORMAT fhir", "FORMAT fhir, GZIP", "FORMAT ndjson"] {
        let dump = |client: &mut Client| {
            let mut reader = client.copy_out(&format!("COPY patient TO STDOUT ({options})")).unwrap();
            let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
            while let count @ 1.. = reader.read(&mut buffer).unwrap() {
                bytes += count;
            }
            assert!(bytes > 1 << 20);
        };
        grown.push((options, growth(&mut client, dump) >> 20));
    }
    assert!(grown.iter().all(|(_, mb)| *mb < GROWTH >> 20), "MB grown: {grown:?}");
}
