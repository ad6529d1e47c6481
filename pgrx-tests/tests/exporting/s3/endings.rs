//! However an export into a bucket ends, and when its time is over: nothing is left there that nobody wants.

use super::{
    assert_empty, downloaded, dump, large_patients, objects, server_with_key, set, wait_until_empty, with_service,
    with_service_on,
};
use crate::job::{
    close_gate, done, export, finish, gated, patients_and_observations, patients_first, reconnected, wait_for_readers,
};
use crate::partial::{names, shown};
use crate::support::{assert_error, count, fails, rows, run, value};
use fhir_bulk_tests::s3::{Fault, S3Server};
use fhir_bulk_tests::{Cluster, wait_for};
use serde_json::json;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_cancelled_export_leaves_neither_objects_nor_parts() {
    let service = S3Server::new();
    let (database, mut client) = with_service(&service.endpoint());
    large_patients(&mut client, 30, 1024);
    run(
        &mut client,
        "SELECT bulk_create_table('Observation'); INSERT INTO observation (id, txid, status, resource) VALUES ('1', 1, 'created', '{}')",
    );
    let gate = gated(&mut client, &database, "Observation");
    // In the middle of a file, with parts behind it; then between two.
    for (request, parts) in
        [(json!({"resourceTypes": ["Patient", "Observation"]}), true), (json!({"_type": "Patient,Observation"}), false)]
    {
        run(&mut client, "SET fhir_bulk.export_workers = 1");
        let id = export(&mut client, &request);
        wait_for_readers(&mut client, 1);
        if parts {
            wait_for("parts", || service.unfinished().iter().any(|name| name.contains("part-3")));
        } else {
            wait_for("an object", || objects(&service, &id).iter().any(|name| name.starts_with("Patient")));
        }
        assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
        wait_until_empty(&service);
        assert_eq!(finish(&mut client, &id)["status"], "cancelled");
    }
    gate.open();
}

#[test]
fn objects_are_shown_before_the_export_has_ended_if_the_request_allows_it_and_removed_if_it_is_cancelled() {
    let service = S3Server::new();
    let (database, mut client) = with_service(&service.endpoint());
    patients_and_observations(&mut client, 1000);
    patients_first(&mut client);
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let request = json!({"_type": "Patient,Observation", "allowPartialManifests": true, "_maximumFileSize": 65536});
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &request);
    let early = shown(&mut client, &id, 3);
    let first = downloaded(&early["output"][0]["url"]);
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    wait_until_empty(&service);
    gate.open();

    let gate = close_gate(&database);
    let id = export(&mut client, &request);
    let early = shown(&mut client, &id, 3);
    assert_eq!(downloaded(&early["output"][0]["url"]), first);
    gate.open();
    let whole = finish(&mut client, &id);
    assert_eq!(names(&whole)[..3], names(&early)[..3]);
    assert_eq!(downloaded(&whole["output"][0]["url"]), first);
    wait_for("nothing but files to be left", || objects(&service, &id).len() == names(&whole).len());
}

#[test]
fn an_extension_that_is_dropped_during_an_export_leaves_neither_objects_nor_parts() {
    let service = S3Server::new();
    let (database, mut client) = with_service(&service.endpoint());
    large_patients(&mut client, 30, 1024);
    run(
        &mut client,
        "SELECT bulk_create_table('Observation');
         INSERT INTO observation (id, txid, status, resource) VALUES ('1', 1, 'created', '{}')",
    );
    let gate = gated(&mut client, &database, "Observation");
    export(&mut client, &json!({"resourceTypes": ["Patient", "Observation"]}));
    wait_for("parts", || service.unfinished().iter().any(|name| name.contains("part-3")));
    run(&mut client, "DROP EXTENSION fhir_bulk");
    gate.open();
    wait_until_empty(&service);
}

#[test]
fn a_worker_that_waits_for_a_silent_service_ends_when_it_is_told_to() {
    let service = S3Server::new();
    let silent = service.behind(|n| if n == 0 { Fault::None } else { Fault::Stall });
    let (database, _) = with_service(&silent.endpoint());
    set(&database, "idle_timeout", "1h");
    let mut client = database.connect();
    patients_and_observations(&mut client, 5);
    for waits_for in ["an object to be stored", "the job to be cleared"] {
        let before = silent.connections();
        export(&mut client, &json!({"resourceTypes": ["Patient"]}));
        wait_for(waits_for, || silent.connections() > before + usize::from(before == 0));
        let worker =
            "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'fhir_bulk job worker'";
        // The next one may be there at once, for what is left to do.
        let told = rows(&mut client, &format!("SELECT pid {worker}"));
        for pid in &told {
            run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
        }
        let told = told.join(",");
        wait_for("the worker to end", || {
            count(&mut client, &format!("SELECT count(*) {worker} AND pid = ANY ('{{{told}}}')")) == 0
        });
    }
}

