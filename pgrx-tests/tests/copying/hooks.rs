//! Other statements go through the hook untouched, and other extensions' hooks see ours.

use crate::from::{copy, copy_fails};
use crate::support::{assert_error, count, fails, patients, rows, run};
use crate::to::read;
use fhir_bulk_tests::{Client, Cluster, Database, bin};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A server whose sessions have hooks of others before ours and behind it: pg_stat_statements, auto_explain, and one that
/// sees privileges checked.
fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let library = check_perms();
        Cluster::start(&[
            "shared_preload_libraries = 'pg_stat_statements'",
            &format!("session_preload_libraries = 'fhir_bulk, auto_explain, {library}'"),
            "auto_explain.log_min_duration = 0",
        ])
    })
}

/// A library with an ExecutorCheckPerms hook, which raises a NOTICE for each table; compiled here.
fn check_perms() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/copying/check_perms.c");
    let folder = std::env::temp_dir().join(format!("fhir_bulk_check_perms_{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("check_perms.so");
    let headers = Command::new(bin("pg_config")).arg("--includedir-server").output().unwrap().stdout;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-I", String::from_utf8(headers).unwrap().trim(), "-o"])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    library.display().to_string()
}

fn database(name: &str) -> (Database, Client) {
    let database = server().database(name);
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    (database, client)
}

#[test]
fn errors_of_other_statements_keep_their_place_and_context() {
    let (_database, mut with) = database("errors");
    // The same server's own answer, in a session without the library.
    let mut without = fhir_bulk_tests::connect(&format!(
        "{} options='-c session_preload_libraries='",
        server().dsn("postgres", "errors")
    ))
    .unwrap();
    for statement in [
        "CREATE TABLE t (a nix)",
        "CREATE TABLE t (a int DEFAULT 1 + 'x'::int)",
        "COPY patient FROM STDIN (FORMAT nix)",
        "COPY patient TO STDOUT (FORMAT csv, blah 1)",
        "COPY nowhere TO STDOUT (FORMAT csv)",
        "COPY (SELECT nix) TO STDOUT",
        "DO $$ BEGIN PERFORM 1 / 0; END $$",
        "ALTER TABLE patient ADD CHECK (id > nix)",
        "SET nix = 1",
        "CALL nowhere()",
        "EXPLAIN SELECT nix",
    ] {
        let [ours, own] = [&mut with, &mut without].map(|client| fails(client, statement));
        assert_eq!(
            (ours.code(), ours.message(), ours.detail(), ours.hint(), ours.position(), ours.where_(), ours.routine()),
            (own.code(), own.message(), own.detail(), own.hint(), own.position(), own.where_(), own.routine()),
            "{statement}"
        );
    }
}

#[test]
fn copies_in_copys_own_formats_work_as_ever() {
    let (_database, mut client) = database("own_formats");
    run(&mut client, "CREATE TABLE t (a int, b text)");
    assert_eq!(copy(&mut client, "COPY t FROM STDIN (FORMAT csv)", "1,x\n2,y\n"), 2);
    assert_eq!(copy(&mut client, "COPY t FROM STDIN", "3\tz\n"), 1);
    assert_error(&copy_fails(&mut client, "COPY t FROM STDIN (FORMAT csv)", "x,y\n"), "22P02", &[]);
    let error = copy_fails(&mut client, "COPY t FROM STDIN (FORMAT csv)", "x,y\n");
    assert!(error.where_().is_some_and(|place| place.contains("COPY t, line 1, column a")), "{error:?}");
    assert_eq!(read(&mut client, "COPY t TO STDOUT (FORMAT csv)"), b"1,x\n2,y\n3,z\n");
}

#[test]
fn what_others_hook_into_goes_on() {
    let (_database, mut client) = database("others");
    run(&mut client, "CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()");
    run(&mut client, "SET work_mem = '5MB'; CREATE TABLE counted (a int); INSERT INTO counted VALUES (1)");
    read(&mut client, "COPY counted TO STDOUT");
    let seen =
        rows(&mut client, "SELECT query FROM pg_stat_statements WHERE query ~ 'counted|work_mem' ORDER BY query");
    for wanted in ["COPY counted TO STDOUT", "CREATE TABLE counted (a int)", "SET work_mem = "] {
        assert!(seen.iter().any(|query| query.starts_with(wanted)), "no {wanted} in {seen:?}");
    }
    // A query that a COPY of ours runs is one that auto_explain explains.
    read(&mut client, "COPY (SELECT a AS explained_here FROM counted) TO STDOUT (FORMAT ndjson)");
    assert!(server().log().contains("explained_here"), "no plan in the log");
}

#[test]
fn whoever_watches_privileges_sees_every_copy() {
    let (database, mut client) = database("privileges");
    let role = database.role("clerk");
    run(&mut client, &format!("GRANT ALL ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"));
    let mut clerk = database.connect_as(&role);
    // The hook refuses a privilege on a table: INSERT is 1, SELECT is 2 (parsenodes.h).
    for (statement, privilege) in [
        ("COPY patient FROM STDIN (FORMAT fhir)", "1"),
        ("COPY bulk_resource FROM STDIN (FORMAT fhir)", "1"),
        ("COPY patient TO STDOUT (FORMAT fhir)", "2"),
        ("COPY patient TO STDOUT (FORMAT ndjson)", "2"),
        ("COPY (SELECT id FROM patient) TO STDOUT (FORMAT ndjson)", "2"),
    ] {
        run(&mut clerk, &format!("SET check_perms.refuse = 'patient'; SET check_perms.privileges = {privilege}"));
        let error = match statement.contains("bulk_resource") {
            true => copy_fails(&mut clerk, statement, patients(1..=1)),
            false => fails(&mut clerk, statement),
        };
        assert_error(&error, "42501", &["check_perms refuses patient"]);
        run(&mut clerk, "RESET check_perms.refuse");
        match statement.contains("FROM STDIN") {
            true => assert_eq!(copy(&mut clerk, statement, patients(1..=1)), 1),
            false => assert!(!read(&mut clerk, statement).is_empty()),
        }
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 1);
}
