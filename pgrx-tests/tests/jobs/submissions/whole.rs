//! What a completed submission stores, and when it can be seen.

use super::{
    BASE, Source, add, allowed, complete, fetched, finish, has_patients, kept, outcomes, request, stu3, submit, texts,
    wait_until,
};
use crate::support::{count, patient, patients, rows, run, value};
use fhir_bulk_tests::{gzip, wait_for};
use serde_json::{Value, json};

#[test]
fn nothing_is_visible_before_it_is_completed_and_then_everything_comes_in_one_transaction() {
    let (database, mut client) = allowed();
    let source = Source::new();
    let first = source.file("/first.ndjson", patients(1..=500));
    let second = source.file("/second", gzip(patients(501..=900).as_bytes()));
    let observation = r#"{"resourceType":"Observation","id":"o1","subject":{"reference":"Patient/p-1"}}"#;
    let others = source.file("/others", format!("{observation}\n"));
    let one = source.manifest("/1.json", &stu3(&[("Patient", &first)]));
    let two = source.manifest(
        "/2.json",
        &json!({"manifestType": "m", "transactionTime": "2026-11-27T08:00:00Z", "requiresAccessToken": false,
            "outputFormat": "application/fhir+ndjson", "outcome": [{"url": source.url("/gone")}],
            "output": [{"type": "Patient", "url": second, "count": 400, "fileSize": 7}, {"url": "others", "count": 1}]}),
    );
    let begun = add(&mut client, "s", &one);
    assert_eq!((&begun["status"], &begun["manifests"]), (&json!("in-progress"), &json!(1)), "{begun}");
    add(&mut client, "s", &two);
    fetched(&mut client, "s");
    assert!(!has_patients(&mut client));
    assert_eq!(kept(&mut client), [0, 3, 0]);
    let completed = complete(&mut client, "s");
    assert_ne!(completed["status"], "in-progress");
    let mut witness = database.connect();
    wait_for("all of it to be there", || {
        if !has_patients(&mut witness) {
            return false;
        }
        let seen = count(&mut witness, "SELECT count(*) FROM patient");
        assert!([0, 900].contains(&seen), "{seen}");
        seen == 900
    });
    let status = wait_until(&mut client, "s", "is applied", |status| status["status"] == "completed");
    assert_eq!((&status["total"], &status["outcome"]), (&json!(901), &json!([])));
    assert!(status["transactionTime"].as_str().unwrap().ends_with('Z'), "{status}");
    let numbers =
        "SELECT count(DISTINCT txid) FROM (SELECT txid FROM patient UNION ALL SELECT txid FROM observation) t";
    assert_eq!(count(&mut client, numbers), 1);
    // References stay as they are.
    let stored = value(&mut client, "SELECT resource -> 'subject' FROM observation");
    assert_eq!(stored, r#"{"id": "p-1", "resourceType": "Patient"}"#);
    assert_eq!(kept(&mut client), [0, 0, 0]);
    assert_eq!(source.seen("/gone"), [""; 0]);
    let url = others.rsplit('/').next().unwrap();
    assert_eq!(source.seen(&format!("/{url}")).len(), 1);
    let state = "SELECT kind, status, inputs, inputs_ended FROM bulk_jobs";
    wait_for("the job to end", || rows(&mut client, state) == ["submission|finished|3|3"]);
}

#[test]
fn completed_waits_for_what_is_still_fetched() {
    let (_database, mut client) = allowed();
    let stalling = crate::source::Stalling::new(patients(1..=300), 0.5);
    let source = Source::new();
    let manifest = source.manifest("/m", &stu3(&[("Patient", &stalling.url())]));
    submit(&mut client, "s", json!({"manifestUrl": manifest, "fhirBaseUrl": BASE, "submissionStatus": "completed"}));
    wait_for("bytes to be asked for", || stalling.requests() == 1);
    let status = super::status(&mut client, "s");
    assert_eq!((&status["status"], &status["manifestsFetched"]), (&json!("processing"), &json!(0)), "{status}");
    stalling.go_on();
    wait_until(&mut client, "s", "is applied", |status| status["status"] == "completed");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 300);
}

