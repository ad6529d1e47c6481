//! `bulk_resource_counts`: how many resources there are, as the planner expects or counted, and whom it tells.

use crate::support::{assert_error, assert_error_with_hint, fails, rows, run};
use fhir_bulk_tests::Database;

const ESTIMATES: &str = "SELECT name, resources, bytes > 0 FROM bulk_resource_counts()";
const EXACT: &str = "SELECT name, resources FROM bulk_resource_counts(exact => true)";

#[test]
fn estimates_are_the_planners_and_exact_counts_leave_out_what_was_deleted() {
    let database = Database::new();
    let mut client = database.connect();
    assert_eq!(rows(&mut client, ESTIMATES), [""; 0]);
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'), bulk_create_table('Group'), bulk_create_table('Individual');
         INSERT INTO patient (id, txid, status, resource)
         SELECT 'p-' || n, n, CASE WHEN n <= 100 THEN 'deleted' ELSE 'created' END::resource_status, '{}'
         FROM generate_series(1, 1000) n",
    );
    // Nothing has analyzed it; an empty table needs no analysis.
    assert_eq!(rows(&mut client, ESTIMATES), ["Group|0|t", "Individual|0|t", "Patient|∅|t"]);
    run(&mut client, "ANALYZE patient");
    assert_eq!(rows(&mut client, ESTIMATES), ["Group|0|t", "Individual|0|t", "Patient|1000|t"]);
    assert_eq!(rows(&mut client, EXACT), ["Group|0", "Individual|0", "Patient|900"]);
    // As the planner does, by how much the table has grown since.
    run(
        &mut client,
        "INSERT INTO patient (id, txid, status, resource) SELECT 'q-' || n, n, 'created', '{}' FROM generate_series(1, 1000) n",
    );
    let grown = rows(&mut client, "SELECT resources BETWEEN 1500 AND 2500 FROM bulk_resource_counts('Patient')");
    assert_eq!(grown, ["t"]);
    let one = rows(&mut client, "SELECT name, resources FROM bulk_resource_counts('patient', true)");
    assert_eq!(one, ["Patient|1900"]);
    let unknown = fails(&mut client, "SELECT * FROM bulk_resource_counts('Nothing')");
    assert_error_with_hint(&unknown, "42P01", &["Nothing"]);
    assert_error(&fails(&mut client, "SELECT * FROM bulk_resource_counts('Patient', NULL)"), "22004", &["exact"]);
}

#[test]
fn partitions_and_views_are_counted_and_sizes_are_those_of_all_parts() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient');
         CREATE TABLE observation (id text PRIMARY KEY, txid bigint NOT NULL, cts timestamptz DEFAULT now(), ts timestamptz DEFAULT now(),
             resource_type text, status resource_status NOT NULL, resource jsonb NOT NULL) PARTITION BY HASH (id);
         CREATE TABLE observation_0 PARTITION OF observation FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE observation_1 PARTITION OF observation FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO observation (id, txid, status, resource) SELECT 'o-' || n, n, 'created', '{}' FROM generate_series(1, 500) n;
         INSERT INTO patient (id, txid, status, resource) SELECT 'p-' || n, n, 'created', '{}' FROM generate_series(1, 10) n;
         CREATE VIEW person AS SELECT * FROM patient; ANALYZE",
    );
    assert_eq!(rows(&mut client, ESTIMATES), ["Observation|500|t", "Patient|10|t", "Person|∅|∅"]);
    assert_eq!(rows(&mut client, EXACT), ["Observation|500", "Patient|10", "Person|10"]);
    let parts = "SELECT bytes = pg_total_relation_size('observation_0') + pg_total_relation_size('observation_1')
        FROM bulk_resource_counts('Observation')";
    assert_eq!(rows(&mut client, parts), ["t"]);
}

/// Whoever sees two of a hundred patients is not told of the others, not even about how many they are.
#[test]
fn a_role_is_told_of_tables_that_it_may_read_and_of_rows_that_it_may_see() {
    let database = Database::new();
    let mut client = database.connect();
    let role = database.role("reader");
    run(
        &mut client,
        &format!(
            "SELECT bulk_create_table('Patient'), bulk_create_table('Encounter');
             INSERT INTO patient (id, txid, status, resource) SELECT 'p-' || n, n, 'created', '{{}}' FROM generate_series(1, 100) n;
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY two ON patient USING (id IN ('p-1', 'p-2'));
             GRANT SELECT ON patient TO {role}; ANALYZE"
        ),
    );
    assert_eq!(rows(&mut client, ESTIMATES), ["Encounter|0|t", "Patient|100|t"]);
    let mut reader = database.connect_as(&role);
    assert_eq!(rows(&mut reader, ESTIMATES), ["Patient|∅|∅"]);
    assert_eq!(rows(&mut reader, EXACT), ["Patient|2"]);
    for exact in [false, true] {
        let error = fails(&mut reader, &format!("SELECT * FROM bulk_resource_counts('Encounter', {exact})"));
        assert_error(&error, "42501", &["encounter"]);
    }
    // Names that the caller's search_path has first count nothing.
    run(
        &mut client,
        &format!(
            "CREATE SCHEMA trap AUTHORIZATION {role}; CREATE FUNCTION trap.count() RETURNS bigint LANGUAGE sql AS 'SELECT 42::bigint';
             CREATE FUNCTION trap.differ(resource_status, resource_status) RETURNS boolean LANGUAGE sql AS 'SELECT false';
             CREATE OPERATOR trap.<> (FUNCTION = trap.differ, LEFTARG = resource_status, RIGHTARG = resource_status)"
        ),
    );
    run(&mut reader, "SET search_path = trap, pg_catalog, public");
    assert_eq!(rows(&mut reader, EXACT), ["Patient|2"]);
}
