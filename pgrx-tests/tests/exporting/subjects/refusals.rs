//! What an export of subjects refuses, whose rights it has, and how it ends.

use super::{body, gate, ids_of, of, view};
use crate::job::{
    done, export, export_sql, files, finish, own_server, patients_and_observations, reconnected, status,
    wait_for_no_files, wait_for_readers, with_location, with_location_on,
};
use crate::support::{assert_error, assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::{Client, wait_for};
use serde_json::{Value, json};

#[test]
fn what_is_wrong_with_a_subject_is_told_at_once() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let good = || json!({"name": "good", "view": ids_of("Patient")});
    let query = |text: &str| json!({"name": "q", "query": text});
    let invalid = json!({"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id.("}]}]});
    for (subjects, more, state, piece) in [
        (json!([]), json!({}), "22023", "subject is missing"),
        (json!([good(), "x"]), json!({}), "22023", "subject 2: it is not an object"),
        (json!([good(), {"name": "x"}]), json!({}), "22023", "subject 2: subject is missing"),
        (json!([{"view": 1}]), json!({}), "22023", "subject 1: view is not an object"),
        (json!([{"query": 1}]), json!({}), "22023", "subject 1: query is not a string"),
        (json!([{"query": "SELECT 1", "view": {}}]), json!({}), "22023", "subject 1: subject is given in more"),
        (json!([{"query": "SELECT 1", "subjectCanonical": "x"}]), json!({}), "22023", "more than one way"),
        (json!([{"view": ids_of("Patient"), "views": {}}]), json!({}), "22023", "a view takes no \"views\""),
        (json!([{"query": "SELECT 1", "x": 1}]), json!({}), "22023", "a query takes no \"x\""),
        (json!([{"name": "", "query": "SELECT 1"}]), json!({}), "22023", "its name"),
        (json!([{"name": "a\nb", "query": "SELECT 1"}]), json!({}), "22023", "its name"),
        (json!([good(), good()]), json!({}), "22023", "subject 2: the name \"good\" is also that of subject 1"),
        (
            json!([{"view": view("Patient")}, {"view": view("Patient")}]),
            json!({}),
            "22023",
            "subject 2: the name \"patients\"",
        ),
        (json!([good(), {"view": invalid}]), json!({}), "22023", "subject 2: invalid view"),
        (json!([{"view": ids_of("Device")}]), json!({}), "42P01", "subject 1: there is no table"),
        (json!([good(), query("SELEC 1")]), json!({}), "42601", "subject 2: syntax error"),
        (json!([query("SELECT nothing FROM patient")]), json!({}), "42703", "subject 1: column \"nothing\""),
        (json!([query("SELECT 1; SELECT 2")]), json!({}), "42601", "2 statements"),
        (json!([query("DELETE FROM patient")]), json!({}), "25006", "dump_sql only reads"),
        (json!([query("WITH d AS (DELETE FROM patient RETURNING id) TABLE d")]), json!({}), "25006", ""),
        (json!([query("SELECT set_config('x.y', '', true)")]), json!({}), "25006", "dump_sql only reads"),
        (json!([{"query": "SELECT :a", "parameters": {}}]), json!({}), "22023", "the query has :a"),
        (json!([{"query": "SELECT 1 AS a, 2 AS a"}]), json!({}), "42701", "subject 1: column \"a\""),
        (
            json!([{"subjectCanonical": "http://example.org/none"}]),
            json!({}),
            "P0002",
            "subject 1: there is no ViewDefinition",
        ),
        (json!([query("SELECT 1")]), json!({"patient": ["1"]}), "22023", "subject 1: patient is for views"),
        (json!([query("SELECT 1")]), json!({"_since": "2024-01-01T00:00:00Z"}), "22023", "_since is for views"),
        (json!([good()]), json!({"patient": ["nobody"]}), "22023", "there is no Patient \"nobody\""),
        (json!([good()]), json!({"group": ["nobody"]}), "P0002", "there is no Group \"nobody\""),
        (json!([good()]), json!({"_since": "yesterday"}), "22023", "_since is not an instant"),
        (json!([good()]), json!({"_outputFormat": "xml"}), "0A000", "_outputFormat \"xml\" is not supported"),
        (json!([good()]), json!({"context": [{"url": "http://x"}]}), "22023", "context has http://x"),
        (json!([good()]), json!({"allowedTypes": ["Observation"]}), "42501", "\"Patient\" is not among"),
        (json!([query("SELECT 1")]), json!({"allowedTypes": ["*"]}), "42501", "subject 1: a query of SQL"),
        (json!([good()]), json!({"_type": "Patient"}), "22023", "unknown member \"_type\""),
        (json!([good()]), json!({"_limit": 1}), "22023", "unknown member \"_limit\""),
        (json!("x"), json!({}), "22023", "\"subjects\" of the request is not an array"),
        (vec![query("SELECT 1"); 1001].into(), json!({}), "54000", "1001 subjects"),
    ] {
        let error = fails(&mut client, &export_sql(&of(subjects.clone(), more.clone())));
        assert_error(&error, state, &[piece]);
    }
    // The place in the query, as its author wrote it.
    let error = fails(&mut client, &export_sql(&of(json!([query("SELECT nothing FROM patient")]), json!({}))));
    assert!(format!("{:?}", error.position()).contains("position: 8"), "{error:?}");
    let unknown = of(json!([good()]), json!({"frobnicate": 1}));
    assert_error_with_hint(&fails(&mut client, &export_sql(&unknown)), "22023", &["frobnicate"]);
    // Nothing of it is in the queue, and the session goes on.
    assert_eq!(value(&mut client, "SELECT count(*) FROM bulk_jobs"), "0");
    assert_eq!(files(&database), [""; 0]);
}

