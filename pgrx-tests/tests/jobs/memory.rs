//! A worker's memory stays flat, however many batches and inputs it does.

use crate::job::{hold, import, one_worker, wait_for_status, worker};
use crate::support::{patients, run};
use fhir_bulk_tests::memory::anonymous;
use serde_json::Value;

#[test]
fn a_thousand_batches_leave_no_memory_behind() {
    let (database, mut client) = one_worker();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 100");
    let url = database.file("many", patients(1..=60_000));
    // The worker stays for the last one, so that its memory can be looked at.
    let last = database.file("last", patients(60_001..=60_001));
    let _held = hold(&database, "p-60001");
    import(&mut client, "many", &[("Patient", &url), ("Patient", &url), ("Patient", &last)]);
    let worker = worker(&mut client);
    let total =
        |status: &Value| status["inputs"].as_array().unwrap().iter().map(|i| i["total"].as_u64().unwrap()).sum::<u64>();
    let mut at = |wanted: u64| {
        wait_for_status(&mut client, "many", "more", |status| total(status) >= wanted);
        anonymous(worker.into()).expect("the worker is at work")
    };
    let first = at(15_000);
    let last = (25_000..=115_000).step_by(10_000).map(&mut at).last().unwrap();
    assert!(last - first < 4 << 20, "1,000 batches left {} kB", (last - first) >> 10);
}
