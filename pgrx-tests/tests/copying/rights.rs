//! What a role may copy is what it may read and write.

use crate::from::{copy, copy_fails, try_copy};
use crate::support::{assert_error, assert_error_with_hint, count, fails, patients, rows, run};
use fhir_bulk_tests::{Client, Database};

/// A role with the rights on the table that are named, its session, and the superuser's.
fn role(database: &Database, rights: &str) -> (String, Client, Client) {
    let role = database.role("clerk");
    let mut admin = database.connect();
    run(&mut admin, "SELECT bulk_create_table('Patient'), bulk_load_result()");
    if !rights.is_empty() {
        run(
            &mut admin,
            &format!("GRANT {rights} ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"),
        );
    }
    let mut client = database.connect_as(&role);
    run(&mut client, "SELECT bulk_load_result()");
    (role, client, admin)
}

#[test]
fn a_load_from_the_client_takes_rights_on_the_table_and_no_other() {
    let database = Database::new();
    let (role, mut client, mut admin) = role(&database, "");
    let statement = "COPY patient FROM STDIN (FORMAT fhir)";
    assert_error(&fails(&mut client, statement), "42501", &["permission denied"]);
    assert_error(&fails(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)"), "42501", &["transaction_id_seq"]);
    run(
        &mut admin,
        &format!(
            "GRANT INSERT, UPDATE, SELECT ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"
        ),
    );
    for statement in [statement, "COPY bulk_resource FROM STDIN (FORMAT fhir)"] {
        assert_eq!(copy(&mut client, statement, patients(1..=3)), 3);
    }
    assert_error(&fails(&mut client, "SELECT bulk_load('file:///x')"), "42501", &["bulk_load"]);
}

#[test]
fn a_dump_takes_select_and_shows_what_policies_leave() {
    let database = Database::new();
    let (role, mut client, mut admin) = role(&database, "");
    copy(&mut admin, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=3));
    for format in ["fhir", "aidbox", "ndjson"] {
        let error = fails(&mut client, &format!("COPY patient TO STDOUT (FORMAT {format})"));
        assert_error(&error, "42501", &["permission denied"]);
    }
    run(
        &mut admin,
        &format!(
            "GRANT SELECT ON patient TO {role}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON patient USING (id = 'p-2')"
        ),
    );
    for format in ["fhir", "aidbox", "ndjson"] {
        let lines = read(&mut client, &format!("COPY patient TO STDOUT (FORMAT {format})"));
        assert!(lines.lines().count() == 1 && lines.contains("p-2"), "{lines}");
    }
    // New rows are checked against the policy, too.
    run(
        &mut admin,
        &format!("GRANT INSERT, UPDATE ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"),
    );
    assert_error(
        &copy_fails(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(5..=5)),
        "42501",
        &["row-level security"],
    );
    run(&mut client, "SET row_security = off");
    assert_error(&fails(&mut client, "COPY patient TO STDOUT (FORMAT fhir)"), "42501", &["row-level security"]);
}

fn read(client: &mut Client, statement: &str) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    client.copy_out(statement).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn files_and_programs_of_the_server_take_copys_own_rights() {
    let database = Database::new();
    let (role, mut client, mut admin) = role(&database, "SELECT, INSERT, UPDATE");
    let lines = database.file("lines", patients(1..=3)).replace("file://", "");
    let out = database.path("out").display().to_string();
    for (statement, granted) in [
        (format!("COPY patient FROM '{lines}' (FORMAT fhir)"), "pg_read_server_files"),
        (format!("COPY patient TO '{out}' (FORMAT fhir)"), "pg_write_server_files"),
        (format!("COPY patient FROM PROGRAM 'cat {lines}' (FORMAT fhir)"), "pg_execute_server_program"),
        ("COPY patient TO PROGRAM 'cat >/dev/null' (FORMAT fhir)".to_owned(), "pg_execute_server_program"),
    ] {
        run(&mut admin, &format!("REVOKE {granted} FROM {role}"));
        let error = fails(&mut client, &statement);
        assert_error_with_hint(&error, "42501", &["permission denied to COPY"]);
        assert!(error.detail().is_some_and(|detail| detail.contains(granted)), "{error:?}");
        run(&mut admin, &format!("GRANT {granted} TO {role}"));
        run(&mut client, &statement);
    }
    // Whether a file is there is not told to those who may not read it.
    run(&mut admin, &format!("REVOKE pg_read_server_files FROM {role}"));
    assert_error(&fails(&mut client, "COPY patient FROM '/nowhere' (FORMAT fhir)"), "42501", &[]);
}

#[test]
fn a_read_only_transaction_takes_no_load() {
    let database = Database::new();
    let (_, _, mut admin) = role(&database, "");
    run(&mut admin, "BEGIN READ ONLY");
    let error = fails(&mut admin, "COPY patient FROM STDIN (FORMAT fhir)");
    assert_error(&error, "25006", &["COPY FROM"]);
    run(&mut admin, "ROLLBACK; BEGIN READ ONLY");
    assert!(read(&mut admin, "COPY patient TO STDOUT (FORMAT fhir)").is_empty());
    run(&mut admin, "COMMIT");
}

#[test]
fn dump_sql_runs_no_copy() {
    let database = Database::new();
    let (_, _, mut admin) = role(&database, "");
    let out = database.path("out");
    let copy = format!("COPY patient TO '{}' (FORMAT fhir)", out.display());
    run(
        &mut admin,
        &format!(
            "CREATE FUNCTION sly() RETURNS int LANGUAGE plpgsql AS $$ BEGIN {copy}; RETURN 1; END $$; SELECT sly()"
        ),
    );
    std::fs::remove_file(&out).unwrap();
    assert_error(&fails(&mut admin, "SELECT dump_sql('SELECT sly()')"), "25006", &["COPY"]);
    assert!(!out.exists());
}

#[test]
fn a_view_of_that_name_which_is_not_the_extensions_is_only_a_view() {
    let database = Database::new();
    let (_, _, mut admin) = role(&database, "");
    run(&mut admin, "CREATE SCHEMA other; CREATE VIEW other.bulk_resource AS SELECT 1 AS id");
    let error = fails(&mut admin, "COPY other.bulk_resource FROM STDIN (FORMAT fhir)");
    assert_error(&error, "42809", &["bulk_resource"]);
    assert_eq!(rows(&mut admin, "SELECT * FROM public.bulk_resource"), [""; 0]);
    assert_eq!(
        try_copy(&mut admin, "COPY public.bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=1).as_bytes()).unwrap(),
        1
    );
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 1);
}
