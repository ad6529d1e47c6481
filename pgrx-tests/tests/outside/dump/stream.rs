//! Streaming: early ends, cursors, snapshots.

use crate::support::{aidbox_tables, count, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use std::time::{Duration, Instant};

/// Tables `observation` with so many rows of some 500 bytes, and `patient` with 100.
fn tables(observations: usize) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Observation", "Patient"]);
    for (table, rows) in [("observation", observations), ("patient", 100)] {
        run(
            &mut client,
            &format!(
                "INSERT INTO {table} (id, txid, status, resource)
                 SELECT lpad(n::text, 9, '0'), n, 'created', jsonb_build_object('n', n, 'text', repeat('some text ', 40))
                 FROM generate_series(1, {rows}) n"
            ),
        );
    }
    (database, client)
}

const NO_CURSORS: &str = "SELECT count(*) FROM pg_cursors WHERE name <> '' AND name NOT LIKE 'mine%'";

fn timed(client: &mut Client, sql: &str) -> Duration {
    let start = Instant::now();
    rows(client, sql);
    start.elapsed()
}

#[test]
fn limit_1_on_a_large_table_answers_at_once_and_leaves_no_cursor() {
    let (_database, mut client) = tables(60_000);
    for function in ["bulk_dump", "bulk_dump_chunks"] {
        let all = format!("SELECT count(*) FROM (SELECT {function}('Observation')) AS d");
        let one = format!("SELECT {function}('Observation') LIMIT 1");
        rows(&mut client, &all);
        let whole = timed(&mut client, &all);
        // The best of three: other tests use the machine too.
        let first = (0..3).map(|_| timed(&mut client, &one)).min().unwrap();
        assert!(first * 5 < whole, "{function}: LIMIT 1 took {first:?}, the whole table {whole:?}");
        run(&mut client, "BEGIN");
        assert_eq!(rows(&mut client, &one).len(), 1);
        assert_eq!(count(&mut client, NO_CURSORS), 0, "{function}");
        assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient') LIMIT 7").len(), 7);
        assert_eq!(count(&mut client, NO_CURSORS), 0, "{function}");
        run(&mut client, "COMMIT");
    }
}

#[test]
fn a_cursor_that_is_closed_early_leaves_nothing_open() {
    let (_database, mut client) = tables(5_000);
    run(&mut client, "BEGIN; DECLARE mine CURSOR FOR SELECT bulk_dump('Observation')");
    assert_eq!(rows(&mut client, "FETCH 10 FROM mine").len(), 10);
    assert_eq!(rows(&mut client, "FETCH 1000 FROM mine").len(), 1000);
    run(&mut client, "CLOSE mine");
    assert_eq!(count(&mut client, NO_CURSORS), 0);
    run(&mut client, "DECLARE mine CURSOR WITH HOLD FOR SELECT bulk_dump('Observation'); COMMIT");
    assert_eq!(count(&mut client, NO_CURSORS), 0);
    assert_eq!(rows(&mut client, "FETCH ALL FROM mine").len(), 5000);
    run(&mut client, "CLOSE mine");
    // A loop that is left early, in a function that goes on.
    run(
        &mut client,
        "DO $$
         DECLARE line text; seen int := 0;
         BEGIN
           FOR line IN SELECT bulk_dump('Observation') LOOP seen := seen + 1; EXIT WHEN seen = 3; END LOOP;
           ASSERT seen = 3;
           ASSERT (SELECT count(*) FROM pg_cursors) = 0, 'an open portal';
           FOR line IN SELECT bulk_dump('Patient') LOOP seen := seen + 1; END LOOP;
           ASSERT seen = 103;
         END $$",
    );
}

/// A portal's name is not secret: `CLOSE` and `DECLARE` accept any name.
#[test]
fn a_dump_has_no_portal_that_others_could_close_or_put_theirs_in_the_place_of() {
    let (_database, mut client) = tables(5_000);
    for dump in [
        "bulk_dump('Observation')",
        "bulk_dump_chunks('Observation', chunk_bytes => 1024)",
        "dump_sql('SELECT repeat(''x'', 1000) FROM generate_series(1, 1000)', 'ndjson')",
    ] {
        let all = rows(&mut client, &format!("SELECT {dump}"));
        run(&mut client, &format!("BEGIN; DECLARE mine CURSOR FOR SELECT {dump}"));
        let mut found = rows(&mut client, "FETCH 1 FROM mine");
        assert_eq!(rows(&mut client, "SELECT name FROM pg_cursors"), ["mine"]);
        let close = "DO $$ BEGIN
             FOR number IN 1..200 LOOP
                BEGIN EXECUTE format('CLOSE %I', format('<unnamed portal %s>', number));
                EXCEPTION WHEN invalid_cursor_name THEN NULL; END;
             END LOOP; END $$";
        run(&mut client, close);
        found.extend(rows(&mut client, "FETCH ALL FROM mine"));
        assert!(found == all, "{dump}");
        run(&mut client, "ROLLBACK");
    }
}