#[test]
fn a_bad_line_is_left_out_and_its_submitter_is_told_which_resource_it_was() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let lines = [
        patient("p-1", 1),
        r#"{"resourceType":"Patient","id":"broken","name":[}"#.to_owned(),
        r#"{"resourceType":"Observation","id":"o1"}"#.to_owned(),
        r#"{"resourceType":"Patient","id":"not an id"}"#.to_owned(),
        patient("p-2", 2),
    ];
    let url = source.patients("m", &lines.join("\n"));
    add(&mut client, "s", &url);
    let status = finish(&mut client, "s");
    assert_eq!((&status["total"], &status["manifestsLeftOut"]), (&json!(2), &json!(0)), "{status}");
    assert_eq!(rows(&mut client, "SELECT id FROM patient ORDER BY 1"), ["p-1", "p-2"]);
    let outcomes = outcomes(&mut client, &status);
    let found = &outcomes[&url];
    let extension = "http://hl7.org/fhir/StructureDefinition/operationoutcome-sourceResource";
    let reference = |outcome: &Value| {
        let source = &outcome["extension"][0];
        assert!(source.is_null() || source["url"] == extension);
        source["valueReference"]["reference"].as_str().map(str::to_owned)
    };
    let referred: Vec<_> = found.iter().map(reference).collect();
    let full = |name: &str| Some(format!("{BASE}/{name}"));
    assert_eq!(referred, [full("Patient/broken"), full("Observation/o1"), None]);
    let offset = lines[0].len() + 1;
    assert!(texts(found)[0].starts_with(&format!("line 2 (byte {offset}) of http://127.0.0.1:")), "{found:?}");
    assert!(texts(found)[1].contains("Observation") && texts(found)[2].contains("id"), "{found:?}");
    assert_eq!(
        (&found[0]["issue"][0]["code"], &found[2]["issue"][0]["code"]),
        (&json!("structure"), &json!("invalid"))
    );
}

#[test]
fn a_file_that_is_bad_or_short_leaves_its_manifest_out_whole_and_the_others_come() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let good = source.patients("good", &patients(1..=10));
    let other = source.file("/other", patients(100..=110));
    let lines = patients(20..=30);
    let short = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{lines}", lines.len() + 1);
    let mut cut = gzip(patients(20..=30).as_bytes());
    cut.truncate(cut.len() - 9);
    let bad = [
        ("gone", source.url("/gone"), "404"),
        ("short", source.answer("/short", short), "the connection broke"),
        ("cut", source.file("/cut", cut), "gzip stream is truncated"),
        ("chunks", source.answer("/chunks", fhir_bulk_tests::http::chunked(lines.as_bytes(), 100, false)), "broke"),
    ];
    let mut expected = Vec::new();
    for (name, file, why) in bad {
        let files = stu3(&[("Patient", &other), ("Patient", &file)]);
        expected.push((source.manifest(&format!("/{name}.json"), &files), why));
    }
    let mut fewer = stu3(&[("Patient", &other)]);
    fewer["output"][0]["count"] = 12.into();
    expected.push((source.manifest("/fewer.json", &fewer), "has 11 lines, and the manifest says that it has 12"));
    let mut around = stu3(&[("Patient", &other)]);
    around["link"] = json!([{"relation": "next", "url": "around.json"}]);
    expected.push((source.manifest("/around.json", &around), "the next page is one that was read before"));
    let mut deleted = stu3(&[("Patient", &other)]);
    deleted["deleted"] = json!([{"type": "Bundle", "url": "gone"}]);
    expected.push((source.manifest("/deleted.json", &deleted), "404"));
    let mut parquet = stu3(&[("Patient", &other)]);
    parquet["outputFormat"] = "application/vnd.apache.parquet".into();
    expected.push((source.manifest("/parquet.json", &parquet), "vnd.apache.parquet"));
    expected.push((source.file("/text.json", "no manifest"), "is not a manifest"));
    expected.push((source.url("/nothing.json"), "404"));
    add(&mut client, "s", &good);
    expected.iter().for_each(|(url, _)| drop(add(&mut client, "s", url)));
    let status = finish(&mut client, "s");
    assert_eq!(status["manifestsLeftOut"], expected.len(), "{status}");
    assert_eq!(rows(&mut client, "SELECT count(*), max(length(id)) FROM patient"), ["10|4"]);
    let outcomes = outcomes(&mut client, &status);
    assert_eq!(outcomes.len(), expected.len());
    for (url, why) in expected {
        let [text] = texts(&outcomes[&url])[..] else { panic!("{outcomes:?}") };
        assert!(text.contains(why) && text.contains(" is left out: "), "{url}: {text}");
    }
}

