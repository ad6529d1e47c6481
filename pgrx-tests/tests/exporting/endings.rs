//! The end of an export: either all its files exist, or none.

use crate::job::{
    done, export, files, finish, gated, ids, own_server, patients_and_observations, status, wait_for_no_files,
    wait_for_readers, with_location, with_location_on,
};
use crate::support::{assert_error, count, fails, rows, run, value};
use fhir_bulk_tests::disk::SmallDisk;
use fhir_bulk_tests::{Client, shared, wait_for};
use serde_json::json;

fn wait_until_processing(client: &mut Client, id: &str) {
    wait_for("the export to be worked on", || status(client, id)["status"] == "processing");
}

#[test]
fn a_cancelled_export_leaves_nothing_and_cannot_be_cancelled_again() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1000);
    // Patients are written by then; observations are not.
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_for("the first file", || !files(&database).is_empty());
    assert!(
        files(&database).iter().all(|file| !file.contains(&format!("/{id}/"))),
        "a file is there before all are whole"
    );
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    assert_eq!(status(&mut client, &id)["status"], "cancelled");
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "f");
    wait_for_no_files(&database);
    gate.open();
    // An export that waits for a worker has written nothing, and never will.
    run(&mut client, "BEGIN");
    let id = export(&mut client, &json!({"_type": "Patient,Observation"}));
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    run(&mut client, "COMMIT");
    assert_eq!(finish(&mut client, &id)["status"], "cancelled");
    // The files of a finished export are removed when it is cancelled.
    let id = done(&mut client, &json!({"_type": "Patient,Observation"}))["jobId"].as_str().unwrap().to_owned();
    assert_eq!(files(&database).len(), 2);
    run(&mut client, "BEGIN");
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    run(&mut client, "ROLLBACK");
    assert_eq!(status(&mut client, &id)["status"], "completed");
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    assert_eq!(status(&mut client, &id)["status"], "cancelled");
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "f");
    wait_for_no_files(&database);
}

#[test]
fn an_export_whose_end_no_worker_has_noted_yet_can_be_taken_back() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 10);
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_until_processing(&mut client, &id);
    // Workers pass over a job that somebody has locked.
    let mut other = database.connect();
    run(&mut other, &format!("BEGIN; SELECT FROM fhir_bulk_internal.bulk_job WHERE id = '{id}' FOR KEY SHARE"));
    gate.open();
    wait_for("the task to have finished", || {
        count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE status = 'finished'") == 1
    });
    assert_eq!(status(&mut client, &id)["status"], "processing");
    assert_eq!(value(&mut other, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    run(&mut other, "COMMIT");
    wait_for_no_files(&database);
}

#[test]
fn who_waits_for_an_export_sees_how_many_resources_are_written() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1000);
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &json!({"resourceTypes": ["Patient", "Observation"]}));
    wait_for("the patients to be counted", || status(&mut client, &id)["progress"] == json!({"resources": 1000}));
    let copies = "SELECT command, tuples_processed FROM pg_stat_progress_copy WHERE datname = current_database()";
    assert_eq!(rows(&mut client, copies), ["COPY TO|1000"]);
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!((&status["count"], status.get("progress")), (&json!(2000), None), "{status}");
    assert_eq!(rows(&mut client, copies), [""; 0]);
}

#[test]
fn a_helper_that_is_ended_has_the_export_begin_anew() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 100);
    let gate = gated(&mut client, &database, "Patient");
    std::mem::forget(gated(&mut client, &database, "Observation"));
    let id = export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_for_readers(&mut client, 2);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'parallel worker'";
    assert_eq!(count(&mut client, end), 1);
    wait_for_readers(&mut client, 2);
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(ids(&mut client, &status, "Patient").len(), 100);
    assert_eq!(files(&database).len(), 2);
}

#[test]
fn a_worker_that_is_ended_has_the_next_one_begin_anew() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 100);
    let gate = gated(&mut client, &database, "Patient");
    let id = export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_for_readers(&mut client, 1);
    let worker = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'fhir_bulk job worker'";
    let pid = value(&mut client, &format!("SELECT pid {worker}"));
    run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
    wait_for("the worker to end", || rows(&mut client, &format!("SELECT pid {worker} AND pid = {pid}")).is_empty());
    run(
        &mut client,
        "INSERT INTO patient (id, txid, status, resource) VALUES ('late', 1, 'created', ROW('{}')::gated)",
    );
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    // The time at which it started again.
    assert_eq!(ids(&mut client, &status, "Patient").len(), 101);
    assert_eq!(files(&database).len(), 2);
}

