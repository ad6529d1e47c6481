//! FHIR form into Aidbox form and back, rule by rule.

mod common;

use common::{Stored, encode, encode_with, from_fhir, normalized, shared_data, to_fhir, without_row_members, write};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::jsonb::text::Spacing;
use fhir_bulk_codec::resource::{Encoder, Envelope, Form};
use serde_json::{Value, json};
use std::fs;

fn parsed(text: &str) -> Value {
    normalized(serde_json::from_str(text).expect(text))
}

/// What is stored of a line of R4, as PostgreSQL prints it.
fn stored(line: &str) -> String {
    encode_with(&mut from_fhir(Version::R4), line.as_bytes()).expect(line).text(Spacing::Postgres)
}

/// What a stored resource of R4 looks like in FHIR form, without its id and type.
fn fhir(resource_type: &str, jsonb: &str) -> String {
    let line = format!(r#"{{"id":"x",{}"#, jsonb.trim_start().strip_prefix('{').expect(jsonb));
    let plain = Stored {
        resource_type: Some(resource_type.to_owned()),
        ..encode(IdRule::Aidbox, line.replace(",}", "}")).expect(&line)
    };
    let text = to_fhir(Version::R4, &plain);
    let text = text.replacen(r#""id":"x","#, "", 1).replacen(r#""id":"x""#, "", 1);
    let own = format!(r#""resourceType":"{resource_type}""#);
    text.replacen(&format!(",{own}"), "", 1).replacen(&format!("{own},"), "", 1).replacen(&own, "", 1)
}

/// A FHIR line's members and what is stored of them: each comes from the other.
#[track_caller]
fn pair(resource_type: &str, fhir_members: &str, stored_text: &str) {
    let line = format!(r#"{{"id":"x","resourceType":"{resource_type}",{fhir_members}}}"#);
    assert_eq!(stored(&line), stored_text, "{line}");
    assert_eq!(parsed(&fhir(resource_type, stored_text)), parsed(&format!("{{{fhir_members}}}")), "{stored_text}");
}

/// Members that are stored as they are and come back so.
#[track_caller]
fn unchanged(resource_type: &str, members: &str) {
    let mut text = String::new();
    common::jsonb_text(&serde_json::from_str(&format!("{{{members}}}")).expect(members), true, &mut text);
    pair(resource_type, members, &text);
}

#[track_caller]
fn reference(fhir_members: &str, stored_members: &str) {
    pair(
        "Observation",
        &format!(r#""subject":{{{fhir_members}}}"#),
        &format!(r#"{{"subject": {{{stored_members}}}}}"#),
    );
}

/// A pair of documents, in the directions that `direction` names.
fn holds(version: Version, direction: &str, convert_extensions: bool, fhir: &Value, aidbox: &Value) {
    let with_id = |value: &Value| {
        let mut value = value.clone();
        value.as_object_mut().unwrap().entry("id").or_insert(json!("x"));
        let of_type = if value.get("participant").is_some() { "Appointment" } else { "Observation" };
        value.as_object_mut().unwrap().entry("resourceType").or_insert(json!(of_type));
        value
    };
    let equality = |text: &str| match parsed(text) {
        Value::Object(resource) => without_row_members(resource),
        other => panic!("{other}"),
    };
    let (fhir, aidbox) = (with_id(fhir).to_string(), with_id(aidbox).to_string());
    let plain = encode(IdRule::Aidbox, &aidbox).unwrap();
    assert_eq!(equality(&to_fhir(version, &plain)), equality(&fhir), "{aidbox} in FHIR form");
    if direction == "both" {
        let encoder = Encoder::new(IdRule::Fhir, common::CREATED_AT_URL);
        let converted =
            encode_with(&mut encoder.from_fhir(version, convert_extensions, None), fhir.as_bytes()).unwrap();
        let row = Envelope {
            id: &converted.id,
            resource_type: converted.resource_type.as_deref().unwrap(),
            ..Envelope::default()
        };
        let text = write(Form::Aidbox, &row, &converted.jsonb);
        assert_eq!(equality(&text), equality(&aidbox), "{fhir} in Aidbox form");
        assert_eq!(converted.jsonb, plain.jsonb);
    }
}

fn version(name: &str) -> Version {
    match name.to_ascii_uppercase().as_str() {
        "R4" => Version::R4,
        "R4B" => Version::R4B,
        "R5" => Version::R5,
        other => panic!("{other}"),
    }
}

#[test]
fn names_that_look_like_choices_and_references_are_told_from_them() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("data/two-forms.json")).unwrap();
    for vector in vectors {
        println!("{}", vector["trap"]);
        holds(version(vector["version"].as_str().unwrap()), "both", true, &vector["fhir"], &vector["aidbox"]);
    }
}

#[test]
fn the_pairs_of_the_shared_data_hold() {
    let Some(folder) = shared_data("aidbox-format") else { return };
    let read = |name| -> Vec<Value> { serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap() };
    for vector in read("collision-vectors.json") {
        println!("{}", vector["why"]);
        holds(version(vector["version"].as_str().unwrap()), "both", true, &vector["fhir"], &vector["aidbox"]);
    }
    for vector in read("aidbox-docs.restated.json") {
        // That one takes Attribute resources.
        if vector["id"] != "first-class-extension" {
            println!("{}", vector["id"]);
            let convert = !vector["setting"].as_str().unwrap_or_default().contains("=false");
            let direction = vector["direction"].as_str().unwrap();
            holds(Version::R4, direction, convert, &vector["fhir"], &vector["aidbox"]);
        }
    }
}

#[test]
fn references_are_taken_apart_and_put_together() {
    reference(r#""reference":"Patient/1""#, r#""id": "1", "resourceType": "Patient""#);
    reference(r#""reference":"Individual/a-b.C_d""#, r#""id": "a-b.C_d", "resourceType": "Individual""#);
    reference(r#""reference":"https://h/fhir/Patient/1""#, r#""uri": "https://h/fhir/Patient/1""#);
    reference(r#""reference":"urn:oid:1.2""#, r#""uri": "urn:oid:1.2""#);
    reference(r##""reference":"#x""##, r#""localRef": "x""#);
    reference(r##""reference":"#""##, r#""localRef": """#);
    reference(
        r#""type":"Patient","display":"P","reference":"Patient/1","identifier":{"value":"v"},"_display":{"extension":[{"url":"u","valueCode":"c"}]}"#,
        r#""id": "1", "type": "Patient", "display": "P", "_display": {"extension": [{"url": "u", "value": {"code": "c"}}]}, "identifier": {"value": "v"}, "resourceType": "Patient""#,
    );
}

#[test]
fn a_reference_written_with_escapes_is_the_same_reference() {
    for text in [r#""Patient\/1""#, r#""\u0050atient/1""#, r#""Patient\u002f\u0031""#] {
        let line = format!(r#"{{"id":"x","resourceType":"Observation","subject":{{"r\u0065ference":{text}}}}}"#);
        assert_eq!(stored(&line), r#"{"subject": {"id": "1", "resourceType": "Patient"}}"#, "{line}");
    }
    reference(r##""reference":"#\u0022\n""##, r#""localRef": "\"\n""#);
}

#[test]
fn a_reference_that_aidbox_has_no_form_for_stays() {
    for text in [
        "Patient/1/_history/2",
        "Patient?identifier=a",
        "Patient/1?x=y",
        "Patient/1#a",
        "Patient/1|2",
        "Patient/",
        "/Patient/1",
        "Patient",
        "1a/b",
        "",
        " ",
        "Patient/a b",
    ] {
        unchanged("Observation", &format!(r#""subject":{{"reference":"{text}"}}"#));
    }
    for members in [
        r#""reference":null"#,
        r#""reference":5"#,
        r#""reference":{"reference":"Patient/1"}"#,
        r#""reference":["Patient/1"]"#,
        r#""id":"e","reference":"Patient/1""#,
        r##""id":"e","reference":"#a""##,
        r#""resourceType":"Patient","reference":"Patient/1""#,
        r#""uri":"u","reference":"Patient/1""#,
        r#""localRef":"l","reference":"Patient/1""#,
        r#""uri":"u","localRef":"l""#,
        r#""uri":"u","id":"i","resourceType":"T""#,
        r#""id":"i","resourceType":5"#,
        r#""resourceType":"Patient""#,
        r#""uri":null"#,
        "",
    ] {
        unchanged("Observation", &format!(r#""subject":{{{members}}}"#));
    }
}

#[test]
fn what_is_in_aidbox_form_already_is_stored_so() {
    for members in [
        r#"{"value": {"Quantity": {"value": 1}}}"#,
        r#"{"subject": {"id": "1", "resourceType": "Patient"}}"#,
        r#"{"subject": {"uri": "Patient/1/_history/2"}}"#,
        r#"{"subject": {"localRef": "a"}}"#,
    ] {
        let line = format!(r#"{{"id":"x","resourceType":"Observation",{}"#, &members[1..]);
        assert_eq!(stored(&line), members);
    }
    assert_eq!(fhir("Observation", r#"{"subject": {"uri": "a/b/c"}}"#), r#"{"subject":{"reference":"a/b/c"}}"#);
}

#[test]
fn several_types_of_a_choice_share_its_object() {
    pair(
        "Observation",
        r#""valueString":"a","valueQuantity":{"value":1},"valueBoolean":true"#,
        r#"{"value": {"string": "a", "boolean": true, "Quantity": {"value": 1}}}"#,
    );
    let out = fhir("Observation", r#"{"value": {"Quantity": {}, "string": "a"}, "aaaaaa": 1}"#);
    assert_eq!(out, r#"{"valueString":"a","valueQuantity":{},"aaaaaa":1}"#);
    assert_eq!(fhir("Observation", r#"{"zz": 1, "value": {"string": "a"}}"#), r#"{"zz":1,"valueString":"a"}"#);
}

#[test]
fn a_choice_whose_name_is_taken_stays() {
    unchanged("Observation", r#""value":5,"valueString":"a""#);
    unchanged("Observation", r#""value":null,"valueString":"a","valueInteger":1"#);
    // In FHIR form there would be two of one name.
    unchanged("Observation", r#""value":{"string":"a"},"valueString":"b""#);
    unchanged("Observation", r#""value":{"string":"a","integer":1},"valueInteger":2"#);
    for value in ["{}", "[]", r#""string""#, r#"{"text":1}"#, r#"{"string":"a","text":1}"#, r#"[{"string":"a"}]"#] {
        unchanged("Observation", &format!(r#""value":{value}"#));
    }
}

#[test]
fn values_of_the_wrong_kind_are_moved_as_they_are() {
    pair("Observation", r#""valueQuantity":null"#, r#"{"value": {"Quantity": null}}"#);
    pair("Observation", r#""valueString":[1,[{"a":[]}]]"#, r#"{"value": {"string": [1, [{"a": []}]]}}"#);
    pair("Observation", r#""valueQuantity":7"#, r#"{"value": {"Quantity": 7}}"#);
    for members in [
        r#""subject":5"#,
        r#""subject":"Patient/1""#,
        r#""code":[[[]]],"category":{},"component":7"#,
        r#""contained":[5,null,"a",[[]],{}]"#,
        r#""extension":1,"modifierExtension":"a","_status":[null,[]]"#,
        r#""subject":[{"reference":5}]"#,
    ] {
        unchanged("Observation", members);
    }
    pair(
        "Observation",
        r#""subject":[[{"reference":"Patient/1"}]]"#,
        r#"{"subject": [[{"id": "1", "resourceType": "Patient"}]]}"#,
    );
}

#[test]
fn what_stands_beside_a_primitive_survives() {
    let extension = r#"{"extension":[{"url":"u","valueInteger":1}]}"#;
    let converted = r#"{"extension": [{"url": "u", "value": {"integer": 1}}]}"#;
    pair(
        "Observation",
        &format!(r#""valueString":"a","_valueString":{extension}"#),
        &format!(r#"{{"value": {{"string": "a"}}, "_valueString": {converted}}}"#),
    );
    pair(
        "Patient",
        &format!(r#""name":[{{"given":["A",null],"_given":[null,{extension}]}}],"_birthDate":{extension}"#),
        &format!(r#"{{"name": [{{"given": ["A", null], "_given": [null, {converted}]}}], "_birthDate": {converted}}}"#),
    );
}

#[test]
fn of_a_repeated_name_the_last_one_counts() {
    for (members, expected) in [
        (r#""valueString":"a","valueString":"b""#, r#"{"value": {"string": "b"}}"#),
        (r#""valueString":"a","value\u0053tring":"b","valueInteger":1"#, r#"{"value": {"string": "b", "integer": 1}}"#),
        (r#""valueString":"a","value":1,"valueString":"b""#, r#"{"value": 1, "valueString": "b"}"#),
        (r#""subject":{"reference":"A/1","reference":"B/2"}"#, r#"{"subject": {"id": "2", "resourceType": "B"}}"#),
        (
            r#""contained":[{"resourceType":"Observation","resourceType":"Basic","valueString":"a"}]"#,
            r#"{"contained": [{"valueString": "a", "resourceType": "Basic"}]}"#,
        ),
    ] {
        assert_eq!(stored(&format!(r#"{{"id":"x","resourceType":"Observation",{members}}}"#)), expected);
    }
    let late =
        r#"{"id":"x","resourceType":"Observation","valueString":"a","deceasedBoolean":true,"resourceType":"Patient"}"#;
    assert_eq!(stored(late), r#"{"deceased": {"boolean": true}, "valueString": "a"}"#);
}

#[test]
fn nulls_are_left_out_before_names_are_taken_apart() {
    for (members, expected) in [
        (r#""valueString":null"#, "{}"),
        (r#""valueString":"a","valueString":null"#, "{}"),
        (r#""valueString":null,"valueInteger":1"#, r#"{"value": {"integer": 1}}"#),
        (r#""value":null,"valueInteger":1"#, r#"{"value": {"integer": 1}}"#),
        (r#""value":1,"value":null,"valueInteger":1"#, r#"{"value": {"integer": 1}}"#),
        (r#""valueQuantity":{"code":null}"#, r#"{"value": {"Quantity": {}}}"#),
        (r#""subject":{"uri":null,"reference":"P/1","id":null}"#, r#"{"subject": {"id": "1", "resourceType": "P"}}"#),
        (r#""subject":{"reference":null}"#, r#"{"subject": {}}"#),
    ] {
        let line = format!(r#"{{"id":"x","resourceType":"Observation",{members}}}"#);
        let mut encoder = from_fhir(Version::R4);
        encoder.strip_nulls_before(line.len());
        let text = encode_with(&mut encoder, line.as_bytes()).unwrap().text(Spacing::Postgres);
        assert_eq!(text, expected, "{members}");
    }
}

#[test]
fn extensions_keep_their_names_where_that_is_wanted_and_are_read_either_way() {
    let line = r#"{"id":"x","resourceType":"Patient","deceasedBoolean":true,"extension":[{"url":"a","valueReference":{"reference":"P/1"},"extension":[{"url":"b","valueDosage":{"asNeededBoolean":true}}]}],"modifierExtension":[{"url":"c","valueCode":"c"}]}"#;
    let encoder = |convert| Encoder::new(IdRule::Fhir, common::CREATED_AT_URL).from_fhir(Version::R4, convert, None);
    let (kept, converted) = (
        r#"{"deceased": {"boolean": true}, "extension": [{"url": "a", "extension": [{"url": "b", "valueDosage": {"asNeeded": {"boolean": true}}}], "valueReference": {"id": "1", "resourceType": "P"}}], "modifierExtension": [{"url": "c", "valueCode": "c"}]}"#,
        r#"{"deceased": {"boolean": true}, "extension": [{"url": "a", "value": {"Reference": {"id": "1", "resourceType": "P"}}, "extension": [{"url": "b", "value": {"Dosage": {"asNeeded": {"boolean": true}}}}]}], "modifierExtension": [{"url": "c", "value": {"code": "c"}}]}"#,
    );
    for (convert, expected) in [(false, kept), (true, converted)] {
        let stored = encode_with(&mut encoder(convert), line.as_bytes()).unwrap();
        assert_eq!(stored.text(Spacing::Postgres), expected);
        assert_eq!(parsed(&to_fhir(Version::R4, &stored)), parsed(line));
    }
}

#[test]
fn resources_inside_are_of_the_type_they_name_wherever_they_name_it() {
    let first = r#"{"resourceType":"Patient","deceasedBoolean":true}"#;
    let last = r#"{"deceasedBoolean":true,"a":{"resourceType":"Group"},"resourceType":"Patient"}"#;
    let escaped = r#"{"deceasedBoolean":true,"resource\u0054ype":"P\u0061tient"}"#;
    let converted = r#"{"deceased": {"boolean": true}, "resourceType": "Patient"}"#;
    let entry = |resource: &str| format!(r#"{{"id":"x","resourceType":"Bundle","entry":[{{"resource":{resource}}}]}}"#);
    let of_entry = |resource: &str| format!(r#"{{"entry": [{{"resource": {resource}}}]}}"#);
    assert_eq!(stored(&entry(first)), of_entry(converted));
    assert_eq!(stored(&entry(escaped)), of_entry(converted));
    let beside = r#"{"a": {"resourceType": "Group"}, "deceased": {"boolean": true}, "resourceType": "Patient"}"#;
    assert_eq!(stored(&entry(last)), of_entry(beside));
    let nested = format!(r#"{{"entry":[{{"resource":{first}}}],"resourceType":"Bundle"}}"#);
    let inner = format!(r#"{{"entry": [{{"resource": {converted}}}], "resourceType": "Bundle"}}"#);
    assert_eq!(stored(&entry(&nested)), of_entry(&inner));
    for unknown in [
        r#"{"deceasedBoolean":true}"#,
        r#"{"resourceType":"Custom","deceasedBoolean":true}"#,
        r#"{"resourceType":5,"deceasedBoolean":true}"#,
    ] {
        unchanged("Bundle", &format!(r#""entry":[{{"resource":{unknown}}}]"#));
    }
}

#[test]
fn items_within_items_are_converted_at_any_depth() {
    for depth in [1, 50, 300] {
        let members = format!(
            r#""item":[{}{{"answer":[{{"valueInteger":1}}]}}{}]"#,
            r#"{"item":["#.repeat(depth),
            "]}".repeat(depth)
        );
        let aidbox = format!(
            r#"{{"item": [{}{{"answer": [{{"value": {{"integer": 1}}}}]}}{}]}}"#,
            r#"{"item": ["#.repeat(depth),
            "]}".repeat(depth)
        );
        let line = format!(r#"{{"id":"x","resourceType":"QuestionnaireResponse",{members}}}"#);
        assert_eq!(stored(&line), aidbox);
        assert_eq!(fhir("QuestionnaireResponse", &aidbox), format!("{{{members}}}"));
    }
}

#[test]
fn meta_holds_extensions_like_any_element_and_the_creation_time_leaves_it() {
    let line = r#"{"id":"x","resourceType":"Patient","meta":{"versionId":"1","lastUpdated":"t","tag":[{"code":"a"}],"security":[],"extension":[{"url":"ex:createdAt","valueInstant":"c"},{"url":"o","valueString":"s"}]}}"#;
    let found = encode_with(&mut from_fhir(Version::R4), line.as_bytes()).unwrap();
    assert_eq!(found.created_at.as_deref(), Some("c"));
    let text =
        r#"{"meta": {"tag": [{"code": "a"}], "security": [], "extension": [{"url": "o", "value": {"string": "s"}}]}}"#;
    assert_eq!(found.text(Spacing::Postgres), text);
    let row = Envelope {
        id: "x",
        resource_type: "Patient",
        version_id: Some(7),
        last_updated: Some("t"),
        created_at: Some("c"),
    };
    assert_eq!(
        write(Form::Fhir(Version::R4), &row, &found.jsonb),
        r#"{"id":"x","meta":{"versionId":7,"lastUpdated":"t","tag":[{"code":"a"}],"security":[],"extension":[{"url":"o","valueString":"s"},{"url":"ex:createdAt","valueInstant":"c"}]},"resourceType":"Patient"}"#
    );
    let aidbox =
        r#"{"id":"x","resourceType":"Patient","meta":{"extension":[{"url":"ex:createdAt","value":{"instant":"c"}}]}}"#;
    let found = encode_with(&mut from_fhir(Version::R4), aidbox.as_bytes()).unwrap();
    assert_eq!((found.created_at.as_deref(), found.text(Spacing::Postgres)), (Some("c"), "{}".to_owned()));
}

#[test]
fn types_and_elements_that_hl7_does_not_define_stay() {
    unchanged(
        "Individual",
        r#""valueString":"a","subject":{"reference":"Patient/1"},"extension":[{"url":"u","valueCode":"c"}]"#,
    );
    unchanged(
        "Patient",
        r#""citizenship":[{"valueString":"a","extension":[{"url":"u","valueCode":"c"}],"by":{"reference":"A/1"}}]"#,
    );
    unchanged("Individual", r#""value":{"string":"a"},"subject":{"id":"1","resourceType":"Patient"}"#);
}

#[test]
fn names_keep_their_places_and_reference_comes_first() {
    assert_eq!(
        fhir(
            "Observation",
            r#"{"code": {}, "value": {"Quantity": {}}, "subject": {"id": "1", "type": "T", "display": "d", "resourceType": "P"}, "effective": {"dateTime": "t"}}"#
        ),
        r#"{"code":{},"valueQuantity":{},"subject":{"reference":"P/1","type":"T","display":"d"},"effectiveDateTime":"t"}"#
    );
}
