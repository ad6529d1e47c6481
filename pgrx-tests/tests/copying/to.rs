//! COPY … TO STDOUT gives what `bulk_dump_chunks` and `dump_sql_chunks` give.

use crate::from::{copy, session};
use crate::support::{assert_error, fails, patients, run, value};
use fhir_bulk_tests::{Client, Database, gunzip, shared_data, wait_for};
use std::io::{Read as _, Write as _};

/// All bytes of a COPY.
pub fn read(client: &mut Client, statement: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.copy_out(statement).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// The body that a function gives in pieces.
fn chunks(client: &mut Client, call: &str) -> Vec<u8> {
    let rows = client.query(&format!("SELECT {call}"), &[]).unwrap();
    rows.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect()
}

fn filled() -> (Database, Client) {
    let database = Database::new();
    let mut client = session(&database);
    match shared_data() {
        Some(folder) => {
            let file = std::fs::read(folder.join("synthea-small/all.ndjson.gz")).unwrap();
            copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", file);
        }
        None => drop(copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=3000))),
    }
    (database, client)
}

#[test]
fn resources_come_byte_for_byte_as_from_bulk_dump_chunks() {
    let (_database, mut client) = filled();
    run(&mut client, "UPDATE patient SET status = 'deleted' WHERE id = (SELECT min(id) FROM patient)");
    run(&mut client, "SET TimeZone = 'Asia/Kathmandu'; SET client_encoding = 'LATIN1'");
    for (options, arguments) in [
        ("FORMAT fhir", "fhir => true"),
        ("FORMAT aidbox", ""),
        ("FORMAT aidbox, GZIP false", ""),
        ("FORMAT fhir, SINCE '2000-01-01'", "'2000-01-01', true"),
        ("FORMAT fhir, SINCE 'infinity'", "'infinity', true"),
    ] {
        let call = format!("bulk_dump_chunks('Patient'{}{arguments})", if arguments.is_empty() { "" } else { ", " });
        assert_eq!(
            read(&mut client, &format!("COPY patient TO STDOUT ({options})")),
            chunks(&mut client, &call),
            "{options}"
        );
    }
    let plain = read(&mut client, "COPY patient TO STDOUT (FORMAT fhir)");
    assert_eq!(gunzip(&read(&mut client, "COPY patient TO STDOUT (FORMAT fhir, GZIP)")), plain);
}

#[test]
fn rows_come_byte_for_byte_as_from_dump_sql_chunks() {
    let (_database, mut client) = filled();
    run(&mut client, "SET DateStyle = 'German'");
    let query = "SELECT id, ts, txid, resource -> 'name' AS name, 1.50::numeric, NULL AS nothing, '{a,NULL}'::text[] AS texts FROM patient";
    let expected = chunks(&mut client, &format!("dump_sql_chunks($q${query}$q$, 'ndjson')"));
    assert_eq!(read(&mut client, &format!("COPY ({query}) TO STDOUT (FORMAT ndjson)")), expected);
    assert_eq!(gunzip(&read(&mut client, &format!("COPY ({query}) TO STDOUT (FORMAT ndjson, GZIP)"))), expected);
    let expected = chunks(&mut client, "dump_sql_chunks('SELECT * FROM patient', 'ndjson')");
    assert_eq!(read(&mut client, "COPY patient TO STDOUT (FORMAT ndjson)"), expected);
    assert_eq!(value(&mut client, "SHOW DateStyle"), "German, DMY");
    // Of tables that inherit, and of other relations.
    run(
        &mut client,
        "CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent); INSERT INTO child VALUES (1);
         INSERT INTO parent VALUES (2); CREATE VIEW both_of_them AS SELECT * FROM parent ORDER BY a;
         CREATE TABLE parts (a int) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parts FOR VALUES IN (3);
         INSERT INTO parts VALUES (3)",
    );
    for (relation, expected) in
        [("parent", "{\"a\":2}\n"), ("both_of_them", "{\"a\":1}\n{\"a\":2}\n"), ("parts", "{\"a\":3}\n")]
    {
        assert_eq!(read(&mut client, &format!("COPY {relation} TO STDOUT (FORMAT ndjson)")), expected.as_bytes());
    }
}

#[test]
fn a_query_that_writes_returns_what_it_wrote_as_in_copys_own_formats() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "CREATE TABLE t (a int); CREATE TABLE log (a int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.a); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()");
    let statement = "COPY (INSERT INTO t SELECT generate_series(1, 3) RETURNING a) TO STDOUT (FORMAT ndjson)";
    assert_eq!(read(&mut client, statement), b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
    assert_eq!(value(&mut client, "SELECT sum(a) FROM log"), "6");
    run(&mut client, "BEGIN READ ONLY");
    assert_error(&fails(&mut client, statement), "25006", &["INSERT"]);
    run(&mut client, "ROLLBACK; CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM log");
    assert_error(&fails(&mut client, statement), "0A000", &["rules"]);
}

