//! The limit of exports per role, and types that a role's rights leave out.

use crate::job::{done, download, export, export_sql, finish, gated, ids, patients_and_observations, with_location};
use crate::support::{assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::{Client, error, wait_for};
use serde_json::{Value, json};

/// The texts of an export's OperationOutcomes.
fn notes(client: &mut Client, status: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    for file in status["error"].as_array().unwrap() {
        let text = String::from_utf8(download(client, &file["url"])).unwrap();
        for line in text.lines() {
            let outcome: Value = serde_json::from_str(line).unwrap();
            assert_eq!(outcome["issue"][0]["severity"], "warning", "{outcome}");
            notes.push(outcome["issue"][0]["diagnostics"].as_str().unwrap().to_owned());
        }
    }
    notes
}

#[test]
fn a_role_has_so_many_unfinished_exports_and_each_subject_as_many_of_its_own() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    let role = database.role("app");
    run(
        &mut client,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_cancel TO {role}; GRANT SELECT ON patient TO {role}"
        ),
    );
    let mut app = database.connect_as(&role);
    let gate = gated(&mut client, &database, "Patient");
    let request = json!({"_type": "Patient"});
    let mut ids: Vec<String> = (0..4).map(|_| export(&mut app, &request)).collect();
    let refused = fails(&mut app, &export_sql(&request));
    assert_error_with_hint(&refused, "53400", &["4 unfinished exports"]);
    // Others have their own: another role, and each subject of a token.
    ids.push(export(&mut client, &request));
    run(&mut app, "SET request.jwt.claims = '{\"sub\": \"a\"}'");
    export(&mut app, &request);
    run(&mut app, "RESET request.jwt.claims");
    fails(&mut app, &export_sql(&request));
    // A setting of superusers; 0 is no limit.
    let denied = fails(&mut app, "SET fhir_bulk.max_exports_per_role = 0");
    assert_eq!(denied.code().code(), "42501");
    run(&mut client, &format!("ALTER ROLE {role} SET fhir_bulk.max_exports_per_role = 0"));
    ids.push(export(&mut database.connect_as(&role), &request));
    // A cancelled export does not count any more.
    for id in &ids[..2] {
        assert_eq!(value(&mut app, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    }
    wait_for("room for one more", || app.query(&export_sql(&request), &[]).is_ok());
    gate.open();
}

#[test]
fn exports_that_are_asked_for_at_once_count_as_well() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    run(&mut client, &format!("ALTER DATABASE {} SET fhir_bulk.max_exports_per_role = 1", database.name()));
    let request = export_sql(&json!({"_type": "Patient"}));
    let (mut first, mut second) = (database.connect(), database.connect());
    run(&mut first, &format!("BEGIN; {request}"));
    let pid = value(&mut second, "SELECT pg_backend_pid()");
    let later = std::thread::spawn(move || second.query(&request, &[]).map(|_| ()));
    wait_for("the second to wait for the first", || {
        value(&mut client, &format!("SELECT wait_event_type FROM pg_stat_activity WHERE pid = {pid}")) == "Lock"
    });
    // Committed while the gate is closed, it is unfinished still.
    let gate = gated(&mut client, &database, "Patient");
    run(&mut first, "COMMIT");
    assert_error_with_hint(&error(later.join().unwrap()), "53400", &["1 unfinished export"]);
    gate.open();
}

