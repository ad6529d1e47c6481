//! The rights of an export, and who may see it.

use crate::job::{
    done, export, export_sql, files, finish, ids, lines, patients_and_observations, status, wait_for_no_files,
    with_location,
};
use crate::support::{assert_error, assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::json;

/// A role that may call the functions of exports.
fn with_role() -> (Database, Client, Client, String) {
    let (database, mut admin) = with_location();
    patients_and_observations(&mut admin, 10);
    let role = database.role("app");
    run(&mut admin, &format!("GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_cancel, bulk_export_file TO {role}"));
    let client = database.connect_as(&role);
    (database, admin, client, role)
}

#[test]
fn exporting_is_granted_and_a_status_is_for_everyone() {
    let database = Database::new();
    let mut client = database.connect();
    let granted = "SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid), provolatile, prosecdef,
                     has_function_privilege('public', oid, 'EXECUTE'), obj_description(oid, 'pg_proc') <> ''
                   FROM pg_proc WHERE proname ~ '^bulk_export' AND proname <> 'bulk_export_identifiers' ORDER BY 1";
    assert_eq!(
        rows(&mut client, granted),
        [
            "bulk_export|request jsonb|text|v|f|f|t",
            "bulk_export_cancel|id text|boolean|v|f|f|t",
            "bulk_export_file|url text|SETOF bytea|s|f|f|t",
            // A caller who may not read the whole file may not read a part.
            "bulk_export_file_part|url text, start bigint, length integer|TABLE(bytes bytea, file_bytes bigint, next_url \
             text)|s|f|t|t",
            // What a server of Citus asks another one for.
            "bulk_export_part|request jsonb|text|v|f|f|t",
            "bulk_export_part_cancel|id text|boolean|v|f|f|t",
            "bulk_export_part_wait|id text, seconds integer|jsonb|v|f|t|t",
            "bulk_export_status|id text|jsonb|s|f|t|t"
        ]
    );
}

#[test]
fn a_type_that_the_role_may_not_read_is_refused_at_once() {
    let (_database, mut admin, mut client, role) = with_role();
    let request = json!({"_type": "Patient,Observation"});
    run(&mut admin, &format!("GRANT SELECT ON patient TO {role}"));
    let error = fails(&mut client, &export_sql(&request));
    assert_error_with_hint(&error, "42501", &["observation"]);
    assert_eq!(error.hint(), Some(format!("GRANT SELECT ON public.observation TO {role};").as_str()));
    run(&mut admin, &format!("GRANT SELECT ON observation TO {role}"));
    done(&mut client, &request);
}

#[test]
fn a_right_that_is_gone_when_the_job_runs_fails_it_and_leaves_no_file() {
    let (database, mut admin, mut client, role) = with_role();
    run(&mut admin, &format!("GRANT SELECT ON patient, observation TO {role}"));
    // The worker waits for the table, and then lacks the right.
    run(&mut admin, "BEGIN; LOCK TABLE observation IN ACCESS EXCLUSIVE MODE");
    let id = export(&mut client, &json!({}));
    run(&mut admin, &format!("REVOKE SELECT ON observation FROM {role}; COMMIT"));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().unwrap().contains("permission denied"), "{status}");
    wait_for_no_files(&database);
}

#[test]
fn row_level_security_and_the_tokens_claims_decide_what_is_exported() {
    let (_database, mut admin, mut client, role) = with_role();
    run(
        &mut admin,
        &format!(
            "GRANT SELECT ON patient, patient_history, observation TO {role}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON patient USING (id = current_setting('request.jwt.claims', true)::json ->> 'patient')"
        ),
    );
    for workers in [1, 2] {
        run(&mut client, &format!("SET fhir_bulk.export_workers = {workers}"));
        run(&mut client, "SET request.jwt.claims = '{\"sub\": \"one\", \"patient\": \"7\"}'");
        let status = done(&mut client, &json!({}));
        assert_eq!(ids(&mut client, &status, "Patient"), ["7"]);
        assert_eq!(ids(&mut client, &status, "Observation").len(), 10);
        run(&mut client, "SET request.jwt.claims = '{\"sub\": \"one\", \"patient\": \"none\"}'");
        let status = done(&mut client, &json!({"_type": "Patient"}));
        assert_eq!(lines(&mut client, &status, "Patient"), [""; 0]);
    }
    run(&mut client, "SET row_security = off");
    let id = export(&mut client, &json!({"_type": "Patient"}));
    let status = finish(&mut client, &id);
    assert!(status["error"].as_str().unwrap().contains("row-level security"), "{status}");
}

#[test]
fn an_export_belongs_to_its_role_and_to_its_tokens_subject() {
    let (database, mut admin, mut client, role) = with_role();
    run(&mut admin, &format!("GRANT SELECT ON patient TO {role}"));
    run(&mut client, "SET request.jwt.claims = '{\"sub\": \"one\"}'");
    let id = export(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(finish(&mut client, &id)["status"], "completed");
    run(&mut client, "SET request.jwt.claims = '{\"sub\": \"two\"}'");
    let mut other = database.connect_as(&database.role("other"));
    for stranger in [&mut client, &mut other, &mut admin] {
        assert_error(&fails(stranger, &format!("SELECT bulk_export_status('{id}')")), "P0002", &[&id]);
    }
    for stranger in [&mut client, &mut admin] {
        assert_eq!(value(stranger, &format!("SELECT bulk_export_cancel('{id}')")), "f");
    }
    run(&mut client, "SET request.jwt.claims = '{\"sub\": \"one\"}'");
    assert_eq!(status(&mut client, &id)["status"], "completed");
    assert_eq!(rows(&mut client, "SELECT kind, id, status FROM bulk_jobs"), [format!("export|{id}|finished")]);
    assert_eq!(files(&database).len(), 1);
}

#[test]
fn a_role_that_may_not_log_in_can_export() {
    let (_database, mut admin, _, role) = with_role();
    run(
        &mut admin,
        &format!("GRANT SELECT ON patient, observation TO {role}; ALTER ROLE {role} NOLOGIN; SET ROLE {role}"),
    );
    let status = done(&mut admin, &json!({}));
    assert_eq!(ids(&mut admin, &status, "Patient").len(), 10);
}