#[test]
fn an_export_begins_anew_after_a_crash_and_one_that_is_not_wanted_then_leaves_nothing() {
    let server = own_server();
    let (database, mut client) = with_location_on(server.database("crashing"));
    patients_and_observations(&mut client, 100);
    let gate = gated(&mut client, &database, "Observation");
    let wanted = export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_until_processing(&mut client, &wanted);
    let unwanted = export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_for("both to have written", || files(&database).len() == 2);
    server.kill_server();
    assert_eq!(files(&database).len(), 2);
    run_after_restart(server, &database, &unwanted, &wanted, gate);
}

fn run_after_restart(
    server: &'static fhir_bulk_tests::Cluster,
    database: &fhir_bulk_tests::Database,
    unwanted: &str,
    wanted: &str,
    gate: crate::job::Gate,
) {
    server.start_server();
    let mut client = database.connect();
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{unwanted}')")), "t");
    gate.open();
    let status = finish(&mut client, wanted);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(ids(&mut client, &status, "Observation").len(), 100);
    wait_for("only what was wanted to be left", || {
        let left = files(database);
        left.len() == 2 && left.iter().all(|file| file.contains(&format!("/{wanted}/")))
    });
}

#[test]
fn files_and_jobs_are_gone_when_their_time_is_over() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 10);
    let status = done(&mut client, &json!({"_type": "Patient,Observation"}));
    let (id, url) = (status["jobId"].as_str().unwrap(), status["output"][0]["url"].as_str().unwrap());
    assert_eq!(files(&database).len(), 2);
    run(&mut client, &format!("ALTER DATABASE {} SET fhir_bulk.export_retention = 0", database.name()));
    let mut client = database.connect();
    assert_error(&fails(&mut client, &format!("SELECT bulk_export_status('{id}')")), "P0002", &[id]);
    wait_for_no_files(&database);
    wait_for("the job to be forgotten", || count(&mut client, "SELECT count(*) FROM bulk_jobs") == 0);
    assert_error(&fails(&mut client, &format!("SELECT bulk_export_file('{url}')")), "58P01", &["no longer exists"]);
}

#[test]
fn a_full_disk_fails_the_export_which_gives_the_room_back() {
    let (database, mut client) = with_location();
    let folder = database.cluster().shared_folder("small_exports");
    let Some(disk) = SmallDisk::mount(&folder, 2) else { return };
    patients_and_observations(&mut client, 20_000);
    run(&mut client, &format!("SET fhir_bulk.export_location = 'file://{}'", folder.display()));
    let id = export(&mut client, &json!({"_type": "Patient,Observation"}));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().unwrap().contains("No space left on device"), "{status}");
    let left = || {
        let mut find = fhir_bulk_tests::as_server_user(std::path::Path::new("/usr/bin/find"));
        find.arg(&folder).args(["-type", "f"]).output().unwrap().stdout
    };
    wait_for("the room to be free again", || left().is_empty());
    for taken_back in ["t", "f"] {
        assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), taken_back, "of a failed one");
    }
    disk.grow(100);
    let status = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(ids(&mut client, &status, "Patient").len(), 20_000);
}

#[test]
fn an_extension_that_is_dropped_during_an_export_leaves_no_files_of_it() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 100);
    let gate = gated(&mut client, &database, "Observation");
    export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_for("the first file", || !files(&database).is_empty());
    run(&mut client, "DROP EXTENSION fhir_bulk");
    gate.open();
    wait_for_no_files(&database);
}

#[test]
fn a_database_that_is_dropped_by_force_leaves_files_of_a_running_export_that_have_no_urls() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 100);
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &json!({"_type": "Patient,Observation"}));
    wait_for("the first file", || !files(&database).is_empty());
    drop(client);
    run(&mut shared().connect("postgres", "postgres"), &format!("DROP DATABASE {} WITH (FORCE)", database.name()));
    let left = files(&database);
    assert!(left.iter().all(|file| file.contains(&format!("/.draft-{id}/"))), "{left:?}");
    gate.open();
}