#[test]
fn an_export_of_all_types_says_which_ones_the_role_may_not_read() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    run(&mut client, "SELECT bulk_create_table('Device')");
    let role = database.role("app");
    run(
        &mut client,
        &format!("GRANT EXECUTE ON FUNCTION bulk_export TO {role}; GRANT SELECT (id, resource) ON device TO {role}"),
    );
    let mut app = database.connect_as(&role);
    let status = done(&mut app, &json!({}));
    assert_eq!(status["output"], json!([]));
    let found = notes(&mut client, &status);
    assert_eq!(found, ["These types are left out, because you may not read them: Device, Observation, Patient."]);
    run(&mut client, &format!("GRANT SELECT ON patient TO {role}"));
    let status = done(&mut app, &json!({}));
    assert_eq!(ids(&mut client, &status, "Patient"), ["1", "2"]);
    assert_eq!(
        notes(&mut client, &status),
        ["These types are left out, because you may not read them: Device, Observation."]
    );
    // No note for types that the request names, nor for a role that may read everything.
    let status = done(&mut app, &json!({"_type": "Patient"}));
    assert_eq!(status["error"], json!([]));
    assert_eq!(done(&mut client, &json!({}))["error"], json!([]));
}

#[test]
fn without_the_right_to_read_a_history_an_export_since_then_says_that_deletions_are_left_out() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    run(
        &mut client,
        "INSERT INTO patient_history (id, txid, ts, status, resource) VALUES ('gone', 9, now(), 'deleted', '{}');
         INSERT INTO patient (id, txid, ts, status, resource) VALUES ('kept', 9, now(), 'deleted', '{}')",
    );
    let role = database.role("app");
    run(&mut client, &format!("GRANT EXECUTE ON FUNCTION bulk_export TO {role}; GRANT SELECT ON patient TO {role}"));
    let request = json!({"_type": "Patient", "_since": "2000-01-01T00:00:00Z"});
    let mut deletions = |status: &Value| {
        let files = status["deleted"].as_array().unwrap().iter();
        let texts: Vec<String> =
            files.map(|file| String::from_utf8(download(&mut client, &file["url"])).unwrap()).collect();
        ["gone", "kept"].map(|id| texts.concat().contains(&format!("Patient/{id}")))
    };
    let status = done(&mut database.connect_as(&role), &request);
    assert_eq!(deletions(&status), [false, true], "{status}");
    let text = notes(&mut database.connect(), &status).concat();
    assert!(text.contains("Deletions of Patient are incomplete"), "{text}");
    run(&mut database.connect(), &format!("GRANT SELECT ON patient_history TO {role}"));
    let status = done(&mut database.connect_as(&role), &request);
    assert_eq!(deletions(&status), [true, true], "{status}");
    assert_eq!(status["error"], json!([]));
}

#[test]
fn very_many_small_files_are_all_told_of() {
    let (_database, mut client) = with_location();
    // One file per resource, in two parts of the table for two processes: with their names the results would be too large.
    let name = format!("T{}", "x".repeat(53));
    run(
        &mut client,
        &format!(
            "SELECT bulk_create_table('{name}');
             INSERT INTO {name} (id, txid, status, resource) SELECT n, 1, 'created',
                 jsonb_build_object('a', repeat('abcdefgh', 8192), 'b', (SELECT string_agg(md5(n::text || i), '')
                 FROM generate_series(1, 12) i)) FROM generate_series(1, 18000) n"
        ),
    );
    let bytes: u64 = value(&mut client, &format!("SELECT pg_table_size('{name}')")).parse().unwrap();
    // Large enough for two parts. Without lz4, pages are fuller of rows that are larger.
    assert!((9 << 20..32 << 20).contains(&bytes), "{bytes}");
    let refused = fails(&mut client, "SET fhir_bulk.export_file_size = '63kB'");
    assert_eq!(refused.code().code(), "22023");
    run(&mut client, "SET fhir_bulk.export_file_size = '64kB'; SET fhir_bulk.export_workers = 2");
    let id = export(&mut client, &json!({"_type": name}));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{}", status["error"]);
    let files = status["output"].as_array().unwrap();
    assert_eq!(files.len(), 18_000);
    let names: std::collections::HashSet<&str> =
        files.iter().map(|file| file["url"].as_str().unwrap().split('?').next().unwrap()).collect();
    assert_eq!(names.len(), 18_000);
    assert_eq!(download(&mut client, &files[17_999]["url"]).iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(rows(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), ["t"]);
}
