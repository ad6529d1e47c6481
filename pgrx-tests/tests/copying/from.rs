//! COPY … FROM STDIN loads as `bulk_load` does.

use crate::support::{assert_error, count, load, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, DbError, gzip, shared_data};
use std::io::Write as _;

/// Sends bytes behind a COPY; how many lines are stored.
pub fn try_copy(client: &mut Client, statement: &str, bytes: &[u8]) -> Result<u64, postgres::Error> {
    let mut writer = client.copy_in(statement)?;
    for piece in bytes.chunks(100_000) {
        writer.write_all(piece).unwrap();
    }
    writer.finish()
}

/// The same where it must work.
#[track_caller]
pub fn copy(client: &mut Client, statement: &str, bytes: impl AsRef<[u8]>) -> u64 {
    try_copy(client, statement, bytes.as_ref()).unwrap_or_else(|error| panic!("{statement}: {error:?}"))
}

/// The error where it must fail once its data comes. (Of one that fails before, the driver gets out of step: use `fails`.)
#[track_caller]
pub fn copy_fails(client: &mut Client, statement: &str, bytes: impl AsRef<[u8]>) -> DbError {
    let result = try_copy(client, statement, bytes.as_ref());
    assert!(result.is_err(), "this must fail: {statement}");
    fhir_bulk_tests::error(result)
}

/// A session that knows the formats.
pub fn session(database: &Database) -> Client {
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_load_result()");
    client
}

#[test]
fn any_mix_of_types_lands_where_bulk_load_puts_it_plain_and_gzipped() {
    let (by_load, by_copy) = (Database::new(), Database::new());
    let mut lines = patients(1..=3000);
    lines.push_str(
        "{\"resourceType\":\"Observation\",\"id\":\"o\",\"status\":\"final\",\"valueQuantity\":{\"value\":1.50}}\n",
    );
    let (mut loaded, mut copied) = (by_load.connect(), session(&by_copy));
    let answer = load(&mut loaded, &by_load.file("all", &lines), "fhir => true");
    for bytes in [lines.clone().into_bytes(), gzip(lines.as_bytes())] {
        assert_eq!(copy(&mut copied, "COPY bulk_resource FROM STDIN (FORMAT fhir)", bytes), 3001);
        assert_eq!(value(&mut copied, "SELECT bulk_load_result()"), answer);
    }
    load(&mut loaded, &by_load.file("all", &lines), "fhir => true");
    for table in ["patient", "observation"] {
        let all = format!("SELECT id, resource_type, status, resource FROM {table} ORDER BY id");
        assert_eq!(rows(&mut copied, &all), rows(&mut loaded, &all));
    }
}

#[test]
fn real_resources_come_back_as_they_went_in() {
    let Some(folder) = shared_data() else { return };
    let database = Database::new();
    let file = folder.join("synthea-small/all.ndjson.gz");
    let mut client = session(&database);
    assert_eq!(copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", std::fs::read(file).unwrap()), 4118);
    let there = "SELECT sum(n) FROM (SELECT count(*) AS n FROM patient UNION ALL SELECT count(*) FROM observation) x";
    assert_eq!(count(&mut client, there), 10 + 1554);
}

#[test]
fn aidboxs_form_is_stored_as_it_is() {
    let database = Database::new();
    let mut client = session(&database);
    let line = r#"{"id":"a","subject":{"id":"p","resourceType":"Patient"},"resourceType":"Observation"}"#;
    copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT aidbox)", line);
    assert_eq!(
        value(&mut client, "SELECT resource FROM observation"),
        r#"{"subject": {"id": "p", "resourceType": "Patient"}}"#
    );
}

#[test]
fn known_ids_are_updated_and_the_last_line_of_an_id_wins() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "SELECT bulk_create_table('Patient')");
    assert_eq!(copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=10)), 10);
    let again = [patient("p-1", 7), patient("p-1", 8), patient("new", 9)].join("\n");
    assert_eq!(copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY)", again), 3);
    assert_eq!(
        rows(
            &mut client,
            "SELECT id, status, resource -> 'multipleBirth' -> 'integer' FROM patient WHERE id IN ('p-1', 'new') ORDER BY id"
        ),
        ["new|created|9", "p-1|updated|8"]
    );
    assert_eq!(rows(&mut client, "SELECT id FROM patient_history"), ["p-1"]);
    assert_eq!(value(&mut client, "SELECT bulk_load_result()"), r#"{"total": 3}"#);
}

#[test]
fn what_the_copy_stored_is_the_transactions_own() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "SELECT bulk_create_table('Patient'); BEGIN; SAVEPOINT a");
    copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=10));
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 10);
    run(&mut client, "ROLLBACK TO a");
    copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(20..=24));
    run(&mut client, "COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 5);
}

