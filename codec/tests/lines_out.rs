//! Writing rows as lines: the bytes of both forms, and the places of members from columns.

mod common;

use common::{CREATED_AT_URL, encode, write};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter, write_string};
use fhir_bulk_codec::resource::{Envelope, Form, NotAnObject, Writer};
use serde_json::Value;

const AT: &str = "2021-06-10T08:26:10.707454Z";
const ROW: Envelope<'_> =
    Envelope { id: "x", resource_type: "T", version_id: Some(7), last_updated: Some("u"), created_at: Some("c") };

/// The jsonb of an object as it is, with nothing taken out of it.
fn jsonb(text: &str) -> Vec<u8> {
    // The encoder leaves the members of an element alone, and an element is a jsonb of its own.
    let line = format!("{{\"id\":\"x\",\"a\":{text}}}");
    let around = encode(IdRule::Aidbox, line).unwrap().jsonb;
    // Header, two JEntries, the name and three bytes of padding.
    around[16..].to_vec()
}

/// Seed 000 as it is printed there.
#[rustfmt::skip]
const SEED_AIDBOX: [&str; 6] = [
    r#"{"id": "pt-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 481, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Alice"]}], "resourceType": "Patient"}"#,
    r#"{"id": "pt-2", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 482, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Bob"]}], "resourceType": "Patient"}"#,
    r#"{"id": "pt-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 483, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}], "resourceType": "Patient"}"#,
    r#"{"id": "ap-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 484, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "fulfilled", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
    r#"{"id": "ap-2", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 485, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "booked", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
    r#"{"id": "ap-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": 486, "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "fulfilled", "participant": [{"actor": {"id": "pt-2", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#,
];

#[rustfmt::skip]
const SEED_FHIR: [&str; 3] = [
    r#"{"id":"pt-1","meta":{"versionId":481,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Alice"]}],"resourceType":"Patient"}"#,
    r#"{"id":"pt-2","meta":{"versionId":482,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Bob"]}],"resourceType":"Patient"}"#,
    r#"{"id":"pt-3","meta":{"versionId":483,"lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Charles"]}],"citizenship":[{"code":{"text":"ru"}}],"resourceType":"Patient"}"#,
];

/// Loads a line in either form and writes it in both.
fn both_forms(line: &str) -> (String, String) {
    let stored = encode(IdRule::Fhir, line).unwrap();
    assert_eq!(stored.created_at.as_deref(), Some(AT));
    let resource: Value = serde_json::from_str(line).unwrap();
    let row = Envelope {
        id: &stored.id,
        resource_type: stored.resource_type.as_deref().unwrap(),
        version_id: resource["meta"]["versionId"].as_i64(),
        last_updated: Some(AT),
        created_at: stored.created_at.as_deref(),
    };
    (write(Form::Aidbox, &row, &stored.jsonb), write(Form::Fhir(Version::R4), &row, &stored.jsonb))
}

#[test]
fn the_seeds_patients_and_appointments_come_out_byte_for_byte() {
    for line in SEED_AIDBOX {
        assert_eq!(both_forms(line).0, line);
    }
    for (aidbox, fhir) in SEED_AIDBOX.into_iter().zip(SEED_FHIR) {
        assert_eq!(both_forms(aidbox), (aidbox.to_owned(), fhir.to_owned()));
        assert_eq!(both_forms(fhir), (aidbox.to_owned(), fhir.to_owned()));
    }
}

/// A client that compares dumps with `SELECT resource || …` would see another order of keys.
#[test]
fn the_rows_members_stand_where_jsonb_sorts_them() {
    let words = ["", "a", "ia", "id_", "ic", "ie", "met", "mesh", "metz", "meta1", "resourceTypd", "resourceTypf"];
    let names: Vec<String> = words.iter().map(|w| (*w).to_owned()).chain((1..=14).map(|n| "q".repeat(n))).collect();
    // Each name alone, and all together: every place a row's member may take among stored ones.
    let mut sets: Vec<Vec<&str>> = names.iter().map(|name| vec![name.as_str()]).collect();
    sets.push(names.iter().map(String::as_str).collect());
    sets.push(Vec::new());
    let instants = ["creatydAt", "createdAs", "createdAu", "versionIc", "versionIe", "lastUpdatec", "lastUpdatee"];
    for names in sets {
        for in_meta in [None, Some(&[][..]), Some(&instants[..]), Some(&["profile"]), Some(&["lastUpdatedX"])] {
            let member = |name: &str| (name.to_owned(), Value::from(name));
            let mut stored: serde_json::Map<String, Value> = names.iter().map(|name| member(name)).collect();
            if let Some(meta) = in_meta {
                stored.insert("meta".to_owned(), Value::Object(meta.iter().map(|name| member(name)).collect()));
            }
            let jsonb = jsonb(&Value::Object(stored.clone()).to_string());

            let mut expected = stored;
            let meta = expected.entry("meta").or_insert_with(|| Value::Object(Default::default()));
            meta["createdAt"] = "c".into();
            meta["versionId"] = 7.into();
            meta["lastUpdated"] = "u".into();
            expected.insert("id".to_owned(), "x".into());
            expected.insert("resourceType".to_owned(), "T".into());
            let mut text = String::new();
            common::jsonb_text(&Value::Object(expected), true, &mut text);
            assert_eq!(write(Form::Aidbox, &ROW, &jsonb), text);
        }
    }
}

