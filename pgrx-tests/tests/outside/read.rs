//! `bulk_read`: one resource.

use crate::support::{assert_error, assert_error_with_hint, fails, load, patients, rows, run};
use fhir_bulk_tests::Database;

#[test]
fn a_resource_is_what_a_dump_has_of_it_and_null_where_there_is_none_to_see() {
    let database = Database::new();
    let mut client = database.connect();
    load(&mut client, &database.file("patients", patients(1..=3)), "'Patient', fhir => true");
    for fhir in ["true", "false"] {
        let dumped = rows(&mut client, &format!("SELECT bulk_dump('Patient', fhir => {fhir}, filter => '_id=p-2')"));
        assert_eq!(rows(&mut client, &format!("SELECT bulk_read('Patient', 'p-2', {fhir})")), dumped);
        assert_eq!(rows(&mut client, &format!("SELECT bulk_read('patient', 'p-2', fhir => {fhir})")), dumped);
    }
    assert!(rows(&mut client, "SELECT bulk_read('Patient', 'p-2')")[0].starts_with("{\"id\":\"p-2\""));
    run(&mut client, "UPDATE patient SET status = 'deleted' WHERE id = 'p-3'");
    let role = database.role("nurse");
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON patient TO {role}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON patient USING (id <> 'p-1')"
        ),
    );
    let mut nurse = database.connect_as(&role);
    // Hidden, deleted, absent.
    for id in ["p-1", "p-3", "p-4", "", "'' OR true"] {
        assert_eq!(rows(&mut nurse, &format!("SELECT bulk_read('Patient', '{id}')")), ["∅"], "{id}");
    }
    assert_eq!(rows(&mut nurse, "SELECT bulk_read('Patient', 'p-2') IS NULL"), ["f"]);
    for name in ["Device", "Nothing", "no type", ""] {
        assert_error_with_hint(&fails(&mut client, &format!("SELECT bulk_read('{name}', 'x')")), "42P01", &[name]);
    }
    for arguments in ["NULL, 'x'", "'Patient', NULL", "'Patient', 'x', NULL"] {
        assert_error(&fails(&mut client, &format!("SELECT bulk_read({arguments})")), "22004", &[]);
    }
    run(&mut client, &format!("REVOKE SELECT ON patient FROM {role}"));
    assert_error(&fails(&mut nurse, "SELECT bulk_read('Patient', 'p-2')"), "42501", &["patient"]);
}
