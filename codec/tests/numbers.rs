//! Numbers: what PostgreSQL 15's `numeric` makes of them (checked against the server by `SELECT '…'::jsonb`).

mod common;

use common::{encode, stored_text};
use fhir_bulk_codec::Reason;
use fhir_bulk_codec::error::IdRule;

fn line(number: &str) -> String {
    format!("{{\"id\":\"x\",\"n\":{number}}}")
}

#[track_caller]
fn becomes(number: &str, text: &str) {
    let expected = format!("{{\"n\": {text}}}");
    let stored = stored_text(&line(number));
    assert!(stored == expected, "{number:.50} became {stored:.80}");
}

#[track_caller]
fn overflows(number: &str) {
    let error = encode(IdRule::Aidbox, line(number)).err().map(|error| (error.reason, error.offset));
    assert_eq!(error, Some((Reason::NumberOverflow, 14)), "{number:.50}");
}

#[test]
fn a_laboratory_value_keeps_its_digits() {
    for (number, text) in [
        ("0", "0"),
        ("-0", "0"),
        ("0.0", "0.0"),
        ("-0.0", "0.0"),
        ("0.000", "0.000"),
        ("1.10", "1.10"),
        ("-1.10", "-1.10"),
        ("87.35552017650116", "87.35552017650116"),
        ("0.0001", "0.0001"),
        ("0.00010000", "0.00010000"),
        ("9999.9999", "9999.9999"),
        ("10000", "10000"),
        ("10000.0000", "10000.0000"),
        ("100000000", "100000000"),
        ("9999999999999999", "9999999999999999"),
        ("-0.9999999999999999", "-0.9999999999999999"),
        ("12345678901234567", "12345678901234567"),
        ("123456789012345678901234567890.0001", "123456789012345678901234567890.0001"),
        ("0.1234567890123456789012345678901234567890", "0.1234567890123456789012345678901234567890"),
    ] {
        becomes(number, text);
    }
}

#[test]
fn exponents_are_expanded_as_postgresql_does() {
    for (number, text) in [
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("1.50e1", "15.0"),
        ("1.50e2", "150"),
        ("1.50e3", "1500"),
        ("12345e-2", "123.45"),
        ("1E-22", "0.0000000000000000000001"),
        ("0e5", "0"),
        ("-0e5", "0"),
        ("0e-7", "0.0000000"),
        ("-0.00e1", "0.0"),
        ("1e0000000000000000000000000000000000000001", "10"),
        ("0e1073741822", "0"),
    ] {
        becomes(number, text);
    }
}

#[test]
fn the_largest_and_the_finest_numbers_of_postgresql_load() {
    let zeros = "0".repeat(131_071);
    becomes("1e131071", &format!("1{zeros}"));
    becomes(&format!("1{zeros}"), &format!("1{zeros}"));
    becomes("0.1e131072", &format!("1{zeros}"));
    becomes("12e131070", &format!("12{}", "0".repeat(131_070)));
    becomes(&"9".repeat(131_072), &"9".repeat(131_072));
    let fine = format!("0.{}1", "0".repeat(16_382));
    becomes("1e-16383", &fine);
    becomes(&fine, &fine);
    becomes("0e-16383", &format!("0.{}", "0".repeat(16_383)));
}

#[test]
fn what_postgresql_refuses_is_refused() {
    for number in [
        "1e131072",
        "-1e131072",
        "0.1e131073",
        "123e131072",
        "0.00001e131077",
        "1e-16384",
        "1.0e-16383",
        "10e-16384",
        "0e-16384",
        "0e1073741823",
        "0e-1073741823",
        "1e99999999999999999999",
        "1e-99999999999999999999",
    ] {
        overflows(number);
    }
    overflows(&format!("1{}", "0".repeat(131_072)));
    overflows(&format!("0.{}", "0".repeat(16_384)));
}

/// PostgreSQL's own functions would read something else than what was loaded, or crash.
#[test]
fn the_bytes_are_postgresqls() {
    // SELECT encode('{"n": …}'::jsonb::bytea, 'hex'), with a cast WITHOUT FUNCTION, less the first 16 bytes.
    for (number, hex) in [
        ("0", "180000000080"),
        ("-0.0", "180000008080"),
        ("1", "2000000000800100"),
        ("-1", "2000000000a00100"),
        ("1.10", "2800000000810100e803"),
        ("10000", "2000000001800100"),
        ("0.0001", "200000007f820100"),
        ("123456.789", "3000000081810c00800dd21e"),
        ("-99999999.99999999", "3800000001a40f270f270f270f27"),
        ("1e-63", "20000000f09f0a00"),
        ("1e-64", "280000004000f0ff0100"),
        ("1e255", "200000003f80e803"),
        ("1e256", "28000000000040000100"),
        ("1e-256", "280000000001c0ff0100"),
        ("1e-260", "280000000401bfff0100"),
        ("12345678901234567890.5", "480000008480d2042e163423800dd21e8813"),
        ("1E-22", "200000007a8b6400"),
    ] {
        let jsonb = encode(IdRule::Aidbox, line(number)).unwrap().jsonb;
        let found: String = jsonb[16..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, hex, "{number}");
    }
}