/// Which portals the end of a transaction comes by first depends on their names.
#[test]
fn a_cursor_with_hold_goes_on_after_the_commit_whatever_its_name() {
    let (database, mut client) = tables(3_000);
    for dump in [
        "bulk_dump('Observation')",
        "bulk_dump_chunks('Observation', chunk_bytes => 1024)",
        "dump_sql('TABLE observation')",
        "dump_sql_chunks('TABLE observation', 'ndjson', chunk_bytes => 1024)",
    ] {
        let all = rows(&mut client, &format!("SELECT {dump}"));
        for number in 0..20 {
            let fetched_before = number % 3;
            run(&mut client, &format!("BEGIN; DECLARE held_{number} CURSOR WITH HOLD FOR SELECT {dump}"));
            let mut found = rows(&mut client, &format!("FETCH {fetched_before} FROM held_{number}"));
            run(&mut client, "COMMIT");
            found.extend(rows(&mut client, &format!("FETCH ALL FROM held_{number}")));
            assert!(found == all, "{dump}, held_{number}: {} rows of {}", found.len(), all.len());
            run(&mut client, &format!("CLOSE held_{number}"));
        }
        // What is rolled back, or cannot be prepared, is PostgreSQL's business.
        run(&mut client, &format!("BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT {dump}"));
        assert_eq!(rows(&mut client, "FETCH 2 FROM held").len(), 2);
        run(&mut client, "ROLLBACK");
        run(&mut client, &format!("BEGIN; DECLARE mine CURSOR FOR SELECT {dump}"));
        assert_eq!(rows(&mut client, "FETCH 2 FROM mine").len(), 2);
        run(&mut client, "COMMIT");
    }
    assert_eq!(count(&mut client, NO_CURSORS), 0);
    let log = database.cluster().log();
    let leaks: Vec<_> = log.lines().filter(|line| line.contains("leak") || line.contains("skipping cleanup")).collect();
    assert_eq!(leaks, [""; 0]);
}

#[test]
fn a_cursor_goes_on_after_a_savepoint_around_other_work_was_rolled_back() {
    let (_database, mut client) = tables(3_000);
    run(&mut client, "BEGIN; DECLARE mine CURSOR FOR SELECT bulk_dump('Observation')");
    let mut lines = rows(&mut client, "FETCH 5 FROM mine");
    run(&mut client, "SAVEPOINT s; DELETE FROM observation");
    run(&mut client, "ROLLBACK TO s");
    lines.extend(rows(&mut client, "FETCH ALL FROM mine"));
    run(&mut client, "COMMIT");
    assert_eq!(lines, rows(&mut client, "SELECT bulk_dump('Observation')"));
}

#[test]
fn a_cursor_that_was_begun_inside_a_savepoint_goes_on_when_that_is_rolled_back() {
    let (_database, mut client) = tables(3_000);
    run(&mut client, "BEGIN; DECLARE mine CURSOR FOR SELECT bulk_dump('Observation'); SAVEPOINT s");
    // The dump's first row is asked for inside of the savepoint.
    let first = rows(&mut client, "FETCH 5 FROM mine");
    assert_eq!(first.len(), 5);
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(rows(&mut client, "FETCH ALL FROM mine").len(), 2995);
    run(&mut client, "ROLLBACK");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Observation')").len(), 3000);
}

#[test]
fn several_dumps_in_one_statement_do_not_mix() {
    let (_database, mut client) = tables(250);
    let observations = rows(&mut client, "SELECT bulk_dump('Observation')");
    let patients = rows(&mut client, "SELECT bulk_dump('Patient')");
    run(&mut client, "BEGIN");
    let both = rows(&mut client, "SELECT bulk_dump('Patient'), bulk_dump('Observation')");
    let expected: Vec<_> = observations
        .iter()
        .enumerate()
        .map(|(at, line)| format!("{}|{line}", patients.get(at).map_or("∅", String::as_str)))
        .collect();
    assert_eq!(both, expected);
    for sql in [
        "SELECT bulk_dump(t) FROM unnest(ARRAY['Patient', 'Observation', 'Patient']) AS t",
        "SELECT line FROM unnest(ARRAY['Patient', 'Observation', 'Patient']) AS t, LATERAL bulk_dump(t) AS line",
        "SELECT line FROM unnest(ARRAY['Patient', 'Observation', 'Patient']) AS t, LATERAL (SELECT bulk_dump(t) AS line) AS d",
    ] {
        let expected = [&patients[..], &observations[..], &patients[..]].concat();
        assert_eq!(rows(&mut client, sql), expected, "{sql}");
        assert_eq!(count(&mut client, NO_CURSORS), 0, "{sql}");
    }
    let firsts = "SELECT t, (SELECT bulk_dump(t) LIMIT 1) FROM unnest(ARRAY['Patient', 'Observation', 'Patient', 'Patient']) AS t";
    let expected: Vec<_> =
        [("Patient", &patients), ("Observation", &observations), ("Patient", &patients), ("Patient", &patients)]
            .map(|(name, lines)| format!("{name}|{}", lines[0]))
            .into();
    assert_eq!(rows(&mut client, firsts), expected);
    assert_eq!(count(&mut client, NO_CURSORS), 0);
    run(&mut client, "COMMIT");
}

