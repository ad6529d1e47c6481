//! Changes that other sessions make to the database while an import runs.

use crate::job::{
    allowed, assert_patients, finish, hold, import, import_with, importer, inputs, status, wait_for_status,
    wait_for_total, wait_for_workers_to_end, wait_until_waiting, worker, workers,
};
use crate::source::Stalling;
use crate::support::{count, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, shared, wait_for};
use serde_json::json;

/// An import of 4,000 patients that has committed 2,000 of them and waits for its source.
fn under_way() -> (Database, Client, Stalling) {
    let (database, mut client) = allowed();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut client, "job", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "job", 2000);
    wait_until_waiting(&mut client, "Extension");
    (database, client, source)
}

#[test]
fn a_worker_that_is_terminated_is_followed_by_another() {
    let (_database, mut client, source) = under_way();
    let first = worker(&mut client);
    assert_eq!(value(&mut client, &format!("SELECT pg_terminate_backend({first}, 10000)")), "t");
    source.go_on();
    let status = finish(&mut client, "job");
    assert_eq!(inputs(&status), ["finished 4000"], "{status}");
    assert_eq!(source.requests(), 2);
    assert_patients(&mut client, 4000);
}

#[test]
fn a_database_is_dropped_with_force_in_the_middle_of_an_import() {
    let (database, client, _source) = under_way();
    drop(client);
    let mut server = shared().connect("postgres", "postgres");
    run(&mut server, &format!("DROP DATABASE {} WITH (FORCE)", database.name()));
    let there = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' AND datname = ";
    assert_eq!(count(&mut server, &format!("{there}'{}'", database.name())), 0);
}

#[test]
fn the_extension_is_dropped_and_made_again_in_the_middle_of_an_import() {
    let (database, mut client, source) = under_way();
    let held = worker(&mut client);
    run(&mut client, "DROP EXTENSION fhir_bulk; CREATE EXTENSION fhir_bulk");
    // The same numbers as the job that is gone with its queue.
    let second = Stalling::new(patients(4001..=4100), 0.5);
    import(&mut client, "job", &[("Patient", &second.url())]);
    wait_for("the second job to be read", || second.requests() == 1);
    source.go_on();
    wait_for("the first worker to end", || !workers(&mut client).contains(&held));
    assert_eq!(inputs(&status(&mut client, "job")), ["active 0"]);
    second.go_on();
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 100"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2100);
    wait_for_workers_to_end(&database);
}

#[test]
fn the_owner_is_dropped_in_the_middle_of_an_import() {
    let (database, mut client) = allowed();
    let owner = importer(&database, &mut client, "owner");
    run(&mut client, &format!("SET fhir_bulk.import_commit_rows = 1000; SET ROLE {owner}"));
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut client, "orphan", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "orphan", 2000);
    run(&mut client, &format!("RESET ROLE; DROP OWNED BY {owner}; DROP ROLE {owner}"));
    source.go_on();
    let sql = "SELECT status, resources FROM bulk_jobs";
    wait_for("the job to end", || {
        rows(&mut client, sql) == ["failed|2000"] || rows(&mut client, sql) == ["failed|3000"]
    });
    let reason = "SELECT error FROM fhir_bulk_internal.bulk_job_task";
    assert!(
        value(&mut client, reason).contains("permission denied")
            || value(&mut client, reason).contains("no longer exists")
    );
    assert_eq!(
        value(&mut client, "SELECT count(*) = (SELECT sum(total) FROM fhir_bulk_internal.bulk_job_task) FROM patient"),
        "t"
    );
    // A job whose owner is gone before it begins says so.
    let late = database.role("late");
    let waiting = Stalling::silent();
    run(&mut client, &format!("GRANT EXECUTE ON FUNCTION bulk_import(jsonb, boolean) TO {late}"));
    let two = [waiting.url(), waiting.url(), waiting.url()];
    let three: Vec<(&str, &str)> = two.iter().map(|url| ("Person", &url[..])).collect();
    import(&mut client, "blocks", &three);
    wait_until_waiting(&mut client, "Extension");
    run(&mut client, &format!("SET ROLE {late}"));
    import(&mut client, "late", &[("Patient", &waiting.url())]);
    run(&mut client, &format!("RESET ROLE; DROP OWNED BY {late}; DROP ROLE {late}"));
    waiting.go_on();
    wait_for("the late job to end", || {
        rows(&mut client, "SELECT status FROM bulk_jobs WHERE id = 'late'") == ["failed"]
    });
    assert_eq!(
        value(
            &mut client,
            "SELECT error FROM fhir_bulk_internal.bulk_job_task t JOIN fhir_bulk_internal.bulk_job j ON t.job = j.number WHERE id = 'late'"
        ),
        "the role that asked for the bulk import \"late\" no longer exists"
    );
}

