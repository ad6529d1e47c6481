//! What pages a load fills: those that it adds to the table, in the order of the source, unless others have room.

use crate::servers;
use crate::support::{assert_error, count, fails, load, load_sql, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Rows of many pages.
const MANY: usize = 20_000;
const PAGES: &str = "SELECT pg_relation_size('patient') / 8192";

/// Lines with values of each length: in the row, compressed, and kept elsewhere.
pub fn mixed(count: usize) -> String {
    let noise =
        |n: usize| (0..1800).map(|i| format!("{:05x}", (n * 7919 + i) * 104_729 % 1_048_573)).collect::<String>();
    let line = |n: usize| match n % 9 {
        0 => patient(&format!("p-{n}"), n).replace("Family", &noise(n)),
        4 => patient(&format!("p-{n}"), n).replace("Family", &format!("Family {n} ").repeat(300)),
        // About as long as the longest that is kept in the row as it is.
        7 => patient(&format!("p-{n}"), n).replace("Family", &noise(n)[..1600 + n % 500]),
        _ => patient(&format!("p-{n}"), n),
    };
    (1..=count).map(|n| line(n) + "\n").collect()
}

/// What is in the table, without its numbers and times.
fn stored(client: &mut Client) -> String {
    value(client, "SELECT count(*), md5(string_agg(p.id || p.resource::text, ',' ORDER BY id)) FROM patient p")
}

fn sound(client: &mut Client) {
    assert_eq!(rows(client, "SELECT * FROM verify_heapam('patient', check_toast => true)"), [""; 0]);
    assert_eq!(value(client, "SELECT bt_index_check('patient_pkey', true)"), "");
}

/// How many rows come before one that the source had earlier.
fn turned(client: &mut Client) -> i64 {
    let steps = "SELECT substr(id, 3)::int < lag(substr(id, 3)::int) OVER (ORDER BY ctid) AS turned FROM patient";
    count(client, &format!("SELECT count(*) FROM ({steps}) s WHERE turned"))
}

#[test]
fn rows_of_each_length_are_what_a_statement_stores_in_the_order_of_the_source() {
    let lines = mixed(4000);
    let mut all = Vec::new();
    for (made, path) in [(false, "auto"), (true, "auto"), (true, "set")] {
        let database = Database::new();
        let mut client = database.connect();
        if made {
            run(&mut client, "SELECT bulk_create_table('Patient')");
        }
        run(&mut client, &format!("SET fhir_bulk.write_path = '{path}'"));
        load(&mut client, &database.file("mixed", &lines), "'Patient'");
        sound(&mut client);
        assert_eq!(turned(&mut client) > 0, path == "set");
        all.push((stored(&mut client), count(&mut client, PAGES)));
    }
    assert_eq!((&all[0].0, &all[1].0), (&all[2].0, &all[2].0));
    // Half a page stays free at the end of each batch.
    let [_, (_, direct), (_, statement)] = all[..] else { unreachable!() };
    assert!(direct <= statement * 102 / 100 + 2, "{direct} {statement}");
}

#[test]
fn columns_of_the_owners_and_fillfactor_count_as_in_an_insert() {
    let database = Database::new();
    let mut client = database.connect();
    let added = "SELECT bulk_create_table('Patient');
        ALTER TABLE patient ADD COLUMN gone int, ADD COLUMN note text, ADD COLUMN seen timestamptz DEFAULT now(),
            ADD COLUMN family text GENERATED ALWAYS AS (resource #>> '{name,0,family}') STORED,
            ADD CHECK (octet_length(id) < 100);
        ALTER TABLE patient DROP COLUMN gone";
    run(&mut client, added);
    let url = database.file("new", patients(1..=MANY));
    load(&mut client, &url, "'Patient'");
    sound(&mut client);
    let right = "SELECT count(*) FROM patient WHERE note IS NULL AND seen = ts AND family = 'Family ' || substr(id, 3)";
    assert_eq!(count(&mut client, right), MANY as i64);
    let full = count(&mut client, PAGES);
    run(&mut client, "TRUNCATE patient; ALTER TABLE patient SET (fillfactor = 50)");
    load(&mut client, &url, "'Patient'");
    sound(&mut client);
    let half = count(&mut client, PAGES);
    assert!((full * 19 / 10..=full * 22 / 10).contains(&half), "{full} {half}");
    // Room for the next versions, so that no index has to hear of them.
    run(&mut client, "UPDATE patient SET note = 'x'; SELECT pg_stat_force_next_flush()");
    let moved = count(&mut client, PAGES);
    assert!(moved <= half * 11 / 10, "{half} {moved}");
    run(&mut client, "ALTER TABLE patient ADD CHECK (id <> 'p-19999') NOT VALID; TRUNCATE patient");
    assert_error(&fails(&mut client, &load_sql(&url, "'Patient'")), "23514", &["patient"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn room_in_other_pages_is_used_before_the_table_grows() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    load(&mut client, &database.file("first", patients(1..=MANY)), "'Patient'");
    let before = count(&mut client, PAGES);
    run(&mut client, "DELETE FROM patient WHERE substr(id, 3)::int <= 15000");
    run(&mut client, "VACUUM patient");
    load(&mut client, &database.file("second", patients(30_001..=45_000)), "'Patient'");
    let after = count(&mut client, PAGES);
    assert!(after <= before * 11 / 10, "{before} {after}");
    sound(&mut client);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), MANY as i64);
}

#[test]
fn a_row_that_no_page_has_room_for_is_refused_as_by_an_insert() {
    let database = Database::new();
    let mut client = database.connect();
    // Kept in the row, whatever its length.
    run(&mut client, "SELECT bulk_create_table('Patient'); ALTER TABLE patient ALTER resource SET STORAGE PLAIN");
    let lines = patients(1..=5000);
    let long = patient("long", 1).replace("Family", &"x".repeat(9000));
    load(&mut client, &database.file("some", &lines), "'Patient'");
    let before = stored(&mut client);
    let refused = database.file("long", lines.replace("p-", "q-") + &long);
    let error = fails(&mut client, &load_sql(&refused, "'Patient'"));
    assert_error(&error, "54000", &["row is too big"]);
    assert_eq!(stored(&mut client), before);
    sound(&mut client);
}

#[test]
fn loads_beside_inserts_and_vacuum_lose_nothing() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    let urls = [1, 40_001, 80_001].map(|first| database.file(&first.to_string(), patients(first..=first + MANY - 1)));
    let done = AtomicBool::new(false);
    let inserted = thread::scope(|scope| {
        let loads = urls.map(|url| {
            let mut client = database.connect();
            scope.spawn(move || load(&mut client, &url, "'Patient'"))
        });
        let inserts = scope.spawn(|| {
            let mut client = database.connect();
            let mut inserted = 0;
            while !done.load(Ordering::Relaxed) {
                inserted += 1;
                let row = format!("('i-{inserted}', 1, 'created', '{{}}')");
                run(&mut client, &format!("INSERT INTO patient (id, txid, status, resource) VALUES {row}"));
            }
            inserted
        });
        let vacuums = scope.spawn(|| {
            let mut client = database.connect();
            while !done.load(Ordering::Relaxed) {
                run(&mut client, "VACUUM patient");
            }
        });
        let totals = loads.map(|load| load.join().unwrap());
        done.store(true, Ordering::Relaxed);
        assert_eq!(totals, [(); 3].map(|()| format!(r#"{{"total": {MANY}}}"#)));
        vacuums.join().unwrap();
        inserts.join().unwrap()
    });
    assert_eq!(count(&mut client, "SELECT count(DISTINCT id) FROM patient"), 3 * MANY as i64 + inserted);
    sound(&mut client);
}

#[test]
fn decoding_finds_the_long_values_of_rows_on_either_side_of_a_pages_end() {
    let database = servers::database_on(servers::decoded());
    let mut client = database.connect();
    let slot = format!("pages_{}", database.name());
    run(&mut client, "SELECT bulk_create_table('Patient')");
    run(&mut client, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"));
    load(&mut client, &database.file("mixed", mixed(3000)), "'Patient'");
    let decoded = format!(
        "SELECT count(*), count(*) FILTER (WHERE data ~ 'unchanged-toast-datum') \
         FROM pg_logical_slot_get_changes('{slot}', NULL, NULL) WHERE data ~ '^table public.patient: INSERT'"
    );
    assert_eq!(value(&mut client, &decoded), "3000|0");
    run(&mut client, &format!("SELECT pg_drop_replication_slot('{slot}')"));
}