#[test]
fn a_prepared_dump_can_be_run_again_and_again() {
    let (_database, mut client) = tables(2_000);
    run(&mut client, "PREPARE dump(text) AS SELECT bulk_dump($1); BEGIN");
    for _ in 0..8 {
        assert_eq!(rows(&mut client, "EXECUTE dump('Observation')").len(), 2000);
        assert_eq!(rows(&mut client, "EXECUTE dump('Patient')").len(), 100);
    }
    assert_eq!(count(&mut client, NO_CURSORS), 0);
    run(&mut client, "ROLLBACK");
    assert!(rows(&mut client, "EXPLAIN (ANALYZE) SELECT bulk_dump('Observation')").join("\n").contains("rows=2000"));
}

#[test]
fn one_dump_sees_one_moment_whatever_others_commit_meanwhile() {
    let (database, mut client) = tables(2_000);
    let mut other = database.connect();
    let before = rows(&mut client, "SELECT bulk_dump('Observation')");
    let before_chunks = rows(&mut client, "SELECT bulk_dump_chunks('Observation', chunk_bytes => 1024)");
    run(
        &mut client,
        "BEGIN; DECLARE mine CURSOR FOR SELECT bulk_dump('Observation');
         DECLARE mine_chunks CURSOR FOR SELECT bulk_dump_chunks('Observation', chunk_bytes => 1024)",
    );
    run(
        &mut other,
        "INSERT INTO observation (id, txid, status, resource) VALUES ('000000000-new', 1, 'created', '{}')",
    );
    let mut lines = rows(&mut client, "FETCH 3 FROM mine");
    let mut pieces = rows(&mut client, "FETCH 3 FROM mine_chunks");
    run(
        &mut other,
        "DELETE FROM observation WHERE txid % 2 = 0;
         UPDATE observation SET resource = '{\"changed\": true}';
         INSERT INTO observation (id, txid, status, resource) SELECT 'new-' || n, 1, 'created', '{}' FROM generate_series(1, 500) n",
    );
    lines.extend(rows(&mut client, "FETCH ALL FROM mine"));
    pieces.extend(rows(&mut client, "FETCH ALL FROM mine_chunks"));
    run(&mut client, "COMMIT");
    assert_eq!(lines, before);
    assert_eq!(pieces, before_chunks);
    assert_eq!(value(&mut client, "SELECT count(*) FROM (SELECT bulk_dump('Observation')) AS d"), "1501");
}

#[test]
fn a_reader_in_a_read_only_transaction_and_one_that_wrote_before_both_can_dump() {
    let (_database, mut client) = tables(10);
    run(&mut client, "BEGIN READ ONLY");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Observation')").len(), 10);
    assert_eq!(rows(&mut client, "SELECT bulk_dump_chunks('Observation')").len(), 1);
    run(&mut client, "COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Observation')").len(), 10);
    run(&mut client, "COMMIT; BEGIN; DELETE FROM observation WHERE txid <= 4");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Observation')").len(), 6);
    run(&mut client, "ROLLBACK");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Observation')").len(), 10);
}

#[test]
fn psql_with_fetch_count_streams_a_plain_select() {
    let (database, mut client) = tables(1_000);
    let expected = rows(&mut client, "SELECT bulk_dump('Observation')").join("\n") + "\n";
    let arguments = ["-v", "FETCH_COUNT=64", "-c", "SELECT bulk_dump('Observation')"];
    let output = database.cluster().psql("postgres", database.name(), &arguments);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_dump_that_feeds_its_own_table_ends() {
    let (_database, mut client) = tables(1_500);
    run(
        &mut client,
        "INSERT INTO observation (id, txid, status, resource)
         SELECT 'copy-' || (line ->> 'id'), 1, 'created', line - 'id' - 'meta' FROM (SELECT bulk_dump('Observation')::jsonb AS line) AS d",
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM observation"), 3000);
    assert_eq!(rows(&mut client, "SELECT DISTINCT bulk_dump('Patient') ORDER BY 1").len(), 100);
    assert_eq!(
        rows(&mut client, "SELECT * FROM ROWS FROM (bulk_dump('Patient'), bulk_dump('Observation')) AS t(a, b)").len(),
        3000
    );
    assert_eq!(count(&mut client, NO_CURSORS), 0);
}