/// `meta` as the first stored member once lost everything stored in it.
#[test]
fn stored_meta_survives_whatever_stands_beside_it() {
    let stored = jsonb(r#"{"meta":{"tag":[{"code":"a"}],"source":"s"},"name":1}"#);
    let aidbox = r#"{"id": "x", "meta": {"tag": [{"code": "a"}], "source": "s", "createdAt": "c", "versionId": 7, "lastUpdated": "u"}, "name": 1, "resourceType": "T"}"#;
    let fhir = r#"{"id":"x","meta":{"versionId":7,"lastUpdated":"u","tag":[{"code":"a"}],"source":"s","extension":[{"url":"ex:createdAt","valueInstant":"c"}]},"name":1,"resourceType":"T"}"#;
    assert_eq!(write(Form::Aidbox, &ROW, &stored), aidbox);
    assert_eq!(write(Form::Fhir(Version::R4), &ROW, &stored), fhir);
}

#[test]
fn columns_win_over_what_the_jsonb_repeats() {
    let stored = jsonb(
        r#"{"id":"old","meta":{"createdAt":"old","versionId":"old","lastUpdated":"old"},"resourceType":"Old","a":1}"#,
    );
    let aidbox =
        r#"{"a": 1, "id": "x", "meta": {"createdAt": "c", "versionId": 7, "lastUpdated": "u"}, "resourceType": "T"}"#;
    assert_eq!(write(Form::Aidbox, &ROW, &stored), aidbox);
    let bare = Envelope { id: "x", resource_type: "T", ..Envelope::default() };
    assert_eq!(write(Form::Aidbox, &bare, &stored), r#"{"a": 1, "id": "x", "resourceType": "T"}"#);
    assert_eq!(write(Form::Fhir(Version::R4), &bare, &stored), r#"{"a":1,"id":"x","resourceType":"T"}"#);
}

#[test]
fn columns_without_a_value_are_left_out_of_meta() {
    let stored = jsonb(r#"{"meta":{"tag":1}}"#);
    let row = |version_id, last_updated, created_at| Envelope { version_id, last_updated, created_at, ..ROW };
    for (row, aidbox, fhir) in [
        (row(None, None, None), r#"{"tag": 1}"#, r#"{"tag":1}"#),
        (row(Some(-1), None, None), r#"{"tag": 1, "versionId": -1}"#, r#"{"versionId":-1,"tag":1}"#),
        (row(None, Some("u"), None), r#"{"tag": 1, "lastUpdated": "u"}"#, r#"{"lastUpdated":"u","tag":1}"#),
        (
            row(None, None, Some("c")),
            r#"{"tag": 1, "createdAt": "c"}"#,
            r#"{"tag":1,"extension":[{"url":"ex:createdAt","valueInstant":"c"}]}"#,
        ),
    ] {
        let line = format!(r#"{{"id": "x", "meta": {aidbox}, "resourceType": "T"}}"#);
        assert_eq!(write(Form::Aidbox, &row, &stored), line);
        assert_eq!(
            write(Form::Fhir(Version::R4), &row, &stored),
            format!(r#"{{"id":"x","meta":{fhir},"resourceType":"T"}}"#)
        );
    }
    let bare = row(None, None, None);
    assert_eq!(write(Form::Fhir(Version::R4), &bare, &jsonb("{}")), r#"{"id":"x","resourceType":"T"}"#);
    assert_eq!(
        write(Form::Aidbox, &bare, &jsonb(r#"{"meta":{},"z":1}"#)),
        r#"{"z": 1, "id": "x", "resourceType": "T"}"#
    );
}

#[test]
fn stored_meta_extensions_come_before_the_creation_time_and_never_beside_another() {
    let created = r#"{"url":"ex:createdAt","valueInstant":"c"}"#;
    for (stored, extension) in [
        (r#"[]"#, format!("[{created}]")),
        (r#"[{"url":"a"}]"#, format!(r#"[{{"url":"a"}},{created}]"#)),
        (r#"[{"url":"ex:createdAt","valueInstant":"old"},{"url":"a"},1]"#, format!(r#"[{{"url":"a"}},1,{created}]"#)),
        (r#"[{"url":"ex:createdAt"}]"#, format!("[{created}]")),
        // No list, no FHIR: as it is.
        (r#"{"url":"a"}"#, r#"{"url":"a"}"#.to_owned()),
        ("null", "null".to_owned()),
    ] {
        let jsonb = jsonb(&format!(r#"{{"meta":{{"extension":{stored}}}}}"#));
        let meta = format!(r#"{{"versionId":7,"lastUpdated":"u","extension":{extension}}}"#);
        let line = format!(r#"{{"id":"x","meta":{meta},"resourceType":"T"}}"#);
        assert_eq!(write(Form::Fhir(Version::R4), &ROW, &jsonb), line);
    }
    // Without a creation time nothing is added or left out.
    let list = r#"[{"url":"ex:createdAt","valueInstant":"old"}]"#;
    let row = Envelope { created_at: None, version_id: None, last_updated: None, ..ROW };
    let line = format!(r#"{{"id":"x","meta":{{"extension":{list}}},"resourceType":"T"}}"#);
    assert_eq!(write(Form::Fhir(Version::R4), &row, &jsonb(&format!(r#"{{"meta":{{"extension":{list}}}}}"#))), line);
}

#[test]
fn version_id_can_be_the_string_that_fhir_asks_for() {
    let mut out = Vec::new();
    let row = Envelope { version_id: Some(i64::MAX), ..ROW };
    Writer::new(Form::Fhir(Version::R4), "u", true).write(&row, &jsonb("{}"), &mut out).unwrap();
    let meta = r#"{"versionId":"9223372036854775807","lastUpdated":"u","extension":[{"url":"u","valueInstant":"c"}]}"#;
    assert_eq!(String::from_utf8(out).unwrap(), format!(r#"{{"id":"x","meta":{meta},"resourceType":"T"}}"#));
}

#[test]
fn what_columns_hold_is_escaped_too() {
    let row = Envelope { id: "a\"\\\n\u{1}é", ..ROW };
    let line = write(
        Form::Fhir(Version::R4),
        &Envelope { version_id: None, last_updated: None, created_at: None, ..row },
        &jsonb("{}"),
    );
    assert_eq!(line, "{\"id\":\"a\\\"\\\\\\n\\u0001é\",\"resourceType\":\"T\"}");
}

#[test]
fn every_escape_is_written_at_every_place_of_a_string() {
    for byte in (1..0x20u8).chain([b'"', b'\\', 0x7F]) {
        for before in 0..36 {
            for after in [0, 1, 15, 16, 40] {
                let text = [vec![b'x'; before], vec![byte; 1 + before % 3], vec![b'y'; after]].concat();
                let text = String::from_utf8(text).unwrap();
                let mut expected = String::new();
                common::jsonb_text(&Value::from(text.as_str()), false, &mut expected);

                let mut alone = Vec::new();
                write_string(text.as_bytes(), &mut alone);
                assert_eq!(alone, expected.as_bytes());
                // As the last bytes of a jsonb, and with more behind them.
                for rest in ["", "z"] {
                    let jsonb = jsonb(&serde_json::json!({ "a": text, "b": rest }).to_string());
                    let mut out = Vec::new();
                    TextWriter::new(Spacing::Compact).write(&jsonb, &mut out);
                    assert_eq!(String::from_utf8(out).unwrap(), format!("{{\"a\":{expected},\"b\":\"{rest}\"}}"));
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_no_object_is_told_and_nothing_is_written() {
    // A jsonb array, and the scalar 1, which is an array of one with a flag.
    let array = jsonb("[{}]");
    let mut scalar = jsonb("[1]");
    scalar[3] |= 0x10;
    let mut out = b"before".to_vec();
    for resource in [&array, &scalar] {
        assert_eq!(
            Writer::new(Form::Fhir(Version::R4), CREATED_AT_URL, false).write(&ROW, resource, &mut out),
            Err(NotAnObject)
        );
        assert_eq!(out, b"before");
    }
    let mut out = Vec::new();
    TextWriter::new(Spacing::Postgres).write(&scalar, &mut out);
    assert_eq!(out, b"1");
}

#[test]
fn lines_are_appended_to_what_is_there() {
    let mut out = Vec::new();
    let stored = jsonb(r#"{"a":"b"}"#);
    let writer = Writer::new(Form::Fhir(Version::R4), CREATED_AT_URL, false);
    for _ in 0..3 {
        writer.write(&ROW, &stored, &mut out).unwrap();
        out.push(b'\n');
    }
    let line = write(Form::Fhir(Version::R4), &ROW, &stored);
    assert_eq!(String::from_utf8(out).unwrap(), format!("{line}\n{line}\n{line}\n"));
}

/// Resources that other programs stored, nested deeper than a load allows, must not overflow the backend's stack.
#[test]
fn a_jsonb_nested_5000_deep_is_written_on_a_small_stack() {
    let mut nested = 0x4000_0000u32.to_le_bytes().to_vec();
    for _ in 0..5000 {
        let around = [0x4000_0001, 0xD000_0000 | nested.len() as u32];
        nested = [around.map(u32::to_le_bytes).concat(), nested].concat();
    }
    // {"a": …}
    let around = [0x2000_0001, 0x8000_0001, 0x5000_0000 | (nested.len() as u32 + 3), u32::from(b'a')];
    let object = [around.map(u32::to_le_bytes).concat(), nested].concat();
    let line =
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || write(Form::Fhir(Version::R4), &ROW, &object));
    let line = line.unwrap().join().expect("no overflow");
    assert!(line.contains(&format!("\"a\":{}{},", "[".repeat(5001), "]".repeat(5001))));
}
