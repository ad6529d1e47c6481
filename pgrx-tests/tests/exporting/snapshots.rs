//! That an export is of one moment, and that the next one goes on from there.

use crate::job::{done, export, finish, gated, ids, lines, patients_and_observations, wait_for_readers, with_location};
use crate::support::{run, value};
use fhir_bulk_tests::wait_for;
use serde_json::json;

#[test]
fn all_types_are_of_one_moment_whoever_writes_them() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 5);
    run(&mut client, "SELECT bulk_create_table('Device'); INSERT INTO device SELECT * FROM patient");
    run(&mut client, "SET fhir_bulk.export_workers = 2");
    let gate = gated(&mut client, &database, "Patient");
    std::mem::forget(gated(&mut client, &database, "Observation"));
    let id = export(&mut client, &json!({"_type": "Patient,Observation,Device"}));
    // The job's own process and one that helps it.
    wait_for_readers(&mut client, 2);
    for table in ["patient", "observation", "device"] {
        let resource = if table == "device" { "'{}'" } else { "ROW('{}')::gated" };
        run(
            &mut client,
            &format!(
                "DELETE FROM {table} WHERE id = '1'; INSERT INTO {table} (id, txid, status, resource) VALUES ('late', 1, 'created', {resource})"
            ),
        );
    }
    gate.open();
    let status = finish(&mut client, &id);
    for resource_type in ["Patient", "Observation", "Device"] {
        assert_eq!(ids(&mut client, &status, resource_type), ["1", "2", "3", "4", "5"]);
    }
}

#[test]
fn tables_that_may_lead_to_any_code_are_read_by_one_process_under_the_same_moment() {
    let (database, mut admin) = with_location();
    patients_and_observations(&mut admin, 3);
    let role = database.role("app");
    // Neither the policy nor the view could do this in a process that helps.
    run(
        &mut admin,
        &format!(
            "CREATE TABLE seen (what text); GRANT ALL ON seen TO {role};
             CREATE FUNCTION note(text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN INSERT INTO seen VALUES ($1); RETURN true; END $$;
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON patient USING (note('patient ' || id));
             CREATE VIEW device AS SELECT * FROM observation WHERE note('device');
             CREATE TABLE encounter (LIKE observation); INSERT INTO encounter SELECT * FROM observation;
             GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role};
             GRANT SELECT ON patient, observation, device, encounter TO {role}"
        ),
    );
    let mut client = database.connect_as(&role);
    let status = done(&mut client, &json!({}));
    for resource_type in ["Patient", "Observation", "Device", "Encounter"] {
        assert_eq!(ids(&mut client, &status, resource_type), ["1", "2", "3"], "{resource_type}");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FILTER (WHERE what ~ 'patient') FROM seen"), "3");
}

#[test]
fn what_was_loaded_across_an_export_is_in_the_next_one() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let insert = "INSERT INTO patient (id, txid, ts, status, resource) VALUES";
    let mut writer = database.connect();
    let mut starter = database.connect();
    // One that has written, and one that has begun but not written yet.
    run(&mut starter, "BEGIN; SELECT now()");
    run(&mut writer, &format!("BEGIN; {insert} ('across', 1, now(), 'created', '{{}}')"));
    let began = value(&mut starter, "SELECT now()");
    let first = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(ids(&mut client, &first, "Patient"), ["1"]);
    let time = first["transactionTime"].as_str().unwrap();
    assert_eq!(value(&mut client, &format!("SELECT '{time}'::timestamptz = '{began}'::timestamptz")), "t", "{time}");
    run(&mut writer, "COMMIT");
    run(&mut starter, &format!("{insert} ('later', 1, now(), 'created', '{{}}'); COMMIT"));
    let next = done(&mut client, &json!({"_type": "Patient", "_since": time}));
    assert_eq!(ids(&mut client, &next, "Patient"), ["across", "later"]);
    // When nobody else is there it is the snapshot's.
    let [created, time] = [&next["createdAt"], &next["transactionTime"]].map(|time| time.as_str().unwrap());
    assert!(created < time && time < next["completedAt"].as_str().unwrap(), "{next}");
}

