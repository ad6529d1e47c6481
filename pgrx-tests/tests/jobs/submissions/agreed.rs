//! What submitters and consumers agree on beside HL7's parameters: options of how resources are stored, and metadata.

use super::{BASE, Source, allowed, complete, fetched, finish, status, submit, wait_until};
use crate::support::{assert_error, fails, patient, patients, rows, run};
use serde_json::{Value, json};

/// A manifest with options, by their names in imports.
fn with(url: &str, options: &[(&str, &str)]) -> Value {
    let option = |(name, value): &(&str, &str)| json!({"parameterUrl": format!("urn:fhir-bulk:import:{name}"), "parameterValue": value});
    let options: Vec<Value> = options.iter().map(option).collect();
    json!({"manifestUrl": url, "fhirBaseUrl": BASE, "import": options})
}

#[test]
fn the_options_of_a_manifest_are_for_its_resources_only() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let first = source.patients("first", &patients(1..=4));
    submit(&mut client, "a", with(&first, &[]));
    finish(&mut client, "a");
    let before = rows(&mut client, "SELECT id, txid, xmin FROM patient ORDER BY id");
    let same = source.patients("same", &patients(1..=2));
    let kept = source.patients("kept", &format!("{}\n{}", patient("p-2", 2), patient("p-3", 33)));
    let plain = source.patients("plain", &patient("p-4", 44));
    let new = source.patients("new", &patient("p-5", 5));
    submit(&mut client, "b", with(&same, &[("skipUnchanged", "true")]));
    submit(&mut client, "b", with(&kept, &[("update", "true"), ("skipUnchanged", "true"), ("onConflict", "update")]));
    submit(&mut client, "b", with(&plain, &[("skipUnchanged", "false")]));
    submit(&mut client, "b", with(&new, &[("onConflict", "error")]));
    let status = finish(&mut client, "b");
    assert_eq!((&status["total"], &status["unchanged"]), (&json!(6), &json!(3)), "{status}");
    let after = rows(&mut client, "SELECT id, txid, xmin FROM patient ORDER BY id");
    assert_eq!(after[..2], before[..2]);
    assert!(after[2] != before[2] && after[3] != before[3] && after.len() == 5, "{after:?}");
    let numbers = "SELECT string_agg(resource #>> '{multipleBirth,integer}', ' ' ORDER BY id) FROM patient";
    assert_eq!(rows(&mut client, numbers), ["1 2 33 44 5"]);
    let history = "SELECT id, resource #>> '{multipleBirth,integer}' FROM patient_history";
    assert_eq!(rows(&mut client, history), ["p-3|3"]);
}

#[test]
fn ids_that_come_again_under_other_options_keep_all_their_versions() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    for (n, keeps) in [(1, "true"), (2, "false"), (3, "true"), (4, "true"), (5, "false"), (6, "true")] {
        let url = source.patients(&n.to_string(), &patient("p-1", n));
        submit(&mut client, "s", with(&url, &[("update", keeps)]));
    }
    finish(&mut client, "s");
    let versions = "SELECT resource #>> '{multipleBirth,integer}' FROM patient UNION ALL
                    (SELECT resource #>> '{multipleBirth,integer}' FROM patient_history ORDER BY txid)";
    assert_eq!(rows(&mut client, versions), ["6", "2", "5"]);
}

#[test]
fn a_known_id_that_is_an_error_fails_the_submission_and_leaves_nothing_of_it() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let first = source.patients("first", &patient("p-1", 1));
    let again = source.patients("again", &patient("p-1", 2));
    submit(&mut client, "s", with(&first, &[]));
    submit(&mut client, "s", with(&again, &[("onConflict", "error")]));
    complete(&mut client, "s");
    let failed = wait_until(&mut client, "s", "fails", |status| status["status"] == "failed");
    assert!(failed["error"].as_str().unwrap().contains("p-1"), "{failed}");
    assert!(!super::has_patients(&mut client));
    for options in [
        &[("onConflict", "maybe")][..],
        &[("update", "yes")],
        &[("skipUnchanged", "1")],
        &[("onConflict", "error"), ("update", "true")],
        &[("onConflict", "error"), ("skipUnchanged", "true")],
    ] {
        let error = fails(&mut client, &super::sql("t", with(&first, options)));
        assert_error(&error, "22023", &["import"]);
    }
    let unknown = fails(&mut client, &super::sql("t", with(&first, &[("disableIndexes", "true")])));
    assert_error(&unknown, "0A000", &["urn:fhir-bulk:import:disableIndexes"]);
}