#[test]
fn a_service_that_fails_fails_the_export_which_leaves_nothing_once_the_service_is_back() {
    let service = S3Server::new();
    static BROKEN: AtomicBool = AtomicBool::new(false);
    let proxy = service.behind(|n| if n > 4 && BROKEN.load(Ordering::SeqCst) { Fault::Busy } else { Fault::None });
    BROKEN.store(true, Ordering::SeqCst);
    let (database, mut client) = with_service(&proxy.endpoint());
    large_patients(&mut client, 30, 1024);
    // Cleared, begun, noted, two parts; then no more.
    let id = export(&mut client, &json!({}));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    let error = status["error"].as_str().unwrap();
    for piece in ["could not write s3://bucket/exports/fhir/", "Patient.1.ndjson", "503: Service Unavailable"] {
        assert!(error.contains(piece), "{error}");
    }
    assert!(!service.unfinished().is_empty());
    BROKEN.store(false, Ordering::SeqCst);
    // The next worker that there is sees to it, and whoever asks for a status has one started.
    wait_for("what was left to be gone", || {
        run(&mut client, &format!("SELECT bulk_export_status('{id}')"));
        service.keys("bucket").is_empty() && service.unfinished().is_empty()
    });
    let status = done(&mut client, &json!({}));
    assert!(downloaded(&status["output"][0]["url"]) == dump(&mut client, "Patient").as_bytes());
    drop(database);
}

#[test]
fn an_export_begins_anew_after_a_crash_and_nothing_of_the_first_attempt_is_left() {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(server_with_key);
    for whole_server in [false, true] {
        let service = S3Server::new();
        let (database, mut client) = with_service_on(cluster, &service.endpoint());
        large_patients(&mut client, 30, 1024);
        run(
            &mut client,
            "SELECT bulk_create_table('Observation'); INSERT INTO observation (id, txid, status, resource) VALUES ('1', 1, 'created', '{}')",
        );
        let gate = gated(&mut client, &database, "Observation");
        let id = export(&mut client, &json!({"resourceTypes": ["Patient", "Observation"]}));
        wait_for_readers(&mut client, 1);
        wait_for("parts", || service.unfinished().iter().any(|name| name.contains("part-3")));
        let worker = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'fhir_bulk job worker'";
        let pid: i32 = value(&mut client, worker).parse().unwrap();
        if whole_server {
            cluster.kill_server();
        } else {
            cluster.kill_backend(pid);
            // The server ends everybody, and begins again.
            wait_for("the server to notice", || client.batch_execute("SELECT 1").is_err());
        }
        assert!(!service.unfinished().is_empty());
        if whole_server {
            cluster.start_server();
        }
        let mut client = reconnected(&database);
        // The second attempt is shorter: nothing of the first may be among it.
        run(&mut client, "DELETE FROM patient WHERE id::int > 3");
        gate.open();
        let status = finish(&mut client, &id);
        assert_eq!(status["status"], "completed", "{status}");
        assert_eq!(objects(&service, &id), ["export.1.ndjson"]);
        assert_eq!((service.keys("bucket").len(), service.unfinished()), (1, Vec::new()));
        let text = String::from_utf8(downloaded(&status["downloadUrl"])).unwrap();
        assert!(text == dump(&mut client, "Patient") + &dump(&mut client, "Observation"));
        assert_eq!(status["count"], 4);
    }
}

#[test]
fn expired_objects_are_removed_and_if_the_service_is_away_then_later() {
    let service = S3Server::new();
    static AWAY: AtomicBool = AtomicBool::new(false);
    let proxy = service.behind(|_| if AWAY.load(Ordering::SeqCst) { Fault::Busy } else { Fault::None });
    let (database, mut client) = with_service(&proxy.endpoint());
    patients_and_observations(&mut client, 10);
    let id = export(&mut client, &json!({}));
    finish(&mut client, &id);
    assert_eq!(objects(&service, &id).len(), 2);
    AWAY.store(true, Ordering::SeqCst);
    set(&database, "export_retention", "0");
    let mut client = database.connect();
    let asked = proxy.connections();
    let gone = format!("SELECT bulk_export_status('{id}')");
    assert_error(&fails(&mut client, &gone), "P0002", &[&id]);
    wait_for("a worker to have tried", || {
        fails(&mut client, &gone);
        proxy.connections() > asked && database.cluster().log().contains(&format!("/{id}: 503"))
    });
    // The job is remembered as long as there is something of it.
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_jobs"), 1);
    assert_eq!(objects(&service, &id).len(), 2);
    AWAY.store(false, Ordering::SeqCst);
    wait_for("the objects to be gone", || {
        fails(&mut client, &gone);
        service.keys("bucket").is_empty()
    });
    wait_for("the job to be forgotten", || count(&mut client, "SELECT count(*) FROM bulk_jobs") == 0);
    assert_empty(&service);
}

