//! Drivers hand bytes through as they are: psycopg, which `scripts/setup.sh --tests` puts into `target/venv`, and JDBC's
//! CopyManager, where there is a JDK. (psql is in `ends`, tokio-postgres behind all the others.)

use crate::from::{copy, session};
use crate::support::{count, patients, run, value};
use fhir_bulk_tests::{Client, Database, gunzip, gzip};
use std::path::Path;
use std::process::Command;

fn preloaded() -> (Database, Client) {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, &format!("ALTER DATABASE {} SET session_preload_libraries = 'fhir_bulk'", database.name()));
    (database, client)
}

#[track_caller]
fn run_command(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn psycopg_copies_both_ways() {
    let (database, mut client) = preloaded();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup.sh --tests", python.display());
    let zipped = database.file("in.gz", gzip(patients(1..=5000).as_bytes())).replace("file://", "");
    let script = r#"
import psycopg, sys
with psycopg.connect(sys.argv[1]) as connection, connection.cursor() as cursor:
    with cursor.copy("COPY bulk_resource FROM STDIN (FORMAT fhir)") as copy, open(sys.argv[2], "rb") as file:
        while piece := file.read(777):
            copy.write(piece)
    print(cursor.rowcount)
    with cursor.copy("COPY patient FROM STDIN (FORMAT fhir)") as copy:
        pass
    print(cursor.rowcount)
    with cursor.copy("COPY patient TO STDOUT (FORMAT fhir, GZIP)") as copy, open(sys.argv[3], "wb") as file:
        for piece in copy:
            file.write(piece)
    print(cursor.rowcount)
    try:
        with cursor.copy("COPY patient FROM STDIN (FORMAT fhir)") as copy:
            copy.write(b"{\"id\": 1}\n")
    except psycopg.Error as error:
        print(error.sqlstate, error.diag.message_primary)
    connection.rollback()
    with cursor.copy("COPY bulk_resource FROM STDIN (FORMAT fhir)") as copy:
        copy.write(b'{"resourceType": "Patient", "id": "zoe"}')
    print(cursor.rowcount)
"#;
    let out = database.path("out.gz");
    let printed = run_command(
        Command::new(python)
            .args(["-c", script])
            .arg(database.cluster().dsn("postgres", database.name()))
            .arg(zipped)
            .arg(&out),
    );
    assert_eq!(printed, "5000\n0\n5000\n22023 line 1 of STDIN: the resource's id is not a string\n1\n");
    assert_eq!(gunzip(&std::fs::read(out).unwrap()).iter().filter(|byte| **byte == b'\n').count(), 5000);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 1);
}

#[test]
fn jdbcs_copy_manager_copies_both_ways() {
    let driver = Path::new("/usr/share/java/postgresql.jar");
    if !driver.exists() || Command::new("javac").arg("-version").output().is_err() {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: no JDK with PostgreSQL's JDBC driver");
        return;
    }
    let (database, mut client) = preloaded();
    copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=1));
    // By TCP, as this driver speaks nothing else; the test's server trusts its own address.
    let source = database.path("Copies.java");
    std::fs::write(
        &source,
        r#"
import java.io.*;
import java.sql.*;
import org.postgresql.PGConnection;
public class Copies {
    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(arguments[0], "postgres", "")) {
            var copies = connection.unwrap(PGConnection.class).getCopyAPI();
            try (var in = new FileInputStream(arguments[1])) {
                System.out.println(copies.copyIn("COPY patient FROM STDIN (FORMAT fhir)", in));
            }
            try (var out = new FileOutputStream(arguments[2])) {
                System.out.println(copies.copyOut("COPY patient TO STDOUT (FORMAT fhir, GZIP)", out));
            }
            try {
                copies.copyIn("COPY patient FROM STDIN (FORMAT fhir)", new StringReader("nonsense\n"));
            } catch (SQLException error) {
                System.out.println(error.getSQLState());
            }
        }
    }
}
"#,
    )
    .unwrap();
    let zipped = database.file("in.gz", gzip(patients(1..=5000).as_bytes())).replace("file://", "");
    let out = database.path("out.gz");
    let url = format!("jdbc:postgresql://127.0.0.1:{}/{}", database.cluster().port(), database.name());
    let printed = run_command(Command::new("java").arg("-cp").arg(driver).arg(&source).arg(url).arg(zipped).arg(&out));
    assert_eq!(printed, "5000\n5000\n22023\n");
    assert_eq!(gunzip(&std::fs::read(out).unwrap()).iter().filter(|byte| **byte == b'\n').count(), 5000);
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "5000");
}