#[test]
fn a_query_runs_under_the_settings_of_the_session_and_only_its_rows_are_written_exactly() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -5; CREATE TABLE log (a text)");
    let query = "INSERT INTO log SELECT (date '2020-02-01' + g)::text FROM generate_series(0, 0) g
        RETURNING a, date '2020-02-01' AS day, 0.1::float8 + 0.2 AS sum, current_setting('datestyle') AS style";
    assert_eq!(
        String::from_utf8(read(&mut client, &format!("COPY ({query}) TO STDOUT (FORMAT ndjson)"))).unwrap(),
        "{\"a\":\"01/02/2020\",\"day\":\"2020-02-01\",\"sum\":0.30000000000000004,\"style\":\"SQL, DMY\"}\n"
    );
    assert_eq!(value(&mut client, "SELECT a FROM log"), "01/02/2020");
    assert_eq!(value(&mut client, "SELECT date '2020-02-01'"), "01/02/2020");
    let error = fails(&mut client, "COPY patient_pkey TO STDOUT (FORMAT ndjson)");
    assert_eq!((error.code().code(), error.position()), ("42P01", None));
    run(&mut client, "CREATE INDEX log_a ON log (a)");
    assert_error(&fails(&mut client, "COPY log_a TO STDOUT (FORMAT ndjson)"), "42809", &["log_a is no table"]);
}

#[test]
fn errors_in_the_query_are_postgresqls_own_with_their_place() {
    let database = Database::new();
    let mut client = session(&database);
    for query in ["SELECT nix FROM pg_class", "SELECT 1 +", "SELECT a.b.c.d.e", "SELECT 1/0", "SELECT 'x'::int"] {
        let ours = fails(&mut client, &format!("COPY ({query}) TO STDOUT (FORMAT ndjson)"));
        let own = fails(&mut client, &format!("COPY ({query}) TO STDOUT (FORMAT csv)"));
        assert_eq!(
            (ours.code(), ours.message(), ours.position()),
            (own.code(), own.message(), own.position()),
            "{query}"
        );
    }
    assert_error(&fails(&mut client, "COPY (SELECT 1 AS a, 2 AS a) TO STDOUT (FORMAT ndjson)"), "42701", &["\"a\""]);
}

#[test]
fn a_copy_that_waited_for_a_lock_shows_what_the_other_committed() {
    let database = Database::new();
    let mut client = session(&database);
    copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=3));
    for format in ["fhir", "ndjson"] {
        let mut other = session(&database);
        run(&mut other, "BEGIN; LOCK TABLE patient; TRUNCATE patient");
        let mut watcher = database.connect();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&mut client, &format!("COPY patient TO STDOUT (FORMAT {format})")));
            wait_for("the COPY to wait", || {
                value(
                    &mut watcher,
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
                ) == "1"
            });
            copy(&mut other, "COPY patient FROM STDIN (FORMAT fhir)", patients(11..=15));
            run(&mut other, "COMMIT");
            assert_eq!(reader.join().unwrap().iter().filter(|byte| **byte == b'\n').count(), 5, "{format}");
        });
    }
}

#[test]
fn progress_is_shown_both_ways() {
    let database = Database::new();
    let mut client = session(&database);
    let mut watcher = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    let mut writer = client.copy_in("COPY patient FROM STDIN (FORMAT fhir)").unwrap();
    // More than waits to become rows: the last message may have come in part, and the COPY waits for its rest.
    for number in 1..=60 {
        writer.write_all(patients(number * 1000..=number * 1000 + 999).as_bytes()).unwrap();
        writer.flush().unwrap();
    }
    wait_for("progress", || {
        value(
            &mut watcher,
            "SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database() AND command = 'COPY FROM' AND type = 'PIPE'
            AND relid = 'patient'::regclass AND tuples_processed > 1000 AND bytes_processed > 100000",
        ) == "1"
    });
    writer.finish().unwrap();
    run(
        &mut client,
        "INSERT INTO patient SELECT id || '-' || n, txid, cts, ts, resource_type, status, resource
        FROM patient, generate_series(1, 3) n",
    );
    let mut reader = client.copy_out("COPY patient TO STDOUT (FORMAT fhir)").unwrap();
    let mut some = [0; 100];
    reader.read_exact(&mut some).unwrap();
    wait_for("progress", || {
        value(
            &mut watcher,
            "SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database() AND command = 'COPY TO' AND type = 'PIPE'
            AND relid = 'patient'::regclass AND tuples_processed > 10 AND bytes_processed > 10000",
        ) == "1"
    });
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    drop(reader);
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database()"),
        "0"
    );
}
