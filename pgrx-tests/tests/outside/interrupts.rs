//! Cancels, timeouts and lost clients take effect within a second, and leave nothing behind.

use crate::support::{
    assert_error, assert_error_with_hint, count, fails, load, load_sql, patient, patients, rows, run,
};
use fhir_bulk_tests::{Client, Database, bin, error, gzip, wait_for};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The contract: a statement has ended this time after the request.
const WITHIN: Duration = Duration::from_secs(1);
/// Other tests use the machine, too; one of this many attempts must be in time.
const ATTEMPTS: usize = 3;

/// Runs `sql` in a session of its own, asks for its end when `middle` says that it is in the middle, and returns the
/// error and how long after the request it came.
fn interrupted(
    database: &Database,
    sql: &str,
    function: &str,
    mut middle: impl FnMut(&mut Client) -> bool,
) -> (postgres::Error, Duration) {
    let mut client = database.connect();
    let pid = count(&mut client, "SELECT pg_backend_pid()");
    let mut watcher = database.connect();
    std::thread::scope(|scope| {
        let statement = scope.spawn(move || (client.simple_query(sql).map(|_| ()), Instant::now()));
        wait_for("the statement to be in the middle", || {
            assert!(!statement.is_finished(), "it ended before it could be interrupted: {sql}");
            middle(&mut watcher)
        });
        let asked = Instant::now();
        run(&mut watcher, &format!("SELECT {function}({pid})"));
        let (result, ended) = statement.join().unwrap();
        (result.expect_err("it must be interrupted"), ended - asked)
    })
}

/// A cancel of `sql` takes effect in time, and the session can go on.
fn assert_cancelled(database: &Database, sql: &str, middle: impl Fn(&mut Client) -> bool) {
    let mut times = Vec::new();
    for _ in 0..ATTEMPTS {
        let (failure, time) = interrupted(database, sql, "pg_cancel_backend", &middle);
        assert_error(&error::<()>(Err(failure)), "57014", &["canceling statement due to user request"]);
        times.push(time);
        if time < WITHIN {
            return;
        }
    }
    panic!("the cancel took {times:?}: {sql}");
}

/// A statement_timeout ends `sql` in time.
fn assert_timed_out(database: &Database, sql: &str) {
    let timeout = Duration::from_millis(200);
    let mut client = database.connect();
    let mut times = Vec::new();
    for _ in 0..ATTEMPTS {
        run(&mut client, &format!("SET statement_timeout = {}", timeout.as_millis()));
        let start = Instant::now();
        let failure = error(client.simple_query(sql));
        times.push(start.elapsed());
        assert_error(&failure, "57014", &["statement timeout"]);
        assert_eq!(rows(&mut client, "SET statement_timeout = 0; SELECT 1"), ["1"]);
        if start.elapsed() < timeout + WITHIN {
            return;
        }
    }
    panic!("the timeout took {times:?}: {sql}");
}

/// A table whose every row costs an index of its content, so that a load of a few MB takes long.
fn slow_table(database: &Database) {
    run(
        &mut database.connect(),
        "SELECT bulk_create_table('Patient'); CREATE INDEX ON patient USING gin (resource) WITH (fastupdate = off);
         CREATE INDEX ON patient USING gin (to_tsvector('simple', resource)) WITH (fastupdate = off)",
    );
}

/// More than a megabyte has been written, by a transaction whose rows nobody sees yet.
fn loading(client: &mut Client) -> bool {
    count(client, "SELECT pg_relation_size('patient')") > 1 << 20
}

fn assert_nothing_left(database: &Database) {
    let mut client = database.connect();
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    assert_eq!(rows(&mut client, "SELECT bt_index_check('patient_pkey', true)"), [""]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM verify_heapam('patient')"), 0);
    let url = database.file("small", patients(1..=10));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 10}"#);
}

#[test]
fn a_load_of_many_rows_can_be_cancelled_and_leaves_nothing() {
    let database = Database::new();
    slow_table(&database);
    for (name, content) in
        [("plain", patients(1..=400_000).into_bytes()), ("gzip", gzip(patients(1..=400_000).as_bytes()))]
    {
        let url = database.file(name, content);
        assert_cancelled(&database, &load_sql(&url, "'Patient'"), loading);
        assert_timed_out(&database, &load_sql(&url, ""));
        run(&mut database.connect(), "VACUUM (TRUNCATE) patient");
    }
    assert_nothing_left(&database);
}

