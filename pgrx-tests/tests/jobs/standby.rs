//! A standby shows jobs and does not run them.

use crate::job::{import, import_sql, inputs, server, status, wait_for_total, workers};
use crate::source::Stalling;
use crate::support::{assert_error, fails, patients, rows, run};
use fhir_bulk_tests::wait_for;
use serde_json::json;

#[test]
fn a_standby_shows_the_status_and_starts_nothing() {
    let database = server(&[]);
    let standby = database.cluster().standby();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut client, "job", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "job", 2000);
    let mut reader = standby.connect("postgres", database.name());
    wait_for("the standby to follow", || rows(&mut reader, "SELECT resources FROM bulk_jobs") == ["2000"]);
    for _ in 0..5 {
        assert_eq!(inputs(&status(&mut reader, "job")), ["active 2000"]);
        assert_eq!(workers(&mut reader), [0; 0]);
    }
    for sql in [&import_sql("x", &[("Patient", "file:///x")], json!({})), "SELECT bulk_import_cancel('job')"] {
        assert_error(&fails(&mut reader, sql), "25006", &["read-only"]);
    }
    source.go_on();
    wait_for("the standby to follow", || inputs(&status(&mut reader, "job")) == ["finished 4000"]);
    standby.stop_server("fast");
    database.cluster().stop_server("fast");
}
