//! FHIR's times: what is read is what is written, in every zone, and what a precision covers has it in it.

use fhir_bulk_codec::instant::{Utc, format, format_date, format_timestamp, parse, range};

/// Checks a text; and its first bytes as the number of a time and of a zone.
pub fn check(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        read(text);
    }
    if let Some((at, rest)) = data.split_first_chunk() {
        let at = i64::from_le_bytes(*at);
        let zone = i64::from(rest.first().map_or(0, |byte| i32::from(*byte) - 128)) * 397;
        write(at, zone);
        format_date(at as i32);
    }
}

fn read(text: &str) {
    let found = parse(text);
    let covered = range(text);
    if let Some(at) = found {
        write(at, 0);
        let canonical = format(at, 0);
        assert_eq!(parse(&canonical), Some(at), "{text}");
        assert_eq!(Utc::new(at).as_bytes(), canonical.as_bytes(), "{text}");
    }
    if let Some((from, to)) = covered {
        assert!(from < to, "{text}");
        if let Some(at) = found {
            // A fraction beyond microseconds is rounded here, and cut off there.
            assert!(from <= at && at <= to, "{text}: {at} is not in {from} to {to}");
        }
    }
}

/// A time as text, which is read as the same time if timestamptz has it.
fn write(at: i64, zone: i64) {
    let text = format(at, zone);
    if let Some(back) = parse(&text) {
        assert_eq!(back, at, "{text}");
    }
    let plain = format_timestamp(at, Some(zone));
    // Without zeros at the end of the fraction, and with +00:00 for Z.
    let longer = text.trim_end_matches('Z');
    assert!(plain.len() <= text.len() + 5 && longer[..19] == plain[..19], "{plain} and {text}");
    assert!(format_timestamp(at, None).len() >= 19);
}
