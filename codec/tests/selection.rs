//! Selected parts of resources, and the business identifiers of resources.

mod common;

use common::{encode, from_fhir};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::resource::{Envelope, Form, Identifier, Selection, Writer, elements, identifiers};

const OBSERVATION: &str = r#"{"resourceType":"Observation","id":"o","status":"final","_status":{"id":"s"},
    "valueQuantity":{"value":1.10},"subject":{"reference":"Patient/1"},"component":[{"valueString":"a"}]}"#;

/// What is written of a FHIR line that was stored.
fn part(line: &str, selection: Selection) -> String {
    let mut encoder = from_fhir(Version::R4);
    let stored = common::encode_with(&mut encoder, line.as_bytes()).unwrap();
    written(&stored, selection)
}

fn written(stored: &common::Stored, selection: Selection) -> String {
    let row = Envelope {
        id: &stored.id,
        resource_type: stored.resource_type.as_deref().unwrap(),
        version_id: Some(7),
        ..Envelope::default()
    };
    let mut out = Vec::new();
    let writer = Writer::new(Form::Fhir(Version::R4), "ex:createdAt", true).select(selection);
    writer.write(&row, &stored.jsonb, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn of(list: &str) -> Selection {
    let elements = Some(elements(list).map(str::to_owned).collect());
    Selection { elements, id: false, meta: false, type_member: "resourceType", subsetted: false }
}

#[test]
fn only_the_elements_that_were_asked_for_come_out() {
    assert_eq!(
        part(OBSERVATION, of("subject, nothing")),
        r#"{"subject":{"reference":"Patient/1"},"resourceType":"Observation"}"#
    );
    assert_eq!(part(OBSERVATION, of("")), r#"{"resourceType":"Observation"}"#);
    let whole = Selection { elements: None, ..of("") };
    assert_eq!(
        part(OBSERVATION, whole),
        r#"{"valueQuantity":{"value":1.10},"status":"final","_status":{"id":"s"},"subject":{"reference":"Patient/1"},"component":[{"valueString":"a"}],"resourceType":"Observation"}"#
    );
}

#[test]
fn id_and_meta_come_out_when_they_are_asked_for() {
    let both = Selection { id: true, meta: true, ..of("") };
    assert_eq!(part(OBSERVATION, both), r#"{"id":"o","meta":{"versionId":"7"},"resourceType":"Observation"}"#);
    assert_eq!(part(OBSERVATION, of("id,meta")), r#"{"resourceType":"Observation"}"#);
}

#[test]
fn a_part_that_may_be_written_back_is_marked_as_one() {
    const TAG: &str = r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}"#;
    let marked = || Selection { id: true, meta: true, subsetted: true, ..of("") };
    for (stored, written) in [
        ("{}", format!(r#"{{"versionId":"7","tag":[{TAG}]}}"#)),
        (r#"{"tag":[]}"#, format!(r#"{{"versionId":"7","tag":[{TAG}]}}"#)),
        (
            r#"{"tag":[{"code":"a"}],"source":"s","extension":[{"url":"u"}]}"#,
            format!(r#"{{"versionId":"7","source":"s","tag":[{{"code":"a"}},{TAG}],"extension":[{{"url":"u"}}]}}"#),
        ),
        (r#"{"tag":"no list"}"#, r#"{"versionId":"7","tag":"no list"}"#.to_owned()),
    ] {
        let line = format!(r#"{{"resourceType":"Basic","id":"b","meta":{stored}}}"#);
        assert_eq!(part(&line, marked()), format!(r#"{{"id":"b","meta":{written},"resourceType":"Basic"}}"#));
    }
}

#[test]
fn a_choice_is_found_under_all_its_names_in_whichever_form_it_is_stored() {
    let as_fhir = encode(IdRule::Fhir, OBSERVATION).unwrap();
    for name in ["value", "value[x]", "valueQuantity", " valueQuantity ,x"] {
        let expected = r#"{"valueQuantity":{"value":1.10},"resourceType":"Observation"}"#;
        assert_eq!(part(OBSERVATION, of(name)), expected, "{name}");
        // A name that FHIR made longer stands where jsonb sorts it.
        let expected = r#"{"resourceType":"Observation","valueQuantity":{"value":1.10}}"#;
        assert_eq!(written(&as_fhir, of(name)), expected, "{name}");
    }
    assert_eq!(part(OBSERVATION, of("valueString")), r#"{"resourceType":"Observation"}"#);
}

#[test]
fn what_stands_beside_a_primitive_comes_with_it() {
    let expected = r#"{"status":"final","_status":{"id":"s"},"resourceType":"Observation"}"#;
    assert_eq!(part(OBSERVATION, of("status")), expected);
    let deceased = r#"{"resourceType":"Patient","id":"p","_deceasedBoolean":{"id":"d"}}"#;
    assert_eq!(part(deceased, of("deceased")), r#"{"resourceType":"Patient","_deceasedBoolean":{"id":"d"}}"#);
}

#[test]
fn another_name_for_the_type_takes_the_place_of_a_stored_member() {
    let line = r#"{"resourceType":"Individual","id":"i","type":"stored","name":"n"}"#;
    let selection = Selection { elements: None, type_member: "type", ..of("") };
    assert_eq!(part(line, selection), r#"{"name":"n","type":"Individual"}"#);
}

fn found(line: &str) -> Vec<(Option<String>, String)> {
    let stored = encode(IdRule::Aidbox, line).unwrap();
    let mut found = Vec::new();
    identifiers(&stored.jsonb, |Identifier { system, value }| {
        found.push((system.map(str::to_owned), value.to_owned()));
    });
    found
}

#[test]
fn identifiers_are_read_from_a_list_and_from_a_single_one() {
    let line = r#"{"id":"1","identifier":[{"system":"s","value":"a|b"},{"value":"v"},{"system":"","value":"é"},{"system":"s"},
        {"system":"s","value":5},{"system":5,"value":"n"},"text",null,[{"value":"deep"}]]}"#;
    let pair = |system: Option<&str>, value: &str| (system.map(str::to_owned), value.to_owned());
    assert_eq!(found(line), [pair(Some("s"), "a|b"), pair(None, "v"), pair(None, "é"), pair(None, "n")]);
    assert_eq!(found(r#"{"id":"1","identifier":{"system":"s","value":"v"}}"#), [pair(Some("s"), "v")]);
    for none in [r#"{"id":"1"}"#, r#"{"id":"1","identifier":"v"}"#, r#"{"id":"1","a":{"identifier":[{"value":"v"}]}}"#]
    {
        assert_eq!(found(none), [], "{none}");
    }
}