#[test]
fn a_load_that_updates_many_rows_can_be_cancelled() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource)
         SELECT 'p-' || n, 0, 'created', '{}' FROM generate_series(1, 200000) n",
    );
    let before = count(&mut client, "SELECT pg_relation_size('patient')");
    run(&mut client, "CREATE INDEX ON patient USING gin (resource) WITH (fastupdate = off)");
    let url = database.file("patients", patients(1..=200_000));
    assert_cancelled(&database, &load_sql(&url, "'Patient'"), |client| {
        count(client, "SELECT pg_relation_size('patient')") > before + (1 << 20)
    });
    assert_eq!(
        rows(&mut client, "SELECT count(*), count(*) FILTER (WHERE resource = '{}') FROM patient"),
        ["200000|200000"]
    );
}

#[test]
fn a_giant_line_can_be_cancelled_while_it_is_read_and_parsed() {
    let database = Database::new();
    run(&mut database.connect(), "SELECT bulk_create_table('Patient')");
    // 100 MB of small members, 180 MB of one string: about what jsonb can hold of each.
    let member = "{\"system\":\"http://loinc.org\",\"code\":\"8302-2\",\"display\":\"Body Height\",\"rank\":17,\"flag\":[true,null]},";
    let members = member.repeat((100 << 20) / member.len());
    let line = format!("{{\"id\":\"x\",\"coding\":[{}]}}", members.trim_end_matches(','));
    drop(members);
    let url = database.file("members", &line);
    drop(line);
    assert_timed_out(&database, &load_sql(&url, "'Patient'"));
    let url = database.file("string", format!("{{\"id\":\"x\",\"data\":\"{}\"}}", "QUJDREVG\\n".repeat(20 << 20)));
    assert_timed_out(&database, &load_sql(&url, "'Patient'"));
    assert_nothing_left(&database);
}

#[test]
fn a_gzip_bomb_of_one_endless_line_can_be_cancelled_and_one_of_blank_lines_is_refused() {
    let database = Database::new();
    run(&mut database.connect(), "SELECT bulk_create_table('Patient'); CREATE TABLE started ()");
    // 64 MB become 64 kB; a hundred of them unpack to 6.4 GB.
    let bomb = |name: &str, byte: u8| {
        let url = database.file(name, gzip(&vec![byte; 64 << 20]).repeat(100));
        format!("SET fhir_bulk.max_line_bytes = '1GB'; {}", load_sql(&url, "'Patient'"))
    };
    let spaces = bomb("spaces", b' ');
    let mut client = database.connect();
    run(&mut client, "SET statement_timeout = 300");
    let mut times = Vec::new();
    let is_in_time = (0..ATTEMPTS).any(|_| {
        let start = Instant::now();
        let failure = error(client.simple_query(&spaces));
        // An endless line may as well be over the limit first.
        assert!(["57014", "54000"].contains(&failure.code().code()), "{failure:?}");
        times.push(start.elapsed());
        start.elapsed() < Duration::from_millis(300) + 2 * WITHIN
    });
    assert!(is_in_time, "{times:?}");
    // More blank lines than anybody means are not read to their end.
    let failure = fails(&mut database.connect(), &bomb("newlines", b'\n'));
    assert_error_with_hint(&failure, "54000", &["line 6710886", "67108864 bytes of blank lines"]);
    assert_nothing_left(&database);
}