#[test]
fn what_a_session_writes_across_an_export_is_in_the_next_one_though_it_shows_nothing_of_itself() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let mut writer = database.connect();
    run(
        &mut writer,
        "SET track_activities = off; BEGIN;
         INSERT INTO patient (id, txid, ts, status, resource) VALUES ('hidden', 1, now(), 'created', '{}')",
    );
    let first = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(ids(&mut client, &first, "Patient"), ["1"]);
    run(&mut writer, "COMMIT");
    let next = done(&mut client, &json!({"_type": "Patient", "_since": first["transactionTime"]}));
    assert_eq!(ids(&mut client, &next, "Patient"), ["hidden"]);
}

#[test]
fn incremental_exports_one_after_the_other_miss_nothing_while_others_write() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let name = database.name().to_owned();
    let cluster = database.cluster();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let mut client = cluster.connect("postgres", &name);
            std::thread::spawn(move || {
                for number in 0..40 {
                    let pause = (writer + number) % 4;
                    run(
                        &mut client,
                        &format!(
                            "BEGIN; SELECT pg_sleep(0.005 * {pause});
                             INSERT INTO patient (id, txid, ts, status, resource) VALUES ('w{writer}-{number}', 1, now(), 'created', '{{}}');
                             SELECT pg_sleep(0.01 * {pause}); COMMIT"
                        ),
                    );
                }
            })
        })
        .collect();
    let mut found = std::collections::BTreeSet::new();
    let mut since = "2000-01-01T00:00:00Z".to_owned();
    let mut rounds = 0;
    loop {
        let over = writers.iter().all(std::thread::JoinHandle::is_finished);
        let status = done(&mut client, &json!({"_type": "Patient", "_since": since}));
        found.extend(ids(&mut client, &status, "Patient"));
        since = status["transactionTime"].as_str().unwrap().to_owned();
        rounds += 1;
        if over {
            break;
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(rounds > 2, "the exports did not run beside the writers");
    assert_eq!(found.len(), 121);
}

/// Waits until a job's worker waits for a table.
fn wait_for_waiting_worker(client: &mut fhir_bulk_tests::Client) {
    wait_for("the worker to wait for a table", || {
        value(
            client,
            "SELECT EXISTS (SELECT FROM pg_stat_activity a JOIN pg_locks l USING (pid)
             WHERE a.datname = current_database() AND backend_type = 'fhir_bulk job worker' AND NOT l.granted)",
        ) == "t"
    });
}

const LOADED_ANEW: &str = "BEGIN; TRUNCATE observation; INSERT INTO observation SELECT * FROM patient";

#[test]
fn a_table_that_is_loaded_anew_while_the_export_waits_for_it_is_not_empty_in_it() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 5);
    run(&mut client, "CREATE VIEW device AS SELECT * FROM observation");
    let mut other = database.connect();
    for request in [json!({"_type": "Patient,Observation,Device"}), json!({"_type": "Patient,Device,Observation"})] {
        // PostgreSQL changes the type of no column that a view shows.
        let rewrite = "BEGIN; DROP VIEW device; ALTER TABLE observation ALTER COLUMN txid TYPE bigint USING txid + 1;
            CREATE VIEW device AS SELECT * FROM observation";
        for change in [LOADED_ANEW, rewrite] {
            run(&mut client, "SET fhir_bulk.export_workers = 2");
            run(&mut other, change);
            let id = export(&mut client, &request);
            wait_for_waiting_worker(&mut client);
            run(&mut other, "COMMIT");
            let status = finish(&mut client, &id);
            for resource_type in ["Patient", "Observation", "Device"] {
                assert_eq!(ids(&mut client, &status, resource_type), ["1", "2", "3", "4", "5"], "{resource_type}");
            }
        }
    }
}

/// What is only looked up for a column is planned only when that is read.
#[test]
fn parts_of_a_table_that_a_column_of_a_view_looks_up_are_not_empty_after_a_wait() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    run(
        &mut client,
        "CREATE TABLE base (id text, resource jsonb) PARTITION BY LIST (id);
         CREATE TABLE base_1 PARTITION OF base FOR VALUES IN ('1'); INSERT INTO base VALUES ('1', '{\"x\": 1}');
         CREATE VIEW device AS SELECT id, txid, cts, ts, resource_type, status,
           coalesce((SELECT b.resource FROM base b WHERE b.id = p.id), '{\"lost\": true}') AS resource FROM patient p",
    );
    let mut other = database.connect();
    run(&mut other, "BEGIN; TRUNCATE base_1; INSERT INTO base VALUES ('1', '{\"x\": 2}')");
    let id = export(&mut client, &json!({"_type": "Device"}));
    wait_for_waiting_worker(&mut client);
    run(&mut other, "COMMIT");
    let status = finish(&mut client, &id);
    let lines = lines(&mut client, &status, "Device");
    assert!(lines.len() == 1 && lines[0].contains("\"x\":2"), "{lines:?}");
}

