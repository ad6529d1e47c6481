//! New tables that Citus distributes.

use crate::nodes::{database, distributed, shared, with_patients};
use crate::support::{assert_error, count, fails, load, patients, rows, run, value};

const DISTRIBUTED: &str = "SELECT logicalrelid, column_to_column_name(logicalrelid, partkey) FROM pg_dist_partition ORDER BY logicalrelid::text";

#[test]
fn new_tables_are_distributed_when_the_setting_asks_for_it_with_their_history_beside_them() {
    let database = database();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Device')");
    assert_eq!(rows(&mut client, DISTRIBUTED), [""; 0], "not by default");
    let mut client = distributed(&database, "Patient");
    run(&mut client, "SELECT bulk_create_table('Group')");
    assert_eq!(
        rows(&mut client, DISTRIBUTED),
        ["\"group\"|id", "group_history|id", "patient|id", "patient_history|id"]
    );
    let together = "SELECT count(DISTINCT colocationid) FROM pg_dist_partition";
    assert_eq!(value(&mut client, together), "1");
    // What is there stays as it is.
    run(&mut client, "SELECT bulk_create_table('Device')");
    assert_eq!(rows(&mut client, DISTRIBUTED).len(), 4);
    // A history that is missing goes beside its table, whatever the setting says.
    run(
        &mut client,
        "SET fhir_bulk.distribute_tables = off; DROP TABLE group_history; SELECT bulk_create_table('Group')",
    );
    assert_eq!(rows(&mut client, DISTRIBUTED).len(), 4);
    assert_eq!(value(&mut client, together), "1");
}

#[test]
fn a_load_of_mixed_types_makes_all_its_tables_distributed_in_its_transaction() {
    let (database, mut client) = with_patients();
    let other = |name: &str| patients(1..=2000).replace("\"Patient\"", &format!("\"{name}\""));
    let url = database.file("mixed", patients(1..=3000) + &other("Device") + &other("Group") + &other("Device"));
    run(&mut client, "BEGIN");
    let answer = r#"{"Group": 2000, "Device": 4000, "Patient": 3000}"#;
    assert_eq!(load(&mut client, &url, ""), answer);
    run(&mut client, "ROLLBACK");
    assert_eq!(rows(&mut client, DISTRIBUTED).len(), 2);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    assert_eq!(load(&mut client, &url, ""), answer);
    assert_eq!(rows(&mut client, DISTRIBUTED).len(), 6);
    let counts =
        "SELECT (SELECT count(*) FROM device), (SELECT count(*) FROM \"group\"), (SELECT count(*) FROM patient)";
    assert_eq!(value(&mut client, counts), "2000|2000|3000");
    // The rows are on the workers.
    for number in 0..2 {
        let shards = "SELECT count(*) FROM pg_class WHERE relname ~ '^device_[0-9]+$'";
        assert!(count(&mut shared().on_worker(number, &database), shards) > 0);
    }
}

#[test]
fn a_first_load_makes_the_type_of_status_and_everything_else_in_its_transaction() {
    let database = database();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.distribute_tables = on");
    let url = database.file("first", patients(1..=5000));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 5000}"#);
    assert_eq!(rows(&mut client, DISTRIBUTED).len(), 2);
    assert_eq!(
        value(&mut client, "SELECT count(*), count(DISTINCT id), min(status::text) FROM patient"),
        "5000|5000|created"
    );
}

#[test]
fn new_tables_are_made_with_the_rights_of_the_caller() {
    let (database, mut client) = with_patients();
    let role = database.role("maker");
    run(
        &mut client,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_create_table TO {role};
             ALTER DATABASE {} SET fhir_bulk.distribute_tables = on",
            database.name()
        ),
    );
    let mut maker = database.connect_as(&role);
    assert_error(&fails(&mut maker, "SELECT bulk_create_table('Device')"), "42501", &["public"]);
    run(&mut client, &format!("GRANT CREATE ON SCHEMA public TO {role}"));
    run(&mut maker, "SELECT bulk_create_table('Device')");
    let owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename ~ '^device_[0-9]+$'";
    assert_eq!(rows(&mut shared().on_worker(1, &database), owners), [role.as_str()]);
}

#[test]
fn names_in_the_callers_search_path_change_nothing() {
    let (database, mut client) = with_patients();
    run(
        &mut client,
        "CREATE SCHEMA evil; SET citus.enable_ddl_propagation = off;
         CREATE FUNCTION evil.create_distributed_table(regclass, text, colocate_with text) RETURNS void LANGUAGE plpgsql
             AS 'BEGIN RAISE ''evil''; END';
         CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
         CREATE FUNCTION evil.bad(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.bad);
         CREATE TABLE evil.patient (id text); CREATE TABLE evil.pg_dist_partition (logicalrelid regclass);
         SET search_path = evil, public, pg_catalog; RESET citus.enable_ddl_propagation",
    );
    let url = database.file("patients", patients(1..=2000));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 2000}"#);
    assert_eq!(load(&mut client, &url, "'Patient', options => '{\"update\": true}'"), r#"{"total": 2000}"#);
    run(&mut client, "SELECT bulk_create_table('Device')");
    run(&mut client, "RESET search_path");
    assert_eq!(rows(&mut client, DISTRIBUTED).len(), 4);
    assert_eq!(
        value(&mut client, "SELECT (SELECT count(*) FROM patient), (SELECT count(*) FROM patient_history)"),
        "2000|2000"
    );
}
