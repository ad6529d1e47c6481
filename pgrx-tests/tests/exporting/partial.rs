//! `allowPartialManifests`: files are shown, and can be read, before the export has ended, and never change.

use crate::by_patient::by_patient;
use crate::job::{
    close_gate, done, download, export, files, finish, gated, ids, lines, own_server, patients_and_observations,
    patients_first, status, wait_for_no_files, wait_for_readers, with_location, with_location_on,
};
use crate::support::{assert_error, count, fails, run, value};
use fhir_bulk_tests::{Client, wait_for};
use serde_json::{Value, json};

/// How many jobs wait at a gate themselves.
const AT_GATE: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'fhir_bulk job worker' AND wait_event = 'PgSleep'";

fn request(more: Value) -> Value {
    let mut request = json!({"_type": "Patient,Observation", "allowPartialManifests": true});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The names of the files that a status shows, without the signatures of their URLs.
pub fn names(status: &Value) -> Vec<String> {
    let files = status["output"].as_array().into_iter().flatten();
    let name = |file: &Value| file["url"].as_str().unwrap().split('?').next().unwrap().to_owned();
    files.map(name).collect()
}

/// Waits until a running export shows files. Returns its status.
pub fn shown(client: &mut Client, id: &str, count: usize) -> Value {
    let mut last = Value::Null;
    wait_for("files to be shown", || {
        last = status(client, id);
        assert_eq!(last["error"].as_str(), None, "{last}");
        names(&last).len() >= count
    });
    last
}

#[test]
fn a_file_is_shown_and_can_be_read_before_the_export_has_ended_and_stays_as_it_is() {
    for workers in [1, 3] {
        let (database, mut client) = with_location();
        patients_and_observations(&mut client, 1000);
        patients_first(&mut client);
        run(&mut client, &format!("SET fhir_bulk.export_workers = {workers}"));
        let mut gate = gated(&mut client, &database, "Observation");
        let id = loop {
            let id = export(&mut client, &request(json!({"_maximumFileSize": 65536})));
            let mut written = false;
            wait_for("all patients to be written, or the job's own process at the gate", || {
                written = status(&mut client, &id)["progress"]["resources"] == 1000;
                written || count(&mut client, AT_GATE) == 1
            });
            if written {
                break id;
            }
            // Its own process shows how far it is. If it waits itself, a helper has taken the patients: once more.
            gate.open();
            assert_eq!(finish(&mut client, &id)["status"], "completed");
            gate = close_gate(&database);
        };
        let early = shown(&mut client, &id, 3);
        assert_eq!(early["status"], "processing");
        assert_eq!(
            (&early["allowPartialManifests"], &early["deleted"], &early["error"]),
            (&json!(true), &json!([]), &json!([]))
        );
        let read: Vec<Vec<u8>> =
            early["output"].as_array().unwrap().iter().map(|file| download(&mut client, &file["url"])).collect();
        let number = lines(&mut client, &early, "Patient").len();
        assert!(number > 100, "{early}");
        // Changed after the snapshot.
        run(&mut client, "DELETE FROM patient WHERE id::int > 10");

        gate.open();
        let whole = finish(&mut client, &id);
        assert_eq!(whole["status"], "completed", "{whole}");
        let known = names(&early);
        assert_eq!(names(&whole)[..known.len()], known);
        for (at, bytes) in read.iter().enumerate() {
            let file = &whole["output"][at];
            assert_eq!((&file["count"], &file["type"]), (&early["output"][at]["count"], &early["output"][at]["type"]));
            assert!(*bytes == download(&mut client, &file["url"]), "{file} has changed");
        }
        assert_eq!(early["transactionTime"], whole["transactionTime"]);
        assert_eq!(
            (ids(&mut client, &whole, "Patient").len(), ids(&mut client, &whole, "Observation").len()),
            (1000, 1000)
        );
        let of_it = files(&database).iter().filter(|file| file.contains(&format!("/{id}/"))).count();
        assert_eq!(names(&whole).len(), of_it, "nothing but files is left");
    }
}

#[test]
fn without_the_parameter_nothing_is_shown_before_all_is_there() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 10);
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &request(json!({"allowPartialManifests": false})));
    wait_for_readers(&mut client, 1);
    let now = status(&mut client, &id);
    assert_eq!((now["status"].as_str(), now.get("output")), (Some("processing"), None), "{now}");
    gate.open();
    assert_eq!(finish(&mut client, &id).get("allowPartialManifests"), None);
}

