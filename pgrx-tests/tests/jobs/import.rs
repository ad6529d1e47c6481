//! What an import does to tables.

use crate::job::{allowed, assert_patients, finish, import, import_with, inputs, set, wait_for_workers_to_end};
use crate::support::{count, patients, rows, run, value};
use fhir_bulk_tests::http::{Server, ok, status as answer};
use fhir_bulk_tests::{Database, gzip};
use serde_json::json;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn an_import_loads_its_inputs_in_the_background() {
    let database = Database::new();
    let mut client = database.connect();
    let one = database.file("one", patients(1..=1000));
    let two = database.file("two", gzip(patients(1001..=1500).replace("Patient", "Person").as_bytes()));
    assert_eq!(import(&mut client, "two-files", &[("Patient", &one), ("Person", &two)]), "two-files");
    let status = finish(&mut client, "two-files");
    assert_eq!(inputs(&status), ["finished 1000", "finished 500"], "{status}");
    assert_eq!(status["status"], "finished");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 1000);
    assert_eq!(count(&mut client, "SELECT count(*) FROM person"), 500);
    wait_for_workers_to_end(&database);
}

#[test]
fn a_commit_has_as_many_resources_as_the_setting_says_or_a_whole_input() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 300");
    let one = database.file("one", patients(1..=1000));
    let groups = "SELECT count(*) FROM patient GROUP BY txid ORDER BY txid";
    import(&mut client, "batches", &[("Patient", &one)]);
    finish(&mut client, "batches");
    assert_eq!(rows(&mut client, groups), ["300", "300", "300", "100"]);
    assert_eq!(count(&mut client, "SELECT count(DISTINCT xmin::text) FROM patient"), 4);
    run(&mut client, "TRUNCATE patient");
    import_with(&mut client, "whole", &[("Patient", &one)], json!({"mode": "transaction"}));
    finish(&mut client, "whole");
    assert_eq!(rows(&mut client, groups), ["1000"]);
    assert_eq!(count(&mut client, "SELECT count(DISTINCT ts) FROM patient"), 1);
    assert_patients(&mut client, 1000);
}

#[test]
fn versions_are_kept_and_mixed_types_are_spread_as_a_load_does() {
    let database = Database::new();
    let mut client = database.connect();
    let one = database.file("one", patients(1..=5));
    let mixed = database.file("mixed", patients(1..=5) + "{\"resourceType\":\"Group\",\"id\":\"g\"}\n");
    import(&mut client, "first", &[("Patient", &one)]);
    finish(&mut client, "first");
    let request = json!({"id": "second", "update": true, "inputs": [{"url": mixed}]});
    run(&mut client, &format!("SELECT bulk_import('{request}')"));
    let status = finish(&mut client, "second");
    assert_eq!(inputs(&status), ["finished 6"], "{status}");
    assert_eq!(status["inputs"][0].get("resourceType"), None);
    let counts = "SELECT (SELECT count(*) FROM patient WHERE status = 'updated'), \
                  (SELECT count(*) FROM patient_history), (SELECT count(*) FROM \"group\")";
    assert_eq!(rows(&mut client, counts), ["5|5|1"]);
}

