//! What is taken back leaves nothing.

use super::{BASE, Source, add, allowed, fetched, finish, has_patients, kept, status, stu3, submit};
use crate::job::{wait_for_workers_to_end, worker};
use crate::source::Stalling;
use crate::support::{count, patient, patients, rows, run};
use fhir_bulk_tests::wait_for;
use serde_json::json;

#[test]
fn a_submission_that_is_stopped_leaves_nothing() {
    let (database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", &format!("{}x\n", patients(1..=5)));
    add(&mut client, "s", &url);
    fetched(&mut client, "s");
    assert_eq!(kept(&mut client), [0, 1, 1]);
    // One that waits for bytes is interrupted.
    let stalling = Stalling::new(patients(10..=2000), 0.5);
    let other = source.manifest("/other", &stu3(&[("Patient", &stalling.url())]));
    let header = json!([{"headerName": "x-key", "headerValue": "geheim"}]);
    submit(&mut client, "s", json!({"manifestUrl": other, "fhirBaseUrl": BASE, "fileRequestHeader": header}));
    wait_for("bytes to be asked for", || stalling.requests() == 1);
    worker(&mut client);
    let stopped = submit(&mut client, "s", json!({"submissionStatus": "stopped"}));
    assert_eq!((&stopped["status"], &stopped["outcome"]), (&json!("stopped"), &json!([])), "{stopped}");
    assert_eq!(kept(&mut client), [0, 0, 0]);
    wait_for_workers_to_end(&database);
    assert_eq!(kept(&mut client), [0, 0, 0]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_submission_manifest"), 0);
    assert!(!has_patients(&mut client));
    assert_eq!(rows(&mut client, "SELECT status FROM bulk_jobs"), ["cancelled"]);
}

#[test]
fn a_manifest_that_is_replaced_or_discarded_leaves_nothing() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let wrong = source.patients("wrong", &format!("{}x\n", patients(1..=5)));
    let right = source.patients("right", &patients(6..=7));
    let more = source.patients("more", &patients(8..=8));
    let also_wrong = source.patients("also-wrong", &patient("p-6", 99));
    let stalling = Stalling::new(patients(10..=20), 0.5);
    let stalled = source.manifest("/stalled", &stu3(&[("Patient", &stalling.url())]));
    for url in [&wrong, &more] {
        add(&mut client, "s", url);
    }
    fetched(&mut client, "s");
    let replace = |old: &str, new: &str| json!({"manifestUrl": new, "fhirBaseUrl": BASE, "replacesManifestUrl": old});
    submit(&mut client, "s", replace(&wrong, &right));
    add(&mut client, "s", &also_wrong);
    add(&mut client, "s", &stalled);
    wait_for("bytes to be asked for", || stalling.requests() == 1);
    submit(&mut client, "s", json!({"replacesManifestUrl": stalled}));
    submit(&mut client, "s", json!({"replacesManifestUrl": also_wrong}));
    let after = fetched(&mut client, "s");
    assert_eq!((&after["manifests"], &after["outcome"]), (&json!(2), &json!([])), "{after}");
    let status = finish(&mut client, "s");
    assert_eq!((&status["total"], &status["outcome"]), (&json!(3), &json!([])));
    let stored = "SELECT id, resource #>> '{multipleBirth,integer}' FROM patient ORDER BY 1";
    assert_eq!(rows(&mut client, stored), ["p-6|6", "p-7|7", "p-8|8"]);
    assert_eq!(kept(&mut client), [0, 0, 0]);
}

#[test]
fn a_request_that_is_rolled_back_was_never_made() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", &patients(1..=5));
    run(&mut client, "BEGIN");
    add(&mut client, "s", &url);
    run(&mut client, "ROLLBACK");
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_jobs"), [""; 0]);
    add(&mut client, "s", &url);
    fetched(&mut client, "s");
    run(&mut client, "BEGIN");
    submit(&mut client, "s", json!({"submissionStatus": "completed"}));
    run(&mut client, "ROLLBACK; BEGIN");
    submit(&mut client, "s", json!({"submissionStatus": "stopped"}));
    run(&mut client, "ROLLBACK");
    assert_eq!(status(&mut client, "s")["status"], "in-progress");
    assert!(!has_patients(&mut client));
    finish(&mut client, "s");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 5);
}

#[test]
fn what_is_fetched_goes_with_the_extension() {
    let (database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", &patients(1..=5));
    add(&mut client, "s", &url);
    fetched(&mut client, "s");
    let stalling = Stalling::new(patients(10..=20), 0.5);
    let stalled = source.manifest("/stalled", &stu3(&[("Patient", &stalling.url())]));
    add(&mut client, "s", &stalled);
    wait_for("bytes to be asked for", || stalling.requests() == 1);
    run(&mut client, "DROP EXTENSION fhir_bulk");
    stalling.go_on();
    wait_for_workers_to_end(&database);
    run(&mut client, "CREATE EXTENSION fhir_bulk");
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_jobs"), [""; 0]);
    assert!(!has_patients(&mut client));
}
