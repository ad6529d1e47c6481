//! `bulk_resource_types`: what a role is told of there being.

use crate::support::{aidbox_tables, assert_error, fails, rows, run};
use fhir_bulk_tests::Database;

#[test]
fn a_role_sees_the_types_that_it_may_read_as_they_are_spelt() {
    let database = Database::new();
    let mut admin = database.connect();
    let role = database.role("app");
    let mut client = database.connect_as(&role);
    let types = "SELECT bulk_resource_types()";
    assert_eq!(rows(&mut client, types), [""; 0]);
    aidbox_tables(&mut admin, &["Patient", "MedicationRequest", "Individual"]);
    // Neither of these is a resource's, and the third has lost a column.
    run(
        &mut admin,
        "CREATE TABLE secret (id text, resource jsonb); CREATE TABLE events (resource_type text DEFAULT 'Events');
         CREATE TABLE device (LIKE patient INCLUDING ALL); ALTER TABLE device DROP COLUMN resource;
         CREATE TABLE \"Upper\" (LIKE patient); CREATE TABLE part (LIKE patient) PARTITION BY HASH (id);
         CREATE TABLE part1 PARTITION OF part FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE TABLE procedure (id text, txid bigint, ts timestamptz, resource_type text, status resource_status, resource jsonb)",
    );
    assert_eq!(rows(&mut admin, types), ["Individual", "MedicationRequest", "part", "Patient", "Procedure"]);
    assert_eq!(rows(&mut client, types), [""; 0]);
    run(
        &mut admin,
        &format!(
            "GRANT SELECT ON patient, individual TO {role}; GRANT SELECT (id, txid, cts, ts, resource_type, status) ON medicationrequest TO {role}"
        ),
    );
    assert_eq!(rows(&mut client, types), ["Individual", "Patient"]);
    run(&mut client, "SET fhir_bulk.data_schema = 'absent'");
    assert_error(&fails(&mut client, types), "3F000", &["absent"]);
}