#[test]
fn an_import_tells_how_much_was_there_already_as_it_is() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 300");
    let (one, two) = (database.file("one", patients(1..=1000)), database.file("two", patients(1001..=1200)));
    let skip = json!({"skipUnchanged": true});
    import_with(&mut client, "first", &[("Patient", &one)], skip.clone());
    let first = finish(&mut client, "first");
    assert_eq!((&first["unchanged"], &first["inputs"][0]["unchanged"]), (&json!(0), &json!(0)), "{first}");
    let places = "SELECT md5(string_agg(concat(id, ctid, xmin, xmax), ',' ORDER BY id)) FROM patient WHERE id <> 'p-5'";
    let before = value(
        &mut client,
        "SELECT md5(string_agg(concat(id, ctid, xmin, xmax), ',' ORDER BY id)) FROM patient WHERE id <> 'p-5'",
    );
    run(&mut client, "UPDATE patient SET resource = '{}' WHERE id = 'p-5'");
    import_with(&mut client, "again", &[("Patient", &one), ("Patient", &two)], skip);
    let again = finish(&mut client, "again");
    assert_eq!(inputs(&again), ["finished 1000", "finished 200"], "{again}");
    assert_eq!((&again["inputs"][0]["unchanged"], &again["inputs"][1]["unchanged"]), (&json!(999), &json!(0)));
    assert_eq!(again["unchanged"], 999);
    assert_eq!(value(&mut client, &places.replace("id <> 'p-5'", "id <> 'p-5' AND txid < 5")), before);
    assert_eq!(rows(&mut client, "SELECT resources, unchanged FROM bulk_jobs WHERE id = 'again'"), ["1200|999"]);
    assert_eq!(
        rows(&mut client, "SELECT total, unchanged FROM bulk_job_inputs WHERE id = 'again' ORDER BY number"),
        ["1000|999", "200|0"]
    );
    // Without it, nobody looks.
    import(&mut client, "plain", &[("Patient", &two)]);
    let plain = finish(&mut client, "plain");
    assert_eq!((plain.get("unchanged"), plain["inputs"][0].get("unchanged")), (None, None));
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE status = 'updated'"), 201);
}

#[test]
fn an_input_fails_at_a_known_id_if_asked() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 100");
    let (one, two) =
        (database.file("one", patients(1..=250)), database.file("two", patients(251..=400) + &patients(7..=7)));
    let refuse = json!({"onConflict": "error"});
    import_with(&mut client, "new", &[("Patient", &one)], refuse.clone());
    assert_eq!(inputs(&finish(&mut client, "new")), ["finished 250"]);
    import_with(&mut client, "known", &[("Patient", &one), ("Patient", &two)], refuse);
    let status = finish(&mut client, "known");
    assert_eq!(inputs(&status), ["failed 0", "failed 100"], "{status}");
    assert_eq!(status["inputs"][1]["error"], "there is a Patient with id \"p-7\" already");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE status = 'created'"), 350);
}

#[test]
fn a_server_that_fails_for_a_while_is_asked_again_as_often_as_allowed() {
    let (_database, mut client) = allowed();
    let asked = AtomicUsize::new(0);
    let recovers = Server::new(move |_, stream| {
        let first = asked.fetch_add(1, Ordering::Relaxed) < 2;
        let unavailable = answer("503 Service Unavailable", "Retry-After: 0\r\n");
        let _ = stream.write_all(&if first { unavailable } else { ok(patients(1..=10)) });
    });
    let down = Server::answering(answer("500 Internal Server Error", ""));
    let gone = Server::answering(answer("404 Not Found", ""));
    let urls = [recovers.url("/"), down.url("/"), gone.url("/")];
    import(&mut client, "default", &[("Patient", &urls[0]), ("Patient", &urls[1]), ("Patient", &urls[2])]);
    let status = finish(&mut client, "default");
    assert_eq!(inputs(&status), ["finished 10", "failed 0", "failed 0"], "{status}");
    assert_eq!(status["inputs"][1]["error"], "500: Internal Server Error");
    assert_eq!((recovers.seen().len(), down.seen().len(), gone.seen().len()), (3, 3, 1));
    import_with(&mut client, "never", &[("Patient", &urls[1])], json!({"allowedRetryCount": 0}));
    assert_eq!(finish(&mut client, "never")["status"], "failed");
    assert_eq!(down.seen().len(), 4);
}

/// In a database that is read-only by default, a session that sets this off can still write, and so can its imports.
#[test]
fn a_database_that_is_read_only_by_default_is_imported_into_by_whoever_may_write() {
    let database = Database::new();
    let url = database.file("one", patients(1..=10));
    let mut client = set(&database, "default_transaction_read_only = on");
    run(&mut client, "SET default_transaction_read_only = off");
    import(&mut client, "written", &[("Patient", &url)]);
    assert_eq!(finish(&mut client, "written")["status"], "finished");
}

#[test]
fn autovacuum_is_told_what_an_import_inserted() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("one", patients(1..=5000));
    import(&mut client, "counted", &[("Patient", &url)]);
    finish(&mut client, "counted");
    fhir_bulk_tests::wait_for("the statistics", || {
        value(&mut client, "SELECT pg_stat_get_tuples_inserted('patient'::regclass)") == "5000"
    });
}