#[test]
fn what_a_submitter_says_of_a_manifest_is_in_the_status_as_long_as_the_manifest_counts() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let urls = ["one", "two"].map(|name| source.patients(name, &patients(1..=2)));
    let said = |value: &str| json!([{"parameterUrl": "https://hub.example/purpose", "parameterValue": value}]);
    for (url, value) in urls.iter().zip(["care", "research"]) {
        submit(&mut client, "s", json!({"manifestUrl": url, "fhirBaseUrl": BASE, "metadata": said(value)}));
    }
    fetched(&mut client, "s");
    let of = |url: &str, value: &str| {
        let mut one = said(value)[0].clone();
        one["manifestUrl"] = url.into();
        one
    };
    assert_eq!(status(&mut client, "s")["metadata"], json!([of(&urls[0], "care"), of(&urls[1], "research")]));
    submit(&mut client, "s", json!({"replacesManifestUrl": urls[0]}));
    assert_eq!(finish(&mut client, "s")["metadata"], json!([of(&urls[1], "research")]));
}

#[test]
fn more_bytes_than_may_wait_leave_a_manifest_out_and_nothing_of_it_stays() {
    let (database, _) = allowed();
    let mut client = crate::job::set(&database, "fhir_bulk.submission_max_bytes = '60kB'");
    let source = Source::new();
    // Ids that gzip cannot make much smaller.
    let lines = |from: u64, to: u64| -> String {
        let id =
            |n: u64| format!("{:x}-{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
        (from..to).map(|n| format!("{{\"resourceType\":\"Patient\",\"id\":\"{}\"}}\n", id(n))).collect()
    };
    let fits = source.patients("fits", &lines(1, 1000));
    let large = source.patients("large", &lines(1000, 4000));
    let errors = source.patients("errors", &"x\n".repeat(1000));
    submit(&mut client, "s", with(&fits, &[]));
    assert_eq!(fetched(&mut client, "s")["manifestsLeftOut"], 0);
    for url in [&large, &errors] {
        submit(&mut client, "s", with(url, &[]));
        fetched(&mut client, "s");
    }
    let status = status(&mut client, "s");
    assert_eq!((&status["manifestsFetched"], &status["manifestsLeftOut"]), (&json!(3), &json!(2)), "{status}");
    let outcomes = super::outcomes(&mut client, &status);
    for url in [&large, &errors] {
        let texts = super::texts(&outcomes[url]);
        assert!(texts.len() == 1 && texts[0].contains("more than 61440 bytes"), "{texts:?}");
    }
    let pieces = "SELECT DISTINCT manifest FROM fhir_bulk_internal.bulk_submission_piece";
    assert_eq!(rows(&mut client, pieces), ["2"]);
    let counted = "SELECT sum(staged) = (SELECT sum(octet_length(bytes)) FROM fhir_bulk_internal.bulk_submission_piece)
                   + (SELECT sum(octet_length(lines)) FROM fhir_bulk_internal.bulk_submission_outcome)
                   FROM fhir_bulk_internal.bulk_submission_manifest";
    assert_eq!(rows(&mut client, counted), ["t"]);
    assert_eq!(finish(&mut client, "s")["total"], 999);
    // With less than is there already, nothing can be added.
    submit(&mut client, "t", with(&fits, &[]));
    fetched(&mut client, "t");
    run(&mut client, "SET fhir_bulk.submission_max_bytes = '1kB'");
    let more = source.patients("more", "");
    assert_error(&fails(&mut client, &super::sql("t", with(&more, &[]))), "53100", &["more than 1024 bytes"]);
    let role = super::submitter(&database, &mut client, "one");
    let mut own = database.connect_as(&role);
    run(&mut own, "SELECT bulk_job_subject()");
    assert_eq!(fails(&mut own, "SET fhir_bulk.submission_max_bytes = 0").code().code(), "42501");
}