#[test]
fn rights_that_are_taken_away_in_the_middle_end_the_input() {
    let (database, mut client) = allowed();
    let owner = importer(&database, &mut client, "owner");
    let mut session = database.connect_as(&owner);
    run(&mut session, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut session, "revoked", &[("Patient", &source.url())]);
    wait_for_total(&mut session, "revoked", 2000);
    wait_until_waiting(&mut client, "Extension");
    run(&mut client, &format!("REVOKE INSERT ON patient FROM {owner}"));
    source.go_on();
    let status = finish(&mut session, "revoked");
    assert_eq!(status["status"], "failed");
    assert_eq!(status["inputs"][0]["error"], "permission denied for table patient");
    let total = status["inputs"][0]["total"].as_u64().unwrap();
    assert!((2000..4000).contains(&total), "{status}");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), total as i64);
}

/// A transaction that creates a table blocks others that want to create it, until it ends.
#[test]
fn an_import_into_a_new_table_that_waits_for_its_source_keeps_nobody_from_the_table() {
    let (database, mut client) = allowed();
    let source = Stalling::new(patients(1..=100), 0.5);
    import(&mut client, "slow", &[("Patient", &source.url())]);
    wait_until_waiting(&mut client, "Extension");
    let url = database.file("one", patients(201..=210));
    assert_eq!(crate::support::load(&mut client, &url, "'Patient'"), r#"{"total": 10}"#);
    source.go_on();
    let status = finish(&mut client, "slow");
    assert_eq!(inputs(&status), ["finished 100"], "{status}");
}

#[test]
fn an_import_of_mixed_types_that_waits_for_its_source_keeps_nobody_from_the_tables_that_it_made() {
    let (database, mut client) = allowed();
    let mixed = patients(1..=10) + &patients(11..=50).replace("\"Patient\"", "\"Person\"") + &patients(51..=100);
    let source = Stalling::new(mixed, 0.6);
    value(&mut client, &format!("SELECT bulk_import('{}')", json!({"id": "mixed", "inputs": [{"url": source.url()}]})));
    wait_until_waiting(&mut client, "Extension");
    run(&mut client, "SET statement_timeout = '30s'");
    for resource_type in ["Patient", "Person"] {
        let others = patients(201..=210).replace("\"Patient\"", &format!("\"{resource_type}\""));
        let url = database.file(resource_type, others);
        assert_eq!(crate::support::load(&mut client, &url, &format!("'{resource_type}'")), r#"{"total": 10}"#);
    }
    source.go_on();
    assert_eq!(inputs(&finish(&mut client, "mixed")), ["finished 100"]);
    assert_eq!(rows(&mut client, "SELECT (SELECT count(*) FROM patient), (SELECT count(*) FROM person)"), ["70|50"]);
}

#[test]
fn an_import_of_mixed_types_makes_no_more_tables_than_it_may_however_many_batches_it_commits() {
    let (database, mut client) = allowed();
    let of = |n: usize| patients(n..=n).replace("\"Patient\"", &format!("\"Type{n}\""));
    let url = database.file("types", (1..=4).map(of).collect::<String>());
    run(&mut client, "SET fhir_bulk.max_new_tables = 3");
    value(&mut client, &format!("SELECT bulk_import('{}')", json!({"id": "types", "inputs": [{"url": url}]})));
    let status = finish(&mut client, "types");
    assert_eq!(inputs(&status), ["failed 3"]);
    assert!(status["inputs"][0]["error"].as_str().unwrap().contains("more than 3 types"), "{status}");
    assert_eq!(rows(&mut client, "SELECT to_regclass('type3'), to_regclass('type4') IS NULL"), ["type3|t"]);
}

#[test]
fn the_table_is_dropped_in_the_middle_of_an_import() {
    let (_database, mut client, source) = under_way();
    let mut other = _database.connect();
    wait_for("the worker to hold the table", || {
        count(
            &mut other,
            "SELECT count(*) FROM pg_locks WHERE relation = 'patient'::regclass AND mode = 'RowExclusiveLock'",
        ) > 0
    });
    let dropper = std::thread::spawn(move || run(&mut other, "DROP TABLE patient"));
    source.go_on();
    dropper.join().unwrap();
    let status = finish(&mut client, "job");
    assert_eq!(inputs(&status), ["finished 4000"], "{status}");
}

#[test]
fn a_source_that_is_shorter_than_what_was_read_of_it_is_an_error() {
    let (database, mut client) = allowed();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut client, "changing", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "changing", 2000);
    let held = worker(&mut client);
    // A later request gets less.
    run(&mut client, &format!("SELECT pg_terminate_backend({held}, 10000)"));
    let short = database.file("short", patients(1..=10));
    run(
        &mut client,
        &format!(
            "ALTER TABLE fhir_bulk_internal.bulk_job_task DISABLE TRIGGER own_rows;
             UPDATE fhir_bulk_internal.bulk_job_task SET input = jsonb_set(input, '{{url}}', to_jsonb('{short}'::text));
             ALTER TABLE fhir_bulk_internal.bulk_job_task ENABLE ALWAYS TRIGGER own_rows"
        ),
    );
    let status = finish(&mut client, "changing");
    assert_eq!(inputs(&status), ["failed 2000"]);
    assert!(status["inputs"][0]["error"].as_str().unwrap().contains("shorter than when it was first read"), "{status}");
}

#[test]
fn an_import_with_versions_kept_is_whole_after_a_worker_was_ended_again_and_again() {
    let (database, mut client) = allowed();
    let url = database.file("all", patients(1..=30_000));
    run(&mut client, &crate::support::load_sql(&url, "'Patient'"));
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let held = hold(&database, "p-30000");
    import_with(&mut client, "again", &[("Patient", &url)], json!({"update": true}));
    let mut seen = 0;
    for _ in 0..5 {
        // All but the last batch, if this session comes late.
        let status = wait_for_status(&mut client, "again", "more", |status| {
            status["inputs"][0]["total"].as_u64().unwrap() > seen.min(28_999)
        });
        seen = status["inputs"][0]["total"].as_u64().unwrap();
        // One that ended twice at the same place runs alone; who asks for the status has it started again.
        wait_for("a worker", || {
            crate::job::status(&mut client, "again");
            workers(&mut client).len() == 1
        });
        let ended = worker(&mut client);
        run(&mut client, &format!("SELECT pg_terminate_backend({ended}, 10000)"));
    }
    drop(held);
    let status = finish(&mut client, "again");
    assert_eq!(inputs(&status), ["finished 30000"], "{status}");
    assert_patients(&mut client, 30_000);
    // Each version of before is kept once.
    assert_eq!(rows(&mut client, "SELECT count(*), count(DISTINCT id) FROM patient_history"), ["30000|30000"]);
}
