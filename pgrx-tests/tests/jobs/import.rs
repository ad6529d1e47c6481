//! What an import does to tables.

use crate::job::{finish, import, inputs, wait_for_workers_to_end};
use crate::support::{count, patients};
use fhir_bulk_tests::{Database, gzip};

#[test]
fn an_import_loads_its_inputs_in_the_background() {
    let database = Database::new();
    let mut client = database.connect();
    let one = database.file("one", patients(1..=1000));
    let two = database.file("two", gzip(patients(1001..=1500).replace("Patient", "Person").as_bytes()));
    assert_eq!(import(&mut client, "two-files", &[("Patient", &one), ("Person", &two)]), "two-files");
    let status = finish(&mut client, "two-files");
    assert_eq!(inputs(&status), ["finished 1000", "finished 500"], "{status}");
    assert_eq!(status["status"], "finished");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 1000);
    assert_eq!(count(&mut client, "SELECT count(*) FROM person"), 500);
    wait_for_workers_to_end(&database);
}
