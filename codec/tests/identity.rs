//! The members that a row has as columns and not in its jsonb: id, resourceType, and parts of meta.

mod common;

use common::{encode, stored_text};
use fhir_bulk_codec::Reason;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::jsonb::text::Spacing;

#[track_caller]
fn refused(line: &str) -> Reason {
    let error = encode(IdRule::Aidbox, line).expect_err(line);
    error.reason
}

/// The creation time a line bears, and what is stored of the line.
fn created(line: &str) -> (Option<String>, String) {
    let stored = encode(IdRule::Fhir, line).expect(line);
    let text = stored.text(Spacing::Postgres);
    (stored.created_at, text)
}

fn some(at: &str, text: &str) -> (Option<String>, String) {
    (Some(at.to_owned()), text.to_owned())
}

fn none(text: &str) -> (Option<String>, String) {
    (None, text.to_owned())
}

#[test]
fn columns_are_not_repeated_in_the_jsonb() {
    let line = r#"{"resourceType":"Patient","id":"pt-1","meta":{"versionId":"3","lastUpdated":"2020-01-01T00:00:00Z","profile":["p"]},"active":true}"#;
    let stored = encode(IdRule::Fhir, line).unwrap();
    assert_eq!((stored.id.as_str(), stored.resource_type.as_deref()), ("pt-1", Some("Patient")));
    assert_eq!(stored.text(Spacing::Postgres), r#"{"meta": {"profile": ["p"]}, "active": true}"#);
}

#[test]
fn only_the_resources_own_identity_is_taken() {
    let inner = r#"{"id":"i","meta":{"versionId":"1","lastUpdated":"t","createdAt":"c"},"resourceType":"T"}"#;
    let line = format!(r#"{{"id":"x","contained":[{inner}],"subject":{inner}}}"#);
    let spaced =
        r#"{"id": "i", "meta": {"createdAt": "c", "versionId": "1", "lastUpdated": "t"}, "resourceType": "T"}"#;
    let stored = encode(IdRule::Fhir, &line).unwrap();
    assert_eq!(stored.text(Spacing::Postgres), format!(r#"{{"subject": {spaced}, "contained": [{spaced}]}}"#));
    assert_eq!((stored.resource_type, stored.created_at), (None, None));
}

#[test]
fn of_a_repeated_key_the_last_one_counts() {
    let stored =
        encode(IdRule::Fhir, r#"{"id":1,"resourceType":null,"id":"b","resourceType":"T","a":1,"a":2}"#).unwrap();
    assert_eq!((stored.id.as_str(), stored.resource_type.as_deref()), ("b", Some("T")));
    assert_eq!(stored.text(Spacing::Postgres), r#"{"a": 2}"#);
    assert_eq!(refused(r#"{"id":"a","id":1}"#), Reason::IdNotString);
    assert_eq!(stored_text(r#"{"id":"x","meta":5,"meta":{"tag":[]}}"#), r#"{"meta": {"tag": []}}"#);
    assert_eq!(stored_text(r#"{"id":"x","meta":{"tag":[]},"meta":{"versionId":"1"}}"#), "{}");
    assert_eq!(stored_text(r#"{"id":"x","meta":{"tag":[]},"meta":null}"#), "{}");
}

#[test]
fn a_key_written_with_escapes_is_the_same_key() {
    let line = r#"{"\u0069d":"x","resource\u0054ype":"T","m\u0065ta":{"version\u0049d":"1","created\u0041t":"c"}}"#;
    let stored = encode(IdRule::Fhir, line).unwrap();
    assert_eq!((stored.id.as_str(), stored.resource_type.as_deref()), ("x", Some("T")));
    assert_eq!((stored.created_at.as_deref(), stored.text(Spacing::Postgres)), (Some("c"), "{}".to_owned()));
}

#[test]
fn a_meta_of_nothing_but_columns_vanishes() {
    for meta in ["{}", "null", r#"{"versionId":"1"}"#, r#"{"lastUpdated":1,"versionId":{},"createdAt":"c"}"#] {
        assert_eq!(stored_text(&format!(r#"{{"id":"x","meta":{meta}}}"#)), "{}", "{meta}");
    }
}

#[test]
fn a_meta_that_is_no_object_is_refused() {
    for meta in ["[]", "[{}]", "1", "\"a\"", "true", "false"] {
        assert_eq!(refused(&format!(r#"{{"id":"x","meta":{meta}}}"#)), Reason::MetaNotObject, "{meta}");
    }
}

#[test]
fn the_creation_time_is_taken_out_and_other_extensions_stay() {
    let created_at = r#"{"url":"ex:createdAt","valueInstant":"c"}"#;
    let other = r#"{"url":"ex:other","valueInstant":"o"}"#;
    let stored = r#"{"meta": {"extension": [{"url": "ex:other", "valueInstant": "o"}]}}"#;
    let line = |list: &str| format!(r#"{{"id":"x","meta":{{"extension":[{list}]}}}}"#);
    assert_eq!(created(&line(&format!("{created_at},{other}"))), some("c", stored));
    assert_eq!(created(&line(&format!("{other},{created_at}"))), some("c", stored));
    assert_eq!(created(&line(created_at)), some("c", "{}"));
    assert_eq!(created(&line(other)), none(stored));
    assert_eq!(created(&line("")), none(r#"{"meta": {"extension": []}}"#));
    // Elsewhere it is an extension like any other.
    let elsewhere = format!(r#"{{"id":"x","extension":[{created_at}]}}"#);
    assert_eq!(created(&elsewhere), none(r#"{"extension": [{"url": "ex:createdAt", "valueInstant": "c"}]}"#));
}

#[test]
fn the_creation_time_may_be_written_with_escapes() {
    let line = r#"{"id":"x","meta":{"tag":["\n"],"extension":[{"valueInstant":"2020\u002d01","u\u0072l":"ex:\u0063reatedAt"},{"url":"\u0061"}],"source":"\t"},"z":{"y":["\r",1.5]}}"#;
    let stored = r#"{"z": {"y": ["\r", 1.5]}, "meta": {"tag": ["\n"], "source": "\t", "extension": [{"url": "a"}]}}"#;
    assert_eq!(created(line), some("2020-01", stored));
    assert_eq!(created(r#"{"id":"x","meta":{"createdAt":"\u0063"},"a":"\n"}"#), some("c", r#"{"a": "\n"}"#));
}

#[test]
fn a_creation_time_in_what_a_repeated_key_replaced_does_not_count() {
    let created_at = r#"{"url":"ex:createdAt","valueInstant":"c"}"#;
    let listed = format!(r#"{{"extension":[{created_at}]"#);
    for (meta, stored) in [
        (r#"{"createdAt":"c"},"meta":{"tag":1}"#.to_owned(), r#"{"meta": {"tag": 1}}"#),
        (r#"{"createdAt":"c"},"meta":null"#.to_owned(), "{}"),
        (format!(r#"{listed}}},"meta":{{}}"#), "{}"),
        (format!(r#"{listed},"extension":[]}}"#), r#"{"meta": {"extension": []}}"#),
        (format!(r#"{listed},"extension":1}}"#), r#"{"meta": {"extension": 1}}"#),
        (format!(r#"{listed},"extension":{{}}}}"#), r#"{"meta": {"extension": {}}}"#),
    ] {
        assert_eq!(created(&format!(r#"{{"id":"x","meta":{meta}}}"#)), none(stored), "{meta}");
    }
    let both = format!(r#"{{"id":"x","meta":{{"extension":[{created_at}],"createdAt":"d"}}}}"#);
    assert_eq!(created(&both), some("d", "{}"));
    let twice = r#"{"id":"x","meta":{"createdAt":"a","createdAt":"b"}}"#;
    assert_eq!(created(twice), some("b", "{}"));
}

#[test]
fn a_creation_time_that_is_no_text_is_refused_and_null_is_none() {
    for value in ["1", "{}", "[]", "true"] {
        let aidbox = format!(r#"{{"id":"x","meta":{{"createdAt":{value}}}}}"#);
        assert_eq!(refused(&aidbox), Reason::CreatedAtNotString);
        let fhir = format!(r#"{{"id":"x","meta":{{"extension":[{{"url":"ex:createdAt","valueInstant":{value}}}]}}}}"#);
        assert_eq!(refused(&fhir), Reason::CreatedAtNotString);
    }
    assert_eq!(created(r#"{"id":"x","meta":{"createdAt":null}}"#), none("{}"));
}

#[test]
fn a_resource_without_a_usable_id_is_refused() {
    assert_eq!(refused("{}"), Reason::MissingId);
    assert_eq!(refused(r#"{"ID":"x","identifier":[{"id":"y"}]}"#), Reason::MissingId);
    for id in ["1", "null", "true", "{}", "[\"x\"]"] {
        assert_eq!(refused(&format!(r#"{{"id":{id}}}"#)), Reason::IdNotString, "{id}");
    }
    for value in ["1", "null", "{}", "[]"] {
        assert_eq!(refused(&format!(r#"{{"id":"x","resourceType":{value}}}"#)), Reason::TypeNotString, "{value}");
    }
}

#[test]
fn ids_follow_the_rule_of_their_form() {
    let accepts = |rule, id: &str| {
        let line = serde_json::json!({ "id": id }).to_string();
        match encode(rule, line) {
            Ok(stored) => {
                assert_eq!(stored.id, id);
                true
            }
            Err(error) => {
                assert_eq!((error.reason, error.offset), (Reason::InvalidId(rule), 0));
                false
            }
        }
    };
    for (id, fhir, aidbox) in [
        ("a", true, true),
        ("A-Za-z0-9.-", true, true),
        (".", true, true),
        ("", false, false),
        ("a_b", false, true),
        ("a/b", false, true),
        ("a b", false, true),
        ("é", false, true),
        ("a\nb", false, false),
        ("\u{7F}", false, false),
        ("\u{85}", false, false),
        ("\u{9F}a", false, false),
        ("\u{A0}", false, true),
    ] {
        assert_eq!((accepts(IdRule::Fhir, id), accepts(IdRule::Aidbox, id)), (fhir, aidbox), "{id:?}");
    }
    for length in [63, 64, 65, 254, 255, 256] {
        let id = "x".repeat(length);
        assert_eq!((accepts(IdRule::Fhir, &id), accepts(IdRule::Aidbox, &id)), (length <= 64, length <= 255));
    }
    // Bytes count, not characters.
    assert!(accepts(IdRule::Aidbox, &"é".repeat(127)) && !accepts(IdRule::Aidbox, &"é".repeat(128)));
}