#[test]
fn an_export_that_is_cancelled_takes_back_what_it_has_shown() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 100);
    patients_first(&mut client);
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &request(json!({})));
    let url = shown(&mut client, &id, 1)["output"][0]["url"].as_str().unwrap().to_owned();
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    wait_for_no_files(&database);
    assert_error(&fails(&mut client, &format!("SELECT bulk_export_file('{url}')")), "58P01", &["no longer exists"]);
    let now = status(&mut client, &id);
    assert_eq!((now["status"].as_str(), now.get("output")), (Some("cancelled"), None), "{now}");
    gate.open();
}

#[test]
fn an_export_that_ends_early_fails_if_it_has_shown_files_and_begins_anew_if_not() {
    let server = own_server();
    let (database, mut client) = with_location_on(server.database("partial"));
    patients_and_observations(&mut client, 100);
    patients_first(&mut client);
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let first = gated(&mut client, &database, "Observation");
    let shows = export(&mut client, &request(json!({})));
    shown(&mut client, &shows, 1);
    let shows_not = export(&mut client, &request(json!({"_type": "Observation"})));
    wait_for_readers(&mut client, 2);
    server.kill_server();
    server.start_server();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let failed = finish(&mut client, &shows);
    assert_eq!((failed["status"].as_str(), failed.get("output")), (Some("failed"), None), "{failed}");
    let why = failed["error"].as_str().unwrap();
    assert!(why.contains("after it had announced files") && why.contains("start another one"), "{why}");
    first.open();
    let whole = finish(&mut client, &shows_not);
    assert_eq!(whole["status"], "completed", "{whole}");
    assert_eq!(ids(&mut client, &whole, "Observation").len(), 100);
    wait_for("the files of the failed one to be gone", || {
        files(&database).iter().all(|file| file.contains(&format!("/{shows_not}/")))
    });
    // The same in the middle of a server that goes on: a worker that is ended.
    let gate = close_gate(&database);
    let id = export(&mut client, &request(json!({})));
    shown(&mut client, &id, 1);
    wait_for_readers(&mut client, 1);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'fhir_bulk job worker' AND wait_event = 'PgSleep'";
    // It wakes up now and then to look for the gate.
    wait_for("a worker to be ended", || value(&mut client, end) == "1");
    let failed = finish(&mut client, &id);
    assert!(failed["error"].as_str().is_some_and(|why| why.contains("announced files")), "{failed}");
    gate.open();
}

#[test]
fn a_file_that_goes_on_in_another_one_is_shown_when_that_one_is_final() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1000);
    run(
        &mut client,
        "UPDATE observation SET resource = jsonb_build_object('text', repeat(md5(id), 20),
           'subject', jsonb_build_object('id', (1 + id::int % 2)::text, 'resourceType', 'Patient'))",
    );
    let whole = done(&mut client, &by_patient(request(json!({"_maximumFileSize": 65536}))));
    let output = whole["output"].as_array().unwrap();
    let name = |url: &Value| url.as_str().unwrap().split('?').next().unwrap().to_owned();
    let place = |wanted: &str| output.iter().position(|file| name(&file["url"]) == wanted);
    let chained: Vec<(usize, usize)> = output
        .iter()
        .enumerate()
        .filter(|(_, file)| file["continuesInFile"].is_string())
        .map(|(at, file)| (at, place(&name(&file["continuesInFile"])).unwrap()))
        .collect();
    assert!(chained.len() > 3, "{whole}");
    assert!(chained.iter().all(|(at, next)| at < next), "{chained:?}");
    assert_eq!(output.len(), files(&database).len());
}