#[test]
fn pages_headers_of_organized_files_and_deletions_count() {
    let (_database, mut client) = allowed();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource)
         VALUES ('old', 1, 'created', '{\"a\": 1}'), ('stays', 1, 'created', '{}'), ('p-2', 1, 'created', '{}')",
    );
    let source = Source::new();
    let header =
        r#"{"resourceType":"Parameters","parameter":[{"name":"header","valueReference":{"reference":"Patient/p-1"}}]}"#;
    source.file("/organized", format!("{header}\n{}", patients(1..=3)));
    let entry = |url: &str| json!({"request": {"method": "DELETE", "url": url}});
    let bundle = |urls: &[&str]| {
        let entries: Vec<Value> = urls.iter().map(|url| entry(url)).collect();
        json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string()
    };
    let absolute = format!("{BASE}/Patient/p-3");
    let lines = [
        bundle(&["Patient/old", "Patient/unknown", "Nonsuch/1", &absolute]),
        bundle(&["Patient?name=x", "Patient/p-1/_history/1"]),
        "{}".to_owned(),
    ];
    source.file("/deleted", lines.join("\n"));
    let url = source.manifest(
        "/pages",
        &json!({"transactionTime": "t", "requiresAccessToken": false, "outputOrganizedBy": "Patient",
            "output": [{"url": "organized", "count": 4}], "link": [{"relation": "next", "url": "page2"}]}),
    );
    source.manifest("/page2", &json!({"transactionTime": "t", "output": [], "deleted": [{"url": "deleted"}]}));
    add(&mut client, "s", &url);
    let status = finish(&mut client, "s");
    let stored = "SELECT id, status, (resource ->> 'a') FROM patient ORDER BY 1";
    assert_eq!(
        rows(&mut client, stored),
        ["old|deleted|1", "p-1|created|∅", "p-2|updated|∅", "p-3|deleted|∅", "stays|created|∅"]
    );
    assert_eq!(count(&mut client, "SELECT count(DISTINCT txid) FROM patient WHERE id <> 'stays'"), 1);
    let outcomes = outcomes(&mut client, &status);
    let found = texts(&outcomes[&url]).join("\n");
    assert_eq!(found.lines().count(), 3, "{found}");
    for piece in ["DELETE Patient?name=x", "DELETE Patient/p-1/_history/1", "it is not a Bundle of deletions"] {
        assert!(found.contains(piece), "{found}");
    }
    // What is known as deleted comes again.
    let again = source.patients("again", &patient("old", 1));
    add(&mut client, "t", &again);
    finish(&mut client, "t");
    assert_eq!(value(&mut client, "SELECT status FROM patient WHERE id = 'old'"), "recreated");
}

#[test]
fn files_of_all_manifests_count_as_one_in_their_order() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
        let url = source.patients(name, &patient("same", number));
        add(&mut client, "s", &url);
    }
    let status = finish(&mut client, "s");
    assert_eq!(status["total"], 3);
    assert_eq!(rows(&mut client, "SELECT resource #>> '{multipleBirth,integer}', status FROM patient"), ["3|created"]);
}

#[test]
fn requests_are_parameters_too() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", &patients(1..=2));
    let parameters = |more: Value| {
        let mut all = vec![
            json!({"name": "submitter", "valueIdentifier": {"system": "https://hub.example/orgs", "value": "payer-7"}}),
            json!({"name": "submissionId", "valueString": "s"}),
        ];
        all.extend(more.as_array().unwrap().clone());
        json!({"resourceType": "Parameters", "parameter": all})
    };
    let manifest = parameters(json!([
        {"name": "manifestUrl", "valueUrl": url}, {"name": "fhirBaseUrl", "valueUrl": BASE},
        {"name": "outputFormat", "valueString": "application/fhir+ndjson; fhirVersion=4.0"},
        {"name": "metadata", "part": [{"name": "parameterUrl", "valueUri": "u"}, {"name": "parameterValue", "valueString": "v"}]},
        {"name": "fileRequestHeader", "part": [{"name": "headerName", "valueString": "x-a"}, {"name": "headerValue", "valueString": "1"}]},
        {"name": "fileRequestHeader", "part": [{"name": "headerName", "valueString": "x-b"}, {"name": "headerValue", "valueString": "2"}]}]));
    let begun: Value =
        serde_json::from_str(&value(&mut client, &format!("SELECT bulk_submit($json${manifest}$json$)"))).unwrap();
    let said = json!([{"manifestUrl": url, "parameterUrl": "u", "parameterValue": "v"}]);
    assert_eq!((begun.get("ignored"), &begun["metadata"]), (None, &said), "{begun}");
    let coding = json!({"system": "http://hl7.org/fhir/event-status", "code": "completed"});
    let completed = parameters(json!([{"name": "submissionStatus", "valueCoding": coding}]));
    value(&mut client, &format!("SELECT bulk_submit($json${completed}$json$)"));
    let asked = parameters(json!([{"name": "_outputFormat", "valueString": "application/fhir+ndjson"}]));
    wait_for("it to be applied", || {
        let status = value(&mut client, &format!("SELECT bulk_submit_status($json${asked}$json$) ->> 'status'"));
        status == "completed"
    });
    let heads = source.seen("/m.ndjson").join("") + &source.seen("/m.json").join("");
    for header in ["x-a: 1", "x-b: 2"] {
        assert_eq!(heads.matches(header).count(), 2, "{heads}");
    }
    // The plain form is about the same submission.
    let same = format!("SELECT bulk_submit_status($json${}$json$) ->> 'total'", request("s", json!({})));
    assert_eq!(value(&mut client, &same), "2");
}
