//! What waits until its submission is completed: who can get at it, and what it costs.

use super::{Source, add, allowed, fetched, finish, submitter};
use crate::job::{hold, wait_until_waiting, worker};
use crate::support::{assert_error, count, fails, patients, run};
use fhir_bulk_tests::memory::anonymous;

const TABLES: [&str; 4] =
    ["bulk_submission", "bulk_submission_manifest", "bulk_submission_piece", "bulk_submission_outcome"];

#[test]
fn what_waits_is_read_and_written_by_nobody_not_even_its_owner() {
    let (database, mut admin) = allowed();
    let source = Source::new();
    let owner = submitter(&database, &mut admin, "owner");
    let mut client = database.connect_as(&owner);
    let url = source.patients("m", &format!("{}x\n", patients(1..=5)));
    add(&mut client, "s", &url);
    fetched(&mut client, "s");
    run(
        &mut admin,
        &format!(
            "GRANT pg_read_all_data, pg_write_all_data TO {owner}; GRANT USAGE ON SCHEMA fhir_bulk_internal TO {owner};
             GRANT ALL ON ALL TABLES IN SCHEMA public TO {owner}"
        ),
    );
    for table in TABLES {
        let table = format!("fhir_bulk_internal.{table}");
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
        assert_eq!(count(&mut admin, &format!("SELECT count(*) FROM {table}")), 1, "{table}");
        for statement in ["DELETE FROM", "TRUNCATE"] {
            let refused = fails(
                &mut admin,
                &format!("{statement} {table}{}", if statement == "TRUNCATE" { " CASCADE" } else { "" }),
            );
            assert_error(&refused, "42501", &["only the extension fhir_bulk may write table"]);
        }
        run(&mut admin, &format!("ALTER ROLE {owner} BYPASSRLS"));
        let refused = fails(&mut client, &format!("DELETE FROM {table}"));
        assert_error(&refused, "42501", &["only the extension fhir_bulk may write table"]);
        run(&mut admin, &format!("ALTER ROLE {owner} NOBYPASSRLS"));
    }
    finish(&mut client, "s");
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 5);
}

#[test]
fn a_large_submission_takes_little_memory_and_is_small_while_it_waits() {
    let (database, mut client) = allowed();
    let source = Source::new();
    let number = 300_000;
    let lines = patients(1..=number);
    let huge = format!("{{\"resourceType\":\"Patient\",\"id\":\"huge\",\"a\":\"{}\"}}\n", "x".repeat(20 << 20));
    let url = source.patients("m", &(lines + &huge));
    add(&mut client, "s", &url);
    fetched(&mut client, "s");
    let bytes = count(&mut client, "SELECT pg_total_relation_size('fhir_bulk_internal.bulk_submission_piece')");
    assert!(bytes < 20 << 20, "{bytes} bytes wait");
    let _held = hold(&database, &format!("p-{number}"));
    super::complete(&mut client, "s");
    wait_until_waiting(&mut client, "Lock");
    let worker = worker(&mut client);
    let taken = anonymous(worker.into()).expect("the worker is at work");
    assert!(taken < 64 << 20, "{} kB", taken >> 10);
    drop(_held);
    super::wait_until(&mut client, "s", "is applied", |status| status["status"] == "completed");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), number as i64 + 1);
    assert_eq!(count(&mut client, "SELECT length(resource ->> 'a') FROM patient WHERE id = 'huge'"), 20 << 20);
}
