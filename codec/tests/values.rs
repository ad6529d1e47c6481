//! Values out of a stored resource, in FHIR form.

mod common;

use common::{encode_with, from_fhir};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::jsonb::walk::{Container, Value};
use fhir_bulk_codec::resource::write_value;

fn written(version: Version, type_name: &str, value: Value<'_>) -> String {
    let mut out = b"> ".to_vec();
    write_value(version, type_name, value, &mut out);
    String::from_utf8(out).unwrap().strip_prefix("> ").unwrap().to_owned()
}

#[test]
fn a_value_is_written_by_its_type() {
    let line = r##"{"resourceType":"Observation","id":"o","status":"final","subject":{"reference":"Patient/p"},
        "valueQuantity":{"value":1.50,"unit":"kg"},"_status":{"extension":[{"url":"u","valueReference":{"reference":"#c"}}]},
        "component":[{"valueQuantity":{"value":2}},{"valueDateTime":"2020"}],
        "contained":[{"resourceType":"Condition","id":"c","onsetAge":{"value":3},"subject":{"reference":"urn:x"}}]}"##;
    let line = line.replace('\n', "");
    let stored = encode_with(&mut from_fhir(Version::R4), line.as_bytes()).unwrap();
    let member = |name: &str| Container::new(&stored.jsonb).member(name.as_bytes()).unwrap();
    let first = |name: &str| member(name).container().unwrap().next_element().unwrap();
    let component = r#"[{"valueQuantity":{"value":2}},{"valueDateTime":"2020"}]"#;
    let condition = r#"{"id":"c","onsetAge":{"value":3},"subject":{"reference":"urn:x"},"resourceType":"Condition"}"#;
    for (type_name, value, expected) in [
        ("code", member("status"), r#""final""#),
        ("Reference", member("subject"), r#"{"reference":"Patient/p"}"#),
        ("", member("subject"), r#"{"id":"p","resourceType":"Patient"}"#),
        ("Observation.component", member("component"), component),
        ("Observation.component", first("component"), r#"{"valueQuantity":{"value":2}}"#),
        ("Resource", first("contained"), condition),
        ("Condition", first("contained"), condition),
        // A type in which nothing is converted, except extensions.
        ("Narrative", member("_status"), r##"{"extension":[{"url":"u","valueReference":{"reference":"#c"}}]}"##),
        ("NoType", member("subject"), r#"{"id":"p","resourceType":"Patient"}"#),
    ] {
        assert_eq!(written(Version::R4, type_name, value), expected, "{type_name}");
    }
}
