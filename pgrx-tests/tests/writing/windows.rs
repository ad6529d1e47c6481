//! Many new rows into a table that is there: their keys are entered together, as long as no id is known.

use crate::servers;
use crate::support::{assert_error, count, fails, load, load_sql, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use std::thread;

/// More than the first batch, which finds out whether ids are known.
const MANY: usize = 30_000;

/// A table with indexes of several kinds.
const INDEXES: &str = "SELECT bulk_create_table('Patient');
    CREATE INDEX patient_cts ON patient (cts);
    CREATE INDEX patient_name ON patient USING gin ((resource -> 'name') jsonb_path_ops);
    CREATE INDEX patient_ts ON patient USING brin (ts)";

fn sound(client: &mut Client) {
    for index in rows(
        client,
        "SELECT indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am a ON a.oid = c.relam WHERE indrelid = 'patient'::regclass AND amname = 'btree'",
    ) {
        assert_eq!(value(client, &format!("SELECT bt_index_check('{index}', true)")), "", "{index}");
    }
    assert_eq!(rows(client, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
    // Each row is found by its key, and no other.
    let by_key = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";
    run(client, &format!("BEGIN; {by_key}"));
    assert_eq!(
        count(client, "SELECT count(*) FROM patient a JOIN patient b ON b.id = a.id AND b.ctid = a.ctid"),
        count(client, "SELECT count(*) FROM patient")
    );
    run(client, "COMMIT");
}

/// How many subtransactions have stored the rows that are there.
fn parts(client: &mut Client) -> i64 {
    count(client, "SELECT count(DISTINCT xmin::text) FROM patient")
}

#[test]
fn new_rows_are_all_there_and_found_by_every_index() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, INDEXES);
    let url = database.file("new", patients(1..=MANY));
    assert_eq!(load(&mut client, &url, "'Patient'"), format!(r#"{{"total": {MANY}}}"#));
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT id) FROM patient"), format!("{MANY}|{MANY}"));
    // Each batch of 4,000 would be one of its own.
    assert!(parts(&mut client) <= 4, "{}", parts(&mut client));
    sound(&mut client);
    run(&mut client, "SET enable_seqscan = off");
    let named = "SELECT count(*) FROM patient WHERE resource -> 'name' @> '[{\"given\": [\"Zoë\"]}]'";
    assert_eq!(count(&mut client, named), MANY as i64);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE ts > '2001-01-01'"), MANY as i64);
    // They are in the order of the source.
    let turned =
        "SELECT count(*) FROM (SELECT substr(id, 3)::int - lag(substr(id, 3)::int) OVER (ORDER BY ctid) AS step
        FROM patient) s WHERE step <> 1";
    assert_eq!(count(&mut client, turned), 0);
    assert_eq!(load(&mut client, &url, "'Patient'"), format!(r#"{{"total": {MANY}}}"#));
    assert_eq!(value(&mut client, "SELECT status, count(*) FROM patient GROUP BY status"), format!("updated|{MANY}"));
    sound(&mut client);
}

/// What a load leaves, but for its numbers and times.
fn left(client: &mut Client) -> Vec<String> {
    let rows_of = |table: &str| {
        format!(
            "SELECT '{table}', count(*), count(DISTINCT id), count(DISTINCT txid), md5(string_agg(concat_ws('|', id, status, \
             cts = ts, resource::text), E'\n' ORDER BY id, txid)) FROM {table}"
        )
    };
    rows(client, &format!("{} UNION ALL {}", rows_of("patient"), rows_of("patient_history")))
}

#[test]
fn known_and_repeated_ids_that_come_late_leave_what_statements_leave() {
    let noise: String = (0..9000).map(|n| format!("{:x}", n * 7919 % 65521)).collect();
    // Compressed, out of line, and with a creation time of its own.
    let special = patient("p-20001", 1).replace("Family", &noise)
        + "\n"
        + &patient("p-20002", 2).replace("Family", &"Family ".repeat(2000))
        + "\n"
        + &patient("p-20003", 3).replace("\"id\"", "\"meta\": {\"createdAt\": \"2020-02-02T00:00:00Z\"}, \"id\"")
        + "\n";
    let repeated: String = (1..=MANY).map(|n| patient(&format!("p-{}", n % 17_000), n) + "\n").collect();
    for (name, before, lines) in [
        ("known at the end", patients(MANY..=MANY), special.clone() + &patients(1..=MANY)),
        ("known in the middle", patients(15_000..=15_500), patients(1..=MANY)),
        ("repeated", patients(40_000..=40_001), special.clone() + &repeated),
        ("both", patients(9000..=12_000), repeated + &special),
    ] {
        for options in ["{}", r#"{"update": true}"#] {
            let mut all = Vec::new();
            for path in ["auto", "set"] {
                let database = Database::new();
                let mut client = database.connect();
                run(&mut client, INDEXES);
                load(&mut client, &database.file("before", &before), "'Patient'");
                run(&mut client, &format!("SET fhir_bulk.write_path = '{path}'"));
                let url = database.file("lines", &lines);
                let counts = load(&mut client, &url, &format!("'Patient', options => '{options}'"));
                sound(&mut client);
                all.push((counts, left(&mut client)));
            }
            assert_eq!(all[0], all[1], "{name} {options}");
        }
    }
}

#[test]
fn with_little_room_for_temporary_files_known_ids_that_come_late_are_replaced_too() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, INDEXES);
    load(&mut client, &database.file("before", patients(MANY..=MANY)), "'Patient'");
    run(&mut client, "SET temp_file_limit = '1MB'");
    load(&mut client, &database.file("lines", patients(1..=MANY)), "'Patient'");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE status = 'updated'"), 1);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), MANY as i64);
    sound(&mut client);
}

#[test]
fn resources_larger_than_a_window_are_stored_beside_others() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, INDEXES);
    let large = |id: &str| patient(id, 1).replace("Family", &"large ".repeat(1_500_000)) + "\n";
    let lines = patients(1..=9000) + &large("l-1") + &large("l-2") + &patients(9001..=MANY) + "\n" + &large("l-3");
    let counts = load(&mut client, &database.file("large", lines), "'Patient'");
    assert_eq!(counts, format!(r#"{{"total": {}}}"#, MANY + 3));
    let found = "SELECT count(*), count(*) FILTER (WHERE length(resource::text) > 9000000) FROM patient";
    assert_eq!(value(&mut client, found), format!("{}|3", MANY + 3));
    sound(&mut client);
}

#[test]
fn an_id_that_another_session_inserts_is_waited_for_where_keys_are_entered_together() {
    for end in ["COMMIT", "ROLLBACK"] {
        let database = Database::new();
        let (mut client, mut other) = (database.connect(), database.connect());
        run(&mut client, INDEXES);
        let pid = value(&mut client, "SELECT pg_backend_pid()");
        run(
            &mut other,
            "BEGIN; INSERT INTO patient (id, txid, cts, ts, status, resource)
             VALUES ('p-29000', 7, '2001-01-01Z', '2001-01-01Z', 'created', '{\"theirs\": true}')",
        );
        let statement = load_sql(&database.file("race", patients(1..=MANY)), "'Patient'");
        let loading = thread::spawn(move || value(&mut client, &statement));
        let waiting = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'");
        let mut watcher = database.connect();
        wait_for("the load to wait for the other session", || count(&mut watcher, &waiting) == 1);
        run(&mut other, end);
        assert_eq!(loading.join().unwrap(), format!(r#"{{"total": {MANY}}}"#), "{end}");
        let expected = if end == "COMMIT" { "updated|t" } else { "created|f" };
        assert_eq!(value(&mut other, "SELECT status, cts < ts FROM patient WHERE id = 'p-29000'"), expected);
        assert_eq!(count(&mut other, "SELECT count(*) FROM patient"), MANY as i64);
        sound(&mut other);
    }
}

#[test]
fn a_bad_line_that_comes_late_undoes_the_load_alone() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, INDEXES);
    let url = database.file("bad", patients(1..=MANY) + "{\"resourceType\": \"Patient\", \"id\": }\n");
    assert_error(&fails(&mut client, &load_sql(&url, "'Patient'")), "22P02", &["line 30001"]);
    // Where the error is caught, the rest of the transaction goes on, and nothing of the load is there.
    run(&mut client, "BEGIN");
    load(&mut client, &database.file("kept", patients(1..=9000)), "'Patient'");
    run(
        &mut client,
        &format!("DO $$ BEGIN PERFORM bulk_load('{url}', 'Patient'); EXCEPTION WHEN OTHERS THEN NULL; END $$"),
    );
    load(&mut client, &database.file("more", patients(20_000..=29_000)), "'Patient'");
    run(&mut client, "COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 18_001);
    sound(&mut client);
}

#[test]
fn a_second_unique_index_is_named_where_it_refuses_a_row() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, INDEXES);
    run(&mut client, "CREATE UNIQUE INDEX births ON patient ((resource ->> 'multipleBirthInteger'))");
    let lines = patients(1..=MANY) + &patient("p-0", 7) + "\n";
    let error = fails(&mut client, &load_sql(&database.file("twice", lines), "'Patient'"));
    assert_error(&error, "23505", &["births"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    load(&mut client, &database.file("once", patients(1..=MANY)), "'Patient'");
    sound(&mut client);
}

#[test]
fn decoding_sees_no_row_that_does_not_stay_where_an_id_is_known_late() {
    let database = servers::database_on(servers::decoded());
    let mut client = database.connect();
    run(&mut client, INDEXES);
    load(&mut client, &database.file("before", patients(MANY..=MANY)), "'Patient'");
    let slot = format!("late_{}", database.name());
    run(&mut client, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"));
    load(&mut client, &database.file("lines", patients(1..=MANY)), "'Patient'");
    let seen = value(
        &mut client,
        &format!(
            "SELECT count(*) FILTER (WHERE data ~ '^table public.patient: INSERT'),
                count(*) FILTER (WHERE data ~ '^table public.patient: UPDATE'), count(*) FILTER (WHERE data ~ ': DELETE')
             FROM pg_logical_slot_get_changes('{slot}', NULL, NULL)"
        ),
    );
    assert_eq!(seen, format!("{}|1|0", MANY - 1));
    run(&mut client, &format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn sessions_that_load_the_same_new_ids_at_once_and_are_cancelled_leave_each_id_once() {
    let database = Database::new();
    let mut watcher = database.connect();
    run(&mut watcher, INDEXES);
    const SESSIONS: usize = 4;
    const ROUNDS: usize = 6;
    // Each begins with ids of its own, so that all think theirs are new; then come those of all, in two orders.
    let urls: Vec<String> = (0..SESSIONS)
        .map(|session| {
            let own = (0..5000).map(|n| patient(&format!("own-{session}-{n}"), session) + "\n");
            let shared = |n: usize| if session % 2 == 0 { n } else { 14_999 - n };
            let of_all = (0..15_000).map(|n| patient(&format!("p-{}", shared(n)), session) + "\n");
            database.file(&format!("session-{session}"), own.chain(of_all).collect::<String>())
        })
        .collect();
    for round in 0..ROUNDS {
        run(&mut watcher, "TRUNCATE patient, patient_history");
        let loads = urls.iter().enumerate().map(|(session, url)| {
            let mut client = database.connect();
            run(&mut client, "SET deadlock_timeout = '50ms'");
            let (statement, cancel) = (load_sql(url, "'Patient'"), client.cancel_token());
            // In some rounds the first session is cancelled at one moment or another.
            let cancelled = round % 2 == 1 && session == 0;
            let loading = thread::spawn(move || client.simple_query(&statement).map(|_| session));
            if cancelled {
                thread::sleep(std::time::Duration::from_millis(40 * round as u64));
                let _ = cancel.cancel_query(postgres::NoTls);
            }
            loading
        });
        let loads: Vec<_> = loads.collect();
        let mut done = Vec::new();
        for load in loads {
            match load.join().unwrap() {
                Ok(session) => done.push(session),
                Err(error) => {
                    let code = error.code().map(|code| code.code().to_owned());
                    assert!(matches!(code.as_deref(), Some("40P01" | "57014")), "{error:?}");
                }
            }
        }
        assert!(!done.is_empty(), "round {round}");
        // All that is there is of loads that were committed, and each of those is there as a whole.
        let expected = done.len() * 5000 + 15_000;
        assert_eq!(
            value(&mut watcher, "SELECT count(*), count(DISTINCT id) FROM patient"),
            format!("{expected}|{expected}"),
            "round {round}, {done:?}"
        );
        let writers = "SELECT DISTINCT (resource ->> 'multipleBirthInteger')::int FROM patient ORDER BY 1";
        let writers: Vec<usize> = rows(&mut watcher, writers).iter().map(|writer| writer.parse().unwrap()).collect();
        assert_eq!(writers, done, "round {round}");
        // Who came last has written all that is shared.
        let shared = "SELECT count(DISTINCT resource ->> 'multipleBirthInteger') FROM patient WHERE id LIKE 'p-%'";
        assert_eq!(count(&mut watcher, shared), 1, "round {round}");
        sound(&mut watcher);
    }
}