#[test]
fn an_error_while_it_runs_says_which_subject_it_is_and_leaves_nothing() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    run(
        &mut client,
        "UPDATE patient SET resource = '{\"name\": [{\"family\": \"a\"}, {\"family\": \"b\"}]}' WHERE id = '2'",
    );
    let several = json!({"resource": "Patient", "select": [{"column": [{"name": "family", "path": "name.family"}]}]});
    let good = json!({"view": ids_of("Patient")});
    for (bad, message) in [
        (json!({"view": several}), "subject 2: column \"family\" has several values"),
        (json!({"query": "SELECT 1 / (id::int - 2) FROM patient"}), "subject 2: division by zero"),
    ] {
        let id = export(&mut client, &of(json!([good, bad]), json!({})));
        let status = finish(&mut client, &id);
        assert_eq!(status["status"], "failed", "{status}");
        assert!(status["error"].as_str().unwrap().starts_with(message), "{status}");
        wait_for_no_files(&database);
    }
}

#[test]
fn a_job_has_the_rights_and_settings_of_its_role() {
    let (database, mut admin) = with_location();
    patients_and_observations(&mut admin, 3);
    let role = database.role("analyst");
    run(
        &mut admin,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role}; GRANT SELECT ON patient TO {role};
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON patient USING (id = current_setting('request.patient', true));
             CREATE SCHEMA other; CREATE TABLE other.mine AS SELECT 7 AS n; GRANT ALL ON SCHEMA other TO {role}; GRANT SELECT ON other.mine TO {role}"
        ),
    );
    let mut client = database.connect_as(&role);
    run(&mut client, "SET request.patient = '2'; SET search_path = other, public; SET TimeZone = 'Asia/Tokyo'");
    let query = "SELECT n, current_user = session_user, current_setting('request.patient') AS p, \
                 timestamptz '2024-01-01T00:00:00Z' AS at, count(id) AS seen FROM mine, patient GROUP BY 1";
    let subjects = json!([{"name": "v", "view": ids_of("Patient")}, {"name": "q", "query": query},
        {"name": "vq", "query": "SELECT * FROM p", "views": {"p": ids_of("Patient")}}]);
    let status = done(&mut client, &of(subjects, json!({"_outputFormat": "json"})));
    let read =
        |client: &mut Client, name: &str| -> Value { serde_json::from_str(&body(client, &status, name)).unwrap() };
    assert_eq!(read(&mut client, "v"), json!([{"id": "2"}]));
    assert_eq!(read(&mut client, "vq"), json!([{"id": "2"}]));
    let row = read(&mut client, "q")[0].clone();
    assert_eq!((&row["n"], &row["p"], &row["seen"]), (&json!(7), &json!("2"), &json!(1)), "{row}");
    assert_eq!(row["at"], "2024-01-01T09:00:00+09:00");
    for subject in [
        json!({"view": ids_of("Observation")}),
        json!({"query": "SELECT FROM observation"}),
        json!({"query": "SELECT FROM o", "views": {"o": ids_of("Observation")}}),
        json!({"query": "SELECT pg_read_file('/etc/passwd')"}),
    ] {
        let error = fails(&mut client, &export_sql(&of(json!([subject]), json!({}))));
        assert_error(&error, "42501", &["permission denied"]);
    }
    // A right that is gone when the job runs is not there.
    run(&mut client, "BEGIN");
    let id = export(&mut client, &of(json!([{"name": "q", "query": "SELECT id FROM public.patient"}]), json!({})));
    run(&mut admin, &format!("REVOKE SELECT ON patient FROM {role}"));
    run(&mut client, "COMMIT");
    let status = finish(&mut client, &id);
    assert_eq!(status["error"], "subject 1: permission denied for table patient", "{status}");
}