#[test]
fn dumps_in_rows_chunks_and_gzip_can_be_cancelled() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource)
         SELECT n, n, 'created', jsonb_build_object('text', repeat(md5(n::text), 40), 'n', n) FROM generate_series(1, 60000) n",
    );
    for dump in [
        "bulk_dump('Patient')",
        "bulk_dump('Patient', fhir => true)",
        // Nothing comes of these rows.
        "bulk_dump('Patient', filter => 'gender=none')",
        "bulk_dump_chunks('Patient')",
        "bulk_dump_chunks('Patient', gzip => true)",
        "bulk_dump_chunks('Patient', gzip => true, chunk_bytes => 16777216)",
        "dump_csv('Patient')",
        // Only the first reading.
        "dump_csv('Patient', '{\"filter\": \"gender=none\"}')",
        "dump_csv_chunks('Patient', gzip => true)",
    ] {
        let many = format!("SELECT count(*) FROM (SELECT {dump} FROM generate_series(1, 1000)) AS d");
        assert_timed_out(&database, &many);
        let copy = format!("COPY (SELECT {dump} FROM generate_series(1, 1000)) TO '/dev/null'");
        assert_timed_out(&database, &copy);
    }
    let sql =
        "SELECT count(*) FROM (SELECT bulk_dump_chunks('Patient', gzip => true) FROM generate_series(1, 1000)) AS d";
    assert_cancelled(&database, sql, |client| {
        count(client, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%bulk_dump_chunks%' AND pid <> pg_backend_pid()
                       AND datname = current_database() AND clock_timestamp() - query_start > interval '0.2 s'") > 0
    });
    // In the very session that was interrupted everything is as before.
    run(&mut client, "SET statement_timeout = 150; BEGIN; SAVEPOINT s");
    let failure = error(
        client.simple_query("SELECT count(*) FROM (SELECT bulk_dump('Patient') FROM generate_series(1, 1000)) AS d"),
    );
    assert_error(&failure, "57014", &[]);
    run(&mut client, "ROLLBACK TO s; SET statement_timeout = 0");
    assert_eq!(count(&mut client, "SELECT count(*) FROM (SELECT bulk_dump('Patient')) AS d"), 60_000);
    run(&mut client, "COMMIT");
}

#[test]
fn a_backend_that_is_terminated_in_a_load_takes_it_back() {
    let database = Database::new();
    slow_table(&database);
    let url = database.file("patients", patients(1..=400_000));
    let (failure, time) = interrupted(&database, &load_sql(&url, "'Patient'"), "pg_terminate_backend", loading);
    assert!(failure.is_closed() || failure.as_db_error().is_some_and(|e| e.code().code() == "57P01"), "{failure:?}");
    assert!(time < 3 * WITHIN, "{time:?}");
    assert_nothing_left(&database);
}

#[test]
fn a_client_that_goes_away_in_a_dump_ends_the_query() {
    let database = Database::new();
    let mut client = database.connect();
    let line = patient("p", 1);
    run(
        &mut client,
        &format!(
            "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource)
             SELECT n, n, 'created', '{line}' FROM generate_series(1, 50000) n"
        ),
    );
    for dump in ["bulk_dump('Patient')", "bulk_dump_chunks('Patient')", "bulk_dump_chunks('Patient', gzip => true)"] {
        let sql = format!("COPY (SELECT {dump} FROM generate_series(1, 100000)) TO STDOUT WITH (FORMAT binary)");
        let mut psql = Command::new(bin("psql"))
            .args(["-X", "-q", "-d", &database.cluster().dsn("postgres", database.name()), "-c", &sql])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut some = vec![0; 1 << 20];
        psql.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT bulk_dump%' AND datname = current_database()";
        assert_eq!(count(&mut client, running), 1);
        psql.kill().unwrap();
        psql.wait().unwrap();
        wait_for("the query to end", || count(&mut client, running) == 0);
    }
}

#[test]
fn a_dump_of_a_query_can_be_cancelled_within_a_row_and_between_rows() {
    let database = Database::new();
    let running = |client: &mut Client| {
        count(
            client,
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT count(*)%dump_sql%'
             AND datname = current_database() AND clock_timestamp() - query_start > interval '0.2 s'",
        ) > 0
    };
    for (query, format) in [
        ("SELECT pg_sleep(3600)", "csv"),
        ("SELECT count(*) FROM generate_series(1, 1000000000000)", "csv"),
        (
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i, repeat(''x'', 1000) FROM n",
            "ndjson",
        ),
    ] {
        let sql = format!("SELECT count(*) FROM (SELECT dump_sql_chunks('{query}', '{format}', gzip => true)) AS d");
        assert_cancelled(&database, &sql, running);
    }
    // A function of the query cannot keep it from ending: it may catch errors, not a cancel.
    run(
        &mut database.connect(),
        "CREATE FUNCTION stays() RETURNS integer LANGUAGE plpgsql AS
         $$ BEGIN LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$",
    );
    assert_cancelled(&database, "SELECT count(*) FROM (SELECT dump_sql('SELECT stays()')) AS d", running);
}