#[test]
fn a_bad_line_ends_the_copy_with_its_number_and_nothing_is_loaded() {
    let database = Database::new();
    let mut client = session(&database);
    let error = copy_fails(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=5) + "{\"id\":\n");
    assert_error(&error, "22P02", &["line 6 of STDIN"]);
    assert!(error.detail().is_some_and(|detail| detail.contains("byte")), "{error:?}");
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
    assert_eq!(value(&mut client, "SELECT bulk_load_result() IS NULL"), "t");
    // The connection is in step.
    assert_eq!(copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=5)), 5);
}

#[test]
fn half_a_gzip_stream_is_refused() {
    let database = Database::new();
    let mut client = session(&database);
    let whole = gzip(patients(1..=5000).as_bytes());
    let error = copy_fails(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", &whole[..whole.len() / 2]);
    assert_error(&error, "22P04", &["gzip stream is truncated"]);
}

#[test]
fn no_bytes_are_no_lines() {
    let database = Database::new();
    let mut client = session(&database);
    for empty in ["", "\n\n"] {
        assert_eq!(copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", empty), 0);
    }
    // What a driver sends of COPY's binary format when no rows were written.
    let none = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff";
    assert_eq!(copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", none), 0);
}

#[test]
fn errors_of_triggers_and_constraints_come_with_all_that_they_have() {
    let database = Database::new();
    let mut client = session(&database);
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'), bulk_create_table('Group');
         ALTER TABLE patient ADD CONSTRAINT no_seven CHECK (id <> 'p-7');
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE 'not this one' USING ERRCODE = 'P0777', CONSTRAINT = 'kk', DETAIL = 'because'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON \"group\" FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let url = database.file("patients", patients(7..=7));
    let group = "{\"resourceType\":\"Group\",\"id\":\"g\"}";
    let of_group = database.file("group", group);
    for by_load in [false, true] {
        let error = match by_load {
            true => crate::support::load_fails(&mut client, &url, "'Patient'"),
            false => copy_fails(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(7..=7)),
        };
        assert_error(&error, "23514", &["no_seven"]);
        assert_eq!((error.table(), error.constraint()), (Some("patient"), Some("no_seven")));
        let error = match by_load {
            true => crate::support::load_fails(&mut client, &of_group, "'Group'"),
            false => copy_fails(&mut client, "COPY \"group\" FROM STDIN (FORMAT fhir)", group),
        };
        assert_error(&error, "P0777", &["not this one"]);
        assert_eq!((error.detail(), error.constraint()), (Some("because"), Some("kk")));
        assert!(error.where_().is_some_and(|place| place.contains("PL/pgSQL function refuse()")), "{error:?}");
    }
    // An id that another session has just taken is no error, and leaves nothing to the next one.
    copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=3));
    let error = copy_fails(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=3) + "{\"id\": 1}");
    assert_error(&error, "22023", &["line 4"]);
    assert_eq!(error.constraint(), None);
}

#[test]
fn messages_reach_clients_of_other_encodings() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "SELECT bulk_create_table('Patient'); SET client_encoding = 'LATIN1'");
    for statement in ["COPY patient FROM STDIN (FORMAT fhir, MERGE 5)", "COPY patient (id) TO STDOUT (FORMAT ndjson)"] {
        let error = crate::support::fails(&mut client, statement);
        assert!(["22023", "0A000"].contains(&error.code().code()), "{error:?}");
    }
    for data in ["\\.\n", "{\"id\":\"a\",\"resourceType\":\"Group\"}"] {
        let error = copy_fails(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", data);
        assert!(["22023", "22P04"].contains(&error.code().code()), "{error:?}");
    }
}

#[test]
fn what_a_copy_came_to_is_told_to_its_role_alone() {
    let database = Database::new();
    let role = database.role("other");
    let mut client = session(&database);
    copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=3));
    assert_eq!(value(&mut client, "SELECT bulk_load_result()"), r#"{"Patient": 3}"#);
    assert_eq!(value(&mut client, &format!("SET ROLE {role}; SELECT bulk_load_result() IS NULL")), "t");
    run(&mut client, "RESET ROLE");
    crate::to::read(&mut client, "COPY patient TO STDOUT (FORMAT fhir)");
    assert_eq!(value(&mut client, "SELECT bulk_load_result()"), r#"{"Patient": 3}"#);
    crate::support::fails(&mut client, "COPY patient FROM STDIN (FORMAT fhir, nix)");
    assert_eq!(value(&mut client, "SELECT bulk_load_result() IS NULL"), "t");
}
