//! Imports among other sessions that write the same rows.

use crate::job::{allowed, assert_patients, finish, hold, import, inputs, set, wait_until_waiting};
use crate::support::{count, patients, rows, run};
use fhir_bulk_tests::{Client, Database, wait_for};
use std::thread;

/// A database in which patients 1 to 3000 are known, with a setting for its later sessions, and a file that has them.
fn known(setting: &str) -> (Database, Client, String) {
    let (database, mut client) = allowed();
    let url = database.file("known", patients(1..=3000));
    run(&mut client, &crate::support::load_sql(&url, "'Patient'"));
    let client = set(&database, setting);
    (database, client, url)
}

/// A session whose looks at a job are not told to look again, as those of serializable transactions are among the workers'.
fn look_from(mut session: Client) -> Client {
    run(&mut session, "SET default_transaction_isolation = 'read committed'");
    session
}

fn update(id: usize) -> String {
    format!("UPDATE patient SET resource = resource || '{{\"touched\": true}}' WHERE id = 'p-{id}'")
}

#[test]
fn a_deadlock_with_another_session_is_tried_again() {
    let (database, mut client, url) = known("deadlock_timeout = '2s'");
    let mut other = database.connect();
    // The import is the one that finds the deadlock: it looks for one when it has waited for some time, and only then.
    run(&mut other, &format!("SET deadlock_timeout = '600s'; SET application_name = 'other'; BEGIN; {}", update(2999)));
    let held = hold(&database, "p-2000");
    import(&mut client, "deadlock", &[("Patient", &url)]);
    wait_until_waiting(&mut client, "Lock");
    let blocked = thread::spawn(move || {
        run(&mut other, &update(1));
        run(&mut other, "COMMIT");
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'other' AND wait_event_type = 'Lock'
        AND datname = current_database()";
    wait_for("the other session to wait for the import", || count(&mut client, waits) == 1);
    drop(held);
    blocked.join().unwrap();
    let status = finish(&mut client, "deadlock");
    assert_eq!(inputs(&status), ["finished 3000"], "{status}");
    assert!(database.cluster().log().contains("\"deadlock\", 1 of 1 begins again after line 0: deadlock detected"));
    assert_patients(&mut client, 3000);
}

#[test]
fn a_serialization_failure_is_tried_again() {
    let (database, mut client, url) = known("default_transaction_isolation = 'serializable'");
    let mut other = database.connect();
    run(&mut other, &format!("BEGIN; {}", update(2999)));
    import(&mut client, "serial", &[("Patient", &url)]);
    wait_until_waiting(&mut client, "Lock");
    run(&mut other, "COMMIT");
    let mut client = look_from(client);
    let status = finish(&mut client, "serial");
    assert_eq!(inputs(&status), ["finished 3000"], "{status}");
    assert!(database.cluster().log().contains("\"serial\", 1 of 1 begins again after line 0: could not serialize"));
    assert_patients(&mut client, 3000);
}

/// Workers that note their progress in the same small table would be in each other's way.
#[test]
fn workers_under_serializable_isolation_do_not_fail_each_other() {
    let (database, mut client, _) = known("default_transaction_isolation = 'serializable'");
    run(&mut client, "SET fhir_bulk.import_commit_rows = 500");
    let one = database.file("one", patients(1..=20_000));
    let two = database.file("two", patients(1..=20_000).replace("Patient", "Person"));
    import(&mut client, "both", &[("Patient", &one), ("Person", &two)]);
    let mut client = look_from(client);
    let status = finish(&mut client, "both");
    assert_eq!(inputs(&status), ["finished 20000", "finished 20000"], "{status}");
    let log = database.cluster().log();
    let again = log.lines().filter(|line| line.contains("\"both\"")).count();
    assert!(again <= 8, "{again} of 80 batches were begun again");
    assert_patients(&mut client, 20_000);
}

#[test]
fn two_imports_of_the_same_file_at_once_leave_each_row_once() {
    let (database, mut client) = allowed();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 500");
    let forth = database.file("forth", patients(1..=20_000));
    let lines = patients(1..=20_000);
    let back = database.file("back", lines.lines().rev().map(|line| format!("{line}\n")).collect::<String>());
    import(&mut client, "one", &[("Patient", &forth)]);
    import(&mut client, "two", &[("Patient", &forth)]);
    import(&mut client, "three", &[("Patient", &back)]);
    for id in ["one", "two", "three"] {
        let status = finish(&mut client, id);
        assert_eq!(inputs(&status), ["finished 20000"], "{status}");
    }
    assert_patients(&mut client, 20_000);
    assert_eq!(rows(&mut client, "SELECT count(*) FROM patient WHERE status NOT IN ('created', 'updated')"), ["0"]);
}
