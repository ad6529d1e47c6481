//! A server that crashes during a load: after its restart nothing of the load is stored, and everything before it is.

use crate::support::{count, load, load_sql, patients, rows, run};
use fhir_bulk_tests::{Client, Cluster, Database, wait_for};

/// A server that writes to disk as production does, with 20,000 patients loaded and committed.
fn server() -> Database {
    let cluster: &'static Cluster =
        Box::leak(Box::new(Cluster::start(&["fsync = on", "full_page_writes = on", "checkpoint_timeout = 30s"])));
    let database = cluster.database("crash");
    let mut client = database.connect();
    let first = database.file("first", patients(1..=20_000));
    assert_eq!(load(&mut client, &first, "'Patient'"), r#"{"total": 20000}"#);
    // The second load changes half of them, adds many more, and makes a table of another type.
    database.file(
        "second",
        "{\"id\":\"1\",\"resourceType\":\"Group\"}\n".to_owned()
            + &patients(10_001..=400_000).replace("Family", "Second"),
    );
    database
}

fn second(database: &Database) -> String {
    load_sql(&format!("file://{}", database.path("second").display()), "")
}

/// Starts the second load in a thread; runs `end` when a good part of it is written.
fn in_mid_load(database: &Database, end: impl FnOnce(i32)) {
    let mut watcher = database.connect();
    let before = count(&mut watcher, "SELECT pg_relation_size('patient')");
    let mut client = database.connect();
    let pid = count(&mut client, "SELECT pg_backend_pid()") as i32;
    let sql = second(database);
    std::thread::scope(|scope| {
        let load = scope.spawn(move || client.simple_query(&sql).map(|_| ()));
        wait_for("the load to be in the middle", || {
            assert!(!load.is_finished(), "the load ended before the crash");
            count(&mut watcher, "SELECT pg_relation_size('patient')") > before * 3
        });
        end(pid);
        assert!(load.join().unwrap().is_err(), "the load must not have succeeded");
    });
}

fn assert_only_the_first_load_is_there(database: &Database) {
    let mut client = database.connect();
    assert_eq!(
        rows(
            &mut client,
            "SELECT count(*), count(*) FILTER (WHERE resource::text ~ 'Family'), count(DISTINCT txid), min(status), max(status) FROM patient"
        ),
        ["20000|20000|1|created|created"]
    );
    assert_eq!(rows(&mut client, "SELECT to_regclass('\"group\"') IS NULL"), ["t"]);
    assert_sound(&mut client);
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')").len(), 20_000);
    // And the same load works again.
    assert_eq!(rows(&mut client, &second(database)), [r#"{"Group": 1, "Patient": 390000}"#]);
    assert_eq!(
        rows(&mut client, "SELECT status, count(*), count(DISTINCT txid) FROM patient GROUP BY 1 ORDER BY 1"),
        ["created|390000|2", "updated|10000|1"]
    );
    assert_sound(&mut client);
    run(&mut client, "VACUUM patient");
    assert_sound(&mut client);
}

fn assert_sound(client: &mut Client) {
    for index in ["patient_pkey", "patient_history_pkey"] {
        assert_eq!(rows(client, &format!("SELECT bt_index_check('{index}', true)")), [""], "{index}");
    }
    assert_eq!(rows(client, "SELECT * FROM verify_heapam('patient') LIMIT 5"), [""; 0]);
}

#[test]
fn a_killed_server_has_nothing_of_the_load_after_its_restart() {
    let database = server();
    in_mid_load(&database, |_| database.cluster().kill_server());
    database.cluster().start_server();
    assert_only_the_first_load_is_there(&database);
    database.cluster().stop_server("fast");
}

#[test]
fn an_immediate_shutdown_in_a_load_leaves_nothing_of_it() {
    let database = server();
    in_mid_load(&database, |_| database.cluster().stop_server("immediate"));
    database.cluster().start_server();
    assert_only_the_first_load_is_there(&database);
    database.cluster().stop_server("fast");
}

#[test]
fn a_killed_backend_takes_its_load_back_and_the_server_comes_up_again() {
    let database = server();
    let mut witness = database.connect();
    in_mid_load(&database, |pid| database.cluster().kill_backend(pid));
    // The server ends all sessions before it recovers; until then it would still take new ones.
    wait_for("the other sessions to end", || witness.simple_query("SELECT 1").is_err());
    wait_for("the server to take connections again", || {
        postgres::Client::connect(&database.cluster().dsn("postgres", database.name()), postgres::NoTls).is_ok()
    });
    assert_only_the_first_load_is_there(&database);
    database.cluster().stop_server("fast");
}