#[test]
fn a_query_cannot_leave_its_role_or_change_anything() {
    let (database, mut admin) = with_location();
    patients_and_observations(&mut admin, 1);
    let role = database.role("analyst");
    run(
        &mut admin,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role}; GRANT CREATE ON SCHEMA public TO {role}"
        ),
    );
    let mut client = database.connect_as(&role);
    run(
        &mut client,
        "CREATE TABLE trace (what text);
         CREATE FUNCTION leave(what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE what; RETURN current_user; END $$",
    );
    for what in ["RESET ROLE", "SET SESSION AUTHORIZATION DEFAULT", "INSERT INTO trace VALUES (1)", "SET request.x = 1"]
    {
        let query = format!("SELECT leave('{what}')");
        let id = export(&mut client, &of(json!([{"query": query}]), json!({})));
        let status = finish(&mut client, &id);
        assert_eq!(status["status"], "failed", "{what}: {status}");
    }
    assert_eq!(rows(&mut admin, "SELECT * FROM trace"), [""; 0]);
}

#[test]
fn a_job_is_shown_cancelled_and_begun_anew_as_any_export() {
    let (database, mut client) = with_location_on(own_server().database("subjects"));
    patients_and_observations(&mut client, 5);
    let closed = gate(&mut client, &database);
    let subjects =
        json!([{"name": "p", "view": ids_of("Patient")}, {"name": "gate", "query": "SELECT passes() AS ok"}]);
    let request = of(subjects, json!({"_outputFormat": "csv"}));
    let id = export(&mut client, &request);
    wait_for_readers(&mut client, 1);
    let shown = status(&mut client, &id);
    assert_eq!(
        (&shown["status"], &shown["progress"], shown.get("output")),
        (&json!("processing"), &json!({"rows": 5}), None)
    );
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    wait_for_no_files(&database);
    assert_eq!(status(&mut client, &id)["status"], "cancelled");
    // A worker that is killed takes the server's sessions with it; another one does the work.
    let id = export(&mut client, &request);
    wait_for_readers(&mut client, 1);
    let pid = value(
        &mut client,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' AND wait_event = 'PgSleep'",
    );
    database.cluster().kill_backend(pid.parse().unwrap());
    wait_for("the server to notice", || client.batch_execute("SELECT 1").is_err());
    let mut client = reconnected(&database);
    closed.open();
    let done = finish(&mut client, &id);
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(body(&mut client, &done, "p"), "id\n1\n2\n3\n4\n5\n");
    assert_eq!(files(&database).len(), 2);
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    wait_for_no_files(&database);
}