#[test]
fn a_silent_service_is_asked_once_for_all_that_is_to_be_removed_and_holds_nothing_up_meanwhile() {
    let service = S3Server::new();
    static SILENT: AtomicBool = AtomicBool::new(false);
    let proxy = service.behind(|_| if SILENT.load(Ordering::SeqCst) { Fault::Stall } else { Fault::None });
    let (database, mut client) = with_service(&proxy.endpoint());
    patients_and_observations(&mut client, 1);
    let ids = [(); 3].map(|()| export(&mut client, &json!({})));
    ids.iter().for_each(|id| assert_eq!(finish(&mut client, id)["status"], "completed"));
    let worker = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'fhir_bulk job worker'";
    let workers = format!("SELECT count(*) {worker}");
    wait_for("the workers to end", || count(&mut client, &workers) == 0);
    SILENT.store(true, Ordering::SeqCst);
    set(&database, "export_retention", "0");
    set(&database, "idle_timeout", "3s");
    let mut client = database.connect();
    let asked = proxy.connections();
    fails(&mut client, &format!("SELECT bulk_export_status('{}')", ids[0]));
    wait_for("the service to be asked", || proxy.connections() > asked);
    // No transaction that would hold up vacuum, other exports and those who want rows of the queue.
    let open = format!("SELECT count(*) {worker} AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)");
    assert_eq!((count(&mut client, &workers), count(&mut client, &open)), (1, 0));
    wait_for("the worker to end", || count(&mut client, &workers) == 0);
    assert_eq!(proxy.connections(), asked + 1);
    SILENT.store(false, Ordering::SeqCst);
    fails(&mut client, &format!("SELECT bulk_export_status('{}')", ids[0]));
    wait_until_empty(&service);
}

#[test]
fn a_service_that_is_gone_for_good_keeps_nothing_from_being_removed_elsewhere() {
    let (old, new) = (S3Server::new(), S3Server::new());
    static GONE: AtomicBool = AtomicBool::new(false);
    let proxy = old.behind(|_| if GONE.load(Ordering::SeqCst) { Fault::Busy } else { Fault::None });
    let (database, mut client) = with_service(&proxy.endpoint());
    patients_and_observations(&mut client, 1);
    let first = export(&mut client, &json!({}));
    finish(&mut client, &first);
    GONE.store(true, Ordering::SeqCst);
    // The same location, at another address by now.
    set(&database, "s3_endpoint", &new.endpoint());
    let mut client = database.connect();
    let second = export(&mut client, &json!({}));
    finish(&mut client, &second);
    assert_eq!(objects(&new, &second).len(), 2);
    set(&database, "export_retention", "0");
    fails(&mut database.connect(), &format!("SELECT bulk_export_status('{second}')"));
    wait_until_empty(&new);
    assert_eq!(objects(&old, &first).len(), 2);
}

#[test]
fn an_export_that_outgrows_its_limit_leaves_neither_objects_nor_parts() {
    let service = S3Server::new();
    let (_database, mut client) = with_service(&service.endpoint());
    large_patients(&mut client, 30, 1024);
    run(&mut client, "SET fhir_bulk.export_max_bytes = '20MB'");
    // In the middle of an object, with parts behind it; and with whole objects behind it.
    for request in [json!({"_type": "Patient"}), json!({"_type": "Patient", "_maximumFileSize": 1 << 20})] {
        let id = export(&mut client, &request);
        let status = finish(&mut client, &id);
        assert_eq!(status["status"], "failed", "{status}");
        assert!(status["error"].as_str().unwrap().contains("20971520 bytes"), "{status}");
        wait_until_empty(&service);
    }
    run(&mut client, "SET fhir_bulk.export_max_bytes = '200MB'");
    done(&mut client, &json!({"_type": "Patient"}));
}
