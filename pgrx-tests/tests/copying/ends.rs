//! Files and programs on the server, and psql's `\copy`.

use crate::from::{copy, session};
use crate::support::{assert_error, assert_error_with_hint, count, fails, patients, rows, run, value};
use fhir_bulk_tests::{Database, gunzip, gzip};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn files_of_the_server_are_read_and_written() {
    let database = Database::new();
    let mut client = session(&database);
    let path = |url: String| url.replace("file://", "");
    let gzipped = path(database.file("Patient.ndjson.gz", gzip(patients(1..=1000).as_bytes())));
    run(&mut client, &format!("COPY bulk_resource FROM '{gzipped}' (FORMAT fhir)"));
    assert_eq!(value(&mut client, "SELECT bulk_load_result()"), r#"{"Patient": 1000}"#);
    let out = database.path("out.gz");
    run(&mut client, &format!("COPY patient TO '{}' (FORMAT fhir, GZIP)", out.display()));
    assert_eq!(gunzip(&std::fs::read(&out).unwrap()).iter().filter(|byte| **byte == b'\n').count(), 1000);
    // As COPY makes files.
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o644);
    let pipe = database.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (statement, state) in [
        ("COPY patient FROM '/nowhere/at/all' (FORMAT fhir)".to_owned(), "58P01"),
        (format!("COPY patient FROM '{}' (FORMAT fhir)", database.path("").display()), "42809"),
        ("COPY patient TO 'relative' (FORMAT fhir)".to_owned(), "42602"),
        ("COPY patient TO '/nowhere/at/all' (FORMAT fhir)".to_owned(), "58P01"),
        (format!("COPY patient TO '{}' (FORMAT fhir)", database.path("").display()), "42809"),
        // To open it would wait for a reader.
        (format!("COPY patient TO '{}' (FORMAT fhir)", pipe.display()), "58030"),
    ] {
        assert_error_or_hint(&fails(&mut client, &statement), state);
    }
}

#[track_caller]
fn assert_error_or_hint(error: &fhir_bulk_tests::DbError, state: &str) {
    assert_error(error, state, &[]);
    assert!(error.hint().is_some() || state == "42809", "{error:?}");
}

#[test]
fn programs_are_read_and_written_and_their_failure_is_the_copys() {
    let database = Database::new();
    let mut client = session(&database);
    let lines = database.file("lines", patients(1..=20_000)).replace("file://", "");
    run(&mut client, &format!("COPY bulk_resource FROM PROGRAM 'gzip -c < {lines}' (FORMAT fhir)"));
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 20_000);
    let out = database.path("out").display().to_string();
    run(&mut client, &format!("COPY patient TO PROGRAM 'wc -l > {out}' (FORMAT fhir)"));
    assert_eq!(std::fs::read_to_string(&out).unwrap().trim(), "20000");
    for (statement, detail) in [
        (format!("COPY patient FROM PROGRAM 'cat {lines}; exit 3' (FORMAT fhir)"), "status 3"),
        ("COPY patient FROM PROGRAM 'kill -9 $$' (FORMAT fhir)".to_owned(), "signal 9"),
        ("COPY patient TO PROGRAM 'exit 4' (FORMAT fhir)".to_owned(), "status 4"),
        ("COPY patient TO PROGRAM 'cat > /dev/null; exit 5' (FORMAT fhir)".to_owned(), "status 5"),
    ] {
        let error = fails(&mut client, &statement);
        assert_error(&error, "38000", &["program"]);
        assert!(error.detail().is_some_and(|text| text.contains(detail)), "{error:?}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE status <> 'created'"), 0);
    // One that reads nothing of what it is given, and is content.
    assert_error(&fails(&mut client, "COPY patient TO PROGRAM 'true' (FORMAT fhir)"), "58030", &["could not write to"]);
}

#[test]
fn psql_copies_files_of_the_client_through_as_they_are() {
    let database = Database::new();
    let mut admin = session(&database);
    run(&mut admin, &format!("ALTER DATABASE {} SET session_preload_libraries = 'fhir_bulk'", database.name()));
    let gzipped = gzip(patients(1..=1000).as_bytes());
    let path = database.file("Patient.ndjson.gz", &gzipped).replace("file://", "");
    let (plain, zipped) = (database.path("plain"), database.path("zipped.gz"));
    // As psql says it, in sessions that have called nothing.
    for (command, expected) in [
        (format!("\\copy bulk_resource from '{path}' (format fhir)"), "COPY 1000\n"),
        (format!("\\copy patient to '{}' (format fhir)", plain.display()), "COPY 1000\n"),
        (format!("\\copy patient to '{}' (format fhir, gzip)", zipped.display()), "COPY 1000\n"),
        (format!("\\copy patient from program 'cat {path}' (format fhir)"), "COPY 1000\n"),
    ] {
        let output = database.cluster().psql("postgres", database.name(), &["-c", "\\set QUIET off", "-c", &command]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((String::from_utf8_lossy(&output.stdout), error), (expected.into(), "".into()), "{command}");
    }
    assert_eq!(gunzip(&std::fs::read(zipped).unwrap()), std::fs::read(plain).unwrap());
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient WHERE status = 'updated'"), 1000);
}

#[test]
fn data_in_a_psql_script_is_refused_with_what_to_do() {
    let database = Database::new();
    let script = database.path("script.sql");
    let text = format!(
        "SELECT bulk_load_result();\nCOPY bulk_resource FROM STDIN (FORMAT fhir);\n{}\\.\nSELECT 1;\n",
        patients(1..=3)
    );
    std::fs::write(&script, text).unwrap();
    let output = database.cluster().psql("postgres", database.name(), &["-f", &script.display().to_string()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("line 4 of the data is \\.") && error.contains("\\copy"),
        "{error}"
    );
    let mut client = database.connect();
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
    // Nor is it passed over with the lines that may be.
    let mut client = session(&database);
    let error = crate::from::copy_fails(
        &mut client,
        "COPY bulk_resource FROM STDIN (FORMAT fhir, ON_ERROR skip)",
        patients(1..=3) + "\\.\n",
    );
    assert_error_with_hint(&error, "22P04", &["line 4", "\\."]);
}

#[test]
fn a_copy_inside_of_a_function_reads_and_writes_files_of_the_server() {
    let database = Database::new();
    let mut client = session(&database);
    let path = database.file("lines", patients(1..=3)).replace("file://", "");
    run(&mut client, &format!("DO $$ BEGIN COPY bulk_resource FROM '{path}' (FORMAT fhir); END $$"));
    assert_eq!(rows(&mut client, "SELECT id FROM patient ORDER BY id"), ["p-1", "p-2", "p-3"]);
    // A prepared one, twice.
    let out = database.path("out").display().to_string();
    let statement =
        client.prepare(&format!("COPY (SELECT id FROM patient ORDER BY id) TO '{out}' (FORMAT ndjson)")).unwrap();
    for _ in 0..2 {
        assert_eq!(client.execute(&statement, &[]).unwrap(), 3);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "{\"id\":\"p-1\"}\n{\"id\":\"p-2\"}\n{\"id\":\"p-3\"}\n");
    }
    assert_eq!(copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=1)), 1);
}
