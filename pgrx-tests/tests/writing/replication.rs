//! What loads write arrives on other servers, and is there after a crash.

use crate::pages;
use crate::races;
use crate::servers;
use crate::support::{aidbox_tables, load, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Cluster, Database, wait_for};
use std::sync::OnceLock;

/// All rows of a table as one value.
fn content(client: &mut Client, table: &str) -> String {
    value(client, &format!("SELECT count(*), md5(string_agg(t::text, '|' ORDER BY id, txid)) FROM {table} t"))
}

/// Loads that are new, repeat ids, replace, keep versions.
fn loads(database: &Database, client: &mut Client) {
    let update = "'Patient', options => '{\"update\": true}'";
    let first = patients(1..=9000) + &patient("p-1", 1) + "\n" + &patient("p-9000", 2);
    load(client, &database.file("first", first), "'Patient'");
    let second =
        patients(4000..=12_000).replace("Family", "Other") + &patient("p-5000", 3) + "\n" + &patient("p-11000", 4);
    load(client, &database.file("second", second), update);
    load(client, &database.file("third", patients(1..=100).replace("Family", "Third")), update);
    load(client, &database.file("mixed", pages::mixed(3000).replace("p-", "m-")), "'Patient'");
    let large = patient("large", 1).replace("Family", &"large ".repeat(300_000));
    load(client, &database.file("large", large), "'Patient'");
    run(client, "BEGIN");
    load(client, &database.file("undone", patients(1..=13_000).replace("Family", "Undone")), update);
    run(client, "ROLLBACK");
}

#[test]
fn a_subscriber_holds_the_same_rows_after_every_kind_of_load() {
    let database = servers::database_on(servers::decoded());
    let mut publisher = database.connect();
    aidbox_tables(&mut publisher, &["Patient", "Slow"]);
    run(
        &mut publisher,
        "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER log BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION log();
         CREATE PUBLICATION resources FOR TABLE patient, patient_history, slow, slow_history",
    );
    let mut subscriber = servers::plain_database(servers::second(), database.name());
    aidbox_tables(&mut subscriber, &["Patient", "Slow"]);
    run(
        &mut subscriber,
        &format!(
            "CREATE SUBSCRIPTION \"{0}\" CONNECTION 'host=127.0.0.1 port={1} user=postgres dbname={0}' PUBLICATION resources",
            database.name(),
            database.cluster().port()
        ),
    );
    loads(&database, &mut publisher);
    for options in ["{}", r#"{"update": true}"#] {
        for end in ["COMMIT", "ROLLBACK"] {
            run(&mut publisher, "DELETE FROM patient WHERE id IN ('p-1500', 'p-1501')");
            races::load_into(&database, "", options, races::INSERT, end);
        }
    }
    let slow = patients(1..=9000).replace("\"Patient\"", "\"Slow\"");
    for _ in 0..2 {
        load(&mut publisher, &database.file("slow", &slow), "'Slow', options => '{\"update\": true}'");
    }
    for table in ["patient", "patient_history", "slow", "slow_history"] {
        let expected = content(&mut publisher, table);
        wait_for("the subscriber to have the same rows", || content(&mut subscriber, table) == expected);
    }
    run(&mut subscriber, &format!("DROP SUBSCRIPTION \"{}\"", database.name()));
}

#[test]
fn of_a_table_that_a_load_makes_no_row_is_decoded_that_does_not_stay() {
    let database = servers::database_on(servers::decoded());
    let mut client = database.connect();
    let slot = format!("slot_{}", database.name());
    run(&mut client, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"));
    let repeating: String = (0..9000).map(|n| patient(&format!("p-{}", n % 2500), n) + "\n").collect();
    load(&mut client, &database.file("repeating", repeating), "'Patient'");
    assert_eq!(
        value(
            &mut client,
            &format!(
                "SELECT count(*) FILTER (WHERE data ~ '^table public.patient: INSERT'), count(*) FILTER (WHERE data ~ ': DELETE')
                 FROM pg_logical_slot_get_changes('{slot}', NULL, NULL)"
            )
        ),
        "2500|0"
    );
    run(&mut client, &format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn a_standby_and_a_server_after_a_crash_hold_the_same_rows() {
    static PRIMARY: OnceLock<Cluster> = OnceLock::new();
    let primary = PRIMARY.get_or_init(|| Cluster::start(&["wal_level = replica", "wal_consistency_checking = all"]));
    let database = primary.database("physical");
    let mut client = database.connect();
    load(&mut client, &database.file("before", patients(1..=2000)), "'Patient'");
    let standby = primary.standby();
    loads(&database, &mut client);
    let expected = [content(&mut client, "patient"), content(&mut client, "patient_history")];
    let position = value(&mut client, "SELECT pg_current_wal_flush_lsn()");
    let mut follower = standby.connect("postgres", "physical");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    wait_for("the standby to have replayed it", || value(&mut follower, &replayed) == "t");
    // Not committed, and gone after the crash.
    run(&mut client, "BEGIN");
    load(&mut client, &database.file("lost", patients(1..=15_000).replace("Family", "Lost")), "'Patient'");
    primary.kill_server();
    drop(client);
    primary.start_server();
    for mut client in [follower, database.connect()] {
        assert_eq!([content(&mut client, "patient"), content(&mut client, "patient_history")], expected);
        for index in ["patient_pkey", "patient_history_pkey"] {
            assert_eq!(value(&mut client, &format!("SELECT bt_index_check('{index}', true)")), "");
        }
        for table in ["patient", "patient_history"] {
            assert_eq!(rows(&mut client, &format!("SELECT * FROM verify_heapam('{table}')")), [""; 0]);
        }
    }
    let mut client = database.connect();
    assert_eq!(load(&mut client, &database.file("after", patients(1..=13_000)), "'Patient'"), r#"{"total": 13000}"#);
}
