//! Loads of bytes that the client itself hands over, piece by piece.

use crate::support::{assert_error, assert_error_with_hint, count, fails, load, patients, run, value};
use fhir_bulk_tests::{Client, Database, gzip};
use std::fs;

fn stage(client: &mut Client, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        client.query_one("SELECT bulk_load_stage($1)", &[&piece]).unwrap();
    }
}

fn load_staged(client: &mut Client) -> String {
    load(client, "staged://", "'Patient', fhir => true")
}

/// How many temporary files a session has.
fn temporary_files(database: &Database, pid: &str) -> usize {
    let entries = fs::read_dir(database.cluster().data().join("base/pgsql_tmp")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&format!("pgsql_tmp{pid}."))).count()
}

fn pid(client: &mut Client) -> String {
    value(client, "SELECT pg_backend_pid()")
}

#[test]
fn pieces_cut_anywhere_plain_or_gzipped_load_as_the_same_file_would() {
    let database = Database::new();
    let mut client = database.connect();
    let pid = pid(&mut client);
    let lines = patients(1..=500);
    for (bytes, piece) in
        [(lines.clone().into_bytes(), 1000), (gzip(lines.as_bytes()), 7), (lines.into_bytes(), 1 << 20)]
    {
        run(&mut client, "BEGIN");
        stage(&mut client, &bytes, piece);
        assert_eq!(load_staged(&mut client), r#"{"total": 500}"#);
        assert_eq!(temporary_files(&database, &pid), 0, "the space is given back when all is read");
        run(&mut client, "COMMIT");
        assert_eq!(
            value(&mut client, "SELECT count(*), max((resource #>> '{multipleBirth,integer}')::int) FROM patient"),
            "500|500"
        );
    }
}

#[test]
fn what_is_staged_belongs_to_its_transaction_and_is_loaded_once() {
    let database = Database::new();
    let mut client = database.connect();
    let pid = pid(&mut client);
    let nothing = |client: &mut Client| {
        let error = fails(client, "SELECT bulk_load('staged://', 'Patient')");
        assert_error_with_hint(&error, "55000", &["no bytes are staged"]);
    };
    nothing(&mut client);
    let line = patients(1..=1);
    // Each statement for itself is each a transaction for itself.
    stage(&mut client, line.as_bytes(), 1 << 20);
    nothing(&mut client);
    for end in ["ROLLBACK", "COMMIT"] {
        run(&mut client, "BEGIN");
        stage(&mut client, line.as_bytes(), 1 << 20);
        run(&mut client, end);
        assert_eq!(temporary_files(&database, &pid), 0);
        nothing(&mut client);
    }
    run(&mut client, "BEGIN");
    stage(&mut client, line.as_bytes(), 1 << 20);
    assert_eq!(load_staged(&mut client), r#"{"total": 1}"#);
    nothing(&mut client);
    run(&mut client, "ROLLBACK");
    // An empty body is a load of nothing, not a mistake.
    run(&mut client, "BEGIN; SELECT bulk_load_stage('')");
    assert_eq!(load_staged(&mut client), r#"{"total": 0}"#);
    // And then there may be another.
    stage(&mut client, line.as_bytes(), 10);
    assert_eq!(load_staged(&mut client), r#"{"total": 1}"#);
    run(&mut client, "COMMIT");
}

#[test]
fn savepoints_take_back_what_was_staged_after_them_and_no_more() {
    let database = Database::new();
    let mut client = database.connect();
    let add = |client: &mut Client, number: usize| stage(client, patients(number..=number).as_bytes(), 1 << 20);
    run(&mut client, "BEGIN");
    add(&mut client, 1);
    run(&mut client, "SAVEPOINT a");
    add(&mut client, 2);
    run(&mut client, "SAVEPOINT b");
    add(&mut client, 3);
    run(&mut client, "RELEASE b; SAVEPOINT c");
    add(&mut client, 4);
    run(&mut client, "ROLLBACK TO c; ROLLBACK TO a; SAVEPOINT d");
    add(&mut client, 5);
    run(&mut client, "RELEASE d; RELEASE a");
    // As clients do that wrap each statement.
    for number in 6..=8 {
        run(&mut client, "SAVEPOINT each");
        add(&mut client, number);
        run(&mut client, "RELEASE each");
    }
    assert_eq!(load_staged(&mut client), r#"{"total": 5}"#);
    run(&mut client, "COMMIT");
    assert_eq!(value(&mut client, "SELECT string_agg(id, ' ' ORDER BY id) FROM patient"), "p-1 p-5 p-6 p-7 p-8");
    // All of it staged after the savepoint: nothing is left.
    run(&mut client, "BEGIN; SAVEPOINT a");
    add(&mut client, 9);
    run(&mut client, "ROLLBACK TO a");
    assert_error(&fails(&mut client, "SELECT bulk_load('staged://', 'Patient')"), "55000", &[]);
    run(&mut client, "ROLLBACK");
    let log = database.cluster().log();
    assert!(!log.contains("temporary file leak"), "{log}");
}

#[test]
fn a_bad_line_is_told_by_its_number_and_leaves_nothing() {
    let database = Database::new();
    let mut client = database.connect();
    let pid = pid(&mut client);
    run(&mut client, "BEGIN");
    stage(&mut client, (patients(1..=3) + "{\n").as_bytes(), 100);
    let error = fails(&mut client, "SELECT bulk_load('staged://', 'Patient')");
    assert_error(&error, "22P02", &["line 4 of the staged bytes"]);
    run(&mut client, "ROLLBACK");
    assert_eq!(temporary_files(&database, &pid), 0);
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
}

#[test]
fn staging_keeps_to_the_limits_on_temporary_files() {
    let database = Database::new();
    let role = database.role("loader");
    database
        .connect()
        .batch_execute(&format!(
            "GRANT EXECUTE ON FUNCTION bulk_load_stage(bytea) TO {role}; ALTER ROLE {role} SET temp_file_limit = '1MB'"
        ))
        .unwrap();
    let mut client = database.connect_as(&role);
    let pid = pid(&mut client);
    let megabyte = vec![b' '; 1 << 20];
    run(&mut client, "BEGIN");
    stage(&mut client, &megabyte, 1 << 18);
    assert_eq!(temporary_files(&database, &pid), 1);
    let error = fails(&mut client, "SELECT bulk_load_stage('x')");
    assert_error(&error, "53400", &["temp_file_limit"]);
    run(&mut client, "ROLLBACK");
    assert_eq!(temporary_files(&database, &pid), 0);
}

#[test]
fn a_piece_that_could_not_be_staged_takes_none_of_those_before_with_it() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "BEGIN");
    stage(&mut client, patients(1..=1).as_bytes(), 1 << 20);
    run(&mut client, "SET LOCAL temp_file_limit = '64kB'; SAVEPOINT s");
    let large = format!("SELECT bulk_load_stage(convert_to(repeat(' ', {}), 'UTF8'))", 1 << 20);
    assert_error(&fails(&mut client, &large), "53400", &["temp_file_limit"]);
    run(&mut client, "ROLLBACK TO s");
    stage(&mut client, patients(2..=2).as_bytes(), 1 << 20);
    assert_eq!(load_staged(&mut client), r#"{"total": 2}"#);
    assert_eq!(value(&mut client, "SELECT string_agg(id, ' ' ORDER BY id) FROM patient"), "p-1 p-2");
    run(&mut client, "COMMIT");
}

#[test]
fn staging_is_for_those_who_may_and_never_in_a_transaction_that_only_reads() {
    let database = Database::new();
    let role = database.role("anybody");
    let error = fails(&mut database.connect_as(&role), "SELECT bulk_load_stage('x')");
    assert_error(&error, "42501", &["bulk_load_stage"]);
    let mut client = database.connect();
    run(&mut client, "BEGIN READ ONLY");
    assert_error(&fails(&mut client, "SELECT bulk_load_stage('x')"), "25006", &[]);
    run(&mut client, "ROLLBACK");
    assert_error(&fails(&mut client, "SELECT bulk_load_stage(NULL)"), "22004", &[]);
    // A worker has no bytes of this transaction.
    let import = r#"SELECT bulk_import('{"id": "x", "inputs": [{"resourceType": "Patient", "url": "staged://"}]}')"#;
    assert_error(&fails(&mut client, import), "22023", &["staged"]);
}

#[test]
fn a_trigger_that_stages_during_a_load_of_staged_bytes_disturbs_nothing() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient');
         CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM bulk_load_stage('{\"id\": \"o-'::bytea || NEW.id::bytea || '\"}\n'::bytea); RETURN NEW; END $$;
         CREATE TRIGGER again BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION again(); BEGIN",
    );
    stage(&mut client, patients(1..=200).as_bytes(), 500);
    assert_eq!(load_staged(&mut client), r#"{"total": 200}"#);
    assert_eq!(load(&mut client, "staged://", "'Observation'"), r#"{"total": 200}"#);
    run(&mut client, "COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM observation WHERE id LIKE 'o-p-%'"), 200);
}
