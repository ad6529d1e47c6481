//! A view shows its caller what the caller may read, and nothing more.

use super::{lines, store, view};
use crate::support::{assert_error, fails, rows, run, value};
use fhir_bulk_tests::Database;
use serde_json::json;

#[test]
fn rows_and_rights_are_those_of_whoever_reads() {
    let database = Database::new();
    let mut admin = database.connect();
    let (reader, stranger) = (database.role("reader"), database.role("stranger"));
    store(
        &mut admin,
        &database,
        &[json!({"resourceType": "Patient", "id": "mine"}), json!({"resourceType": "Patient", "id": "other"})],
    );
    run(
        &mut admin,
        &format!(
            "ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON patient USING (id = 'mine');
             GRANT SELECT ON patient TO {reader}; UPDATE patient SET status = 'updated'"
        ),
    );
    let of_ids = view("Patient", &[("id", "id")]);
    run(
        &mut admin,
        &format!("SELECT bulk_create_view('flat', '{of_ids}'); GRANT SELECT ON flat TO {reader}, {stranger}"),
    );
    run(
        &mut admin,
        &format!("SELECT bulk_create_view('kept', '{of_ids}', true); GRANT SELECT ON kept TO {reader}, {stranger}"),
    );
    let mut client = database.connect_as(&reader);
    assert_eq!(lines(&mut client, &of_ids, "csv", "{}"), ["mine"]);
    assert_eq!(rows(&mut client, "SELECT id FROM flat"), ["mine"]);
    // A materialized view has what its maker may read.
    assert_eq!(rows(&mut client, "SELECT id FROM kept ORDER BY id"), ["mine", "other"]);
    let error = fails(&mut client, &format!("SELECT bulk_create_view('mine', '{of_ids}')"));
    assert_error(&error, "42501", &["permission denied for function bulk_create_view"]);
    let mut client = database.connect_as(&stranger);
    for sql in [format!("SELECT {}", super::dump_view(&of_ids, "csv", "{}")), "SELECT id FROM flat".to_owned()] {
        assert_error(&fails(&mut client, &sql), "42501", &["permission denied"]);
    }
    // Given resources need no right, and neither does the function that views call: it knows its arguments only.
    let given = r#"{"resources": [{"resourceType": "Patient", "id": "given"}]}"#;
    assert_eq!(lines(&mut client, &of_ids, "csv", given), ["given"]);
    let call = format!("SELECT bulk_view_rows('{of_ids}', '4.0.1', 'x', 1, now(), 'Patient', '{{}}')::text");
    assert_eq!(rows(&mut client, &call), ["{x}"]);
}

#[test]
fn a_deleted_resource_is_in_no_view() {
    let database = Database::new();
    let mut client = database.connect();
    store(
        &mut client,
        &database,
        &[json!({"resourceType": "Patient", "id": "live"}), json!({"resourceType": "Patient", "id": "dead"})],
    );
    run(&mut client, "UPDATE patient SET status = 'deleted' WHERE id = 'dead'");
    let of_ids = view("Patient", &[("id", "id")]);
    run(&mut client, &format!("SELECT bulk_create_view('flat', '{of_ids}')"));
    assert_eq!(lines(&mut client, &of_ids, "csv", "{}"), ["live"]);
    assert_eq!(value(&mut client, "SELECT string_agg(id, ',') FROM flat"), "live");
}
