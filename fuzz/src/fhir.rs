//! FHIR form → Aidbox form → FHIR form, for each release: what comes back is what was there.

use crate::encode::{CREATED_AT_URL, Stored, encode, is_true};
use crate::reference;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::resource::{Encoder, Envelope, Form, Writer};
use serde_json::Value;

/// The release that a byte stands for: in corpora `4`, `B` and `5`.
pub fn version(byte: u8) -> Version {
    match byte % 3 {
        1 => Version::R4,
        0 => Version::R4B,
        _ => Version::R5,
    }
}

/// A stored resource as a line in FHIR form.
fn line(version: Version, stored: &Stored) -> Vec<u8> {
    let row = Envelope {
        id: &stored.id,
        // A line that names no type stands in a table that does.
        resource_type: stored.resource_type.as_deref().unwrap_or("Basic"),
        created_at: stored.created_at.as_deref(),
        ..Envelope::default()
    };
    let mut out = Vec::new();
    Writer::new(Form::Fhir(version), CREATED_AT_URL, false).write(&row, &stored.jsonb, &mut out).expect("an object");
    out
}

/// The line's value, for comparing. `None` if there is no second opinion.
fn value(line: &[u8]) -> Option<Value> {
    reference::normalized(reference::parse(line)?.expect("a line is JSON"))
}

/// Checks a line after a byte for the release and one for options: bit 0 keeps the names of extensions, bit 1 says that all
/// lines are of type `Observation`, bit 2 leaves out nulls.
pub fn check(data: &[u8]) {
    let Some((&[release, options], sent)) = data.split_first_chunk() else { return };
    let (version, converts) = (version(release), options & 1 == 0);
    let of_type = (options & 2 != 0).then_some("Observation");
    let encoder = || {
        let mut encoder = Encoder::new(IdRule::Aidbox, CREATED_AT_URL);
        if options & 4 != 0 {
            encoder.strip_nulls_before(usize::MAX);
        }
        encoder
    };
    let mut converting = encoder().from_fhir(version, converts, of_type);
    let plain = encode(&mut encoder(), sent);
    let converted = encode(&mut converting, sent);
    // Nothing stays of a line in the encoder.
    assert_eq!(encode(&mut converting, sent), converted);
    let (converted, plain) = match (converted, plain) {
        (Ok(converted), Ok(plain)) => (converted, plain),
        (converted, plain) => {
            assert_eq!(converted, plain, "refused in one form only");
            if let (Err(reason), Some(theirs)) = (plain, reference::parse(sent)) {
                is_true(reason, sent, theirs.ok(), options & 4 != 0);
            }
            return;
        }
    };
    assert_eq!((&converted.id, &converted.created_at), (&plain.id, &plain.created_at));
    assert_eq!(converted.resource_type, plain.resource_type);
    if of_type.is_some() && plain.resource_type.as_deref() != of_type {
        // The loader refuses it, or gives it this type.
        return;
    }
    let back = line(version, &converted);
    let expected = line(version, &plain);
    let (Some(found), Some(expected)) = (value(&back), value(&expected)) else { return };
    assert_eq!(found, expected);
    let again = encode(&mut converting, &back).expect("a dumped line can be loaded");
    let (found, again) = (value(&back), value(&line(version, &again)));
    assert_eq!(found, again);
}