/// A function may be made anew meanwhile, and lead to another table.
#[test]
fn a_table_that_nobody_knew_of_before_the_snapshot_has_the_export_begin_anew_instead_of_being_empty() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 3);
    let leads_to = |table: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION found() RETURNS SETOF patient STABLE LANGUAGE sql AS 'SELECT * FROM {table}'"
        )
    };
    run(&mut client, "CREATE TABLE base (LIKE patient); INSERT INTO base SELECT * FROM patient");
    run(&mut client, &format!("{}; CREATE VIEW device AS SELECT * FROM found()", leads_to("patient")));
    let gate = gated(&mut client, &database, "Observation");
    let id = export(&mut client, &json!({"resourceTypes": ["Observation", "Device"]}));
    wait_for_readers(&mut client, 1);
    run(&mut client, &leads_to("base"));
    run(&mut client, "BEGIN; TRUNCATE base; INSERT INTO base SELECT * FROM patient; COMMIT");
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!((&status["status"], &status["count"]), (&json!("completed"), &json!(6)), "{status}");
    assert!(database.cluster().log().contains("table base was truncated or rewritten after the export began"));
}

#[test]
fn what_an_export_waited_for_and_has_is_not_in_the_next_one_again() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let mut again = Vec::new();
    // A transaction that is about to end may count as running for a moment after it has let go of its locks. Then the next export
    // has its resources again, and misses none.
    for _ in 0..3 {
        let mut other = database.connect();
        run(&mut other, "BEGIN; TRUNCATE patient");
        run(
            &mut other,
            "INSERT INTO patient (id, txid, ts, status, resource) VALUES ('new', 1, now(), 'created', '{}')",
        );
        let id = export(&mut client, &json!({"_type": "Patient"}));
        wait_for_waiting_worker(&mut client);
        run(&mut other, "COMMIT");
        let first = finish(&mut client, &id);
        assert_eq!(ids(&mut client, &first, "Patient"), ["new"]);
        let next = done(&mut client, &json!({"_type": "Patient", "_since": first["transactionTime"]}));
        if next["output"] == json!([]) {
            return;
        }
        again.push(next);
    }
    panic!("{again:?}");
}

#[test]
fn a_table_is_not_rewritten_while_the_export_has_yet_to_read_it() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 5);
    let gate = gated(&mut client, &database, "Patient");
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let id = export(&mut client, &json!({"resourceTypes": ["Patient", "Observation"]}));
    wait_for_readers(&mut client, 1);
    let mut other = database.connect();
    let pid = value(&mut other, "SELECT pg_backend_pid()");
    let change = std::thread::spawn(move || run(&mut other, "TRUNCATE observation"));
    wait_for("the other to wait for the export", || {
        value(&mut client, &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)")) == "t"
    });
    gate.open();
    let status = finish(&mut client, &id);
    change.join().unwrap();
    assert_eq!((&status["status"], &status["count"]), (&json!("completed"), &json!(10)), "{status}");
}

#[test]
fn an_export_whose_snapshot_came_too_early_begins_anew_instead_of_leaving_a_table_empty() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 5);
    // A policy's function that the planner calls, and that takes a snapshot, before the other table is locked.
    run(
        &mut client,
        "CREATE FUNCTION looks() RETURNS boolean LANGUAGE plpgsql AS
           $$ BEGIN PERFORM FROM pg_class; RETURN true; END $$;
         CREATE FUNCTION folded(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN looks(); END $$;
         CREATE VIEW device AS SELECT * FROM patient WHERE folded(1);
         CREATE TABLE base (LIKE patient); INSERT INTO base SELECT * FROM patient;
         CREATE VIEW encounter AS SELECT * FROM base",
    );
    let mut other = database.connect();
    run(&mut other, "BEGIN; TRUNCATE base; INSERT INTO base SELECT * FROM patient");
    let id = export(&mut client, &json!({"_type": "Device,Encounter"}));
    wait_for_waiting_worker(&mut client);
    run(&mut other, "COMMIT");
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(ids(&mut client, &status, "Encounter"), ["1", "2", "3", "4", "5"]);
    assert!(database.cluster().log().contains("was truncated or rewritten after the export began"));
}
