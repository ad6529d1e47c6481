//! What loads refuse on Citus, instead of losing rows or counting versions wrong.

use crate::nodes::{database, with_patients, without_citus};
use crate::support::{aidbox_tables, assert_error_with_hint, count, fails, load_fails, patients, run, value};

#[test]
fn a_table_distributed_by_another_column_than_id_is_refused_with_what_to_do() {
    let database = database();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey, ADD COLUMN tenant text NOT NULL DEFAULT 'one',
             ADD PRIMARY KEY (tenant, id)",
    );
    run(&mut client, "SELECT create_distributed_table('patient', 'tenant')");
    let url = database.file("patients", patients(1..=3));
    for path in ["auto", "set", "staged"] {
        run(&mut client, &format!("SET fhir_bulk.write_path = {path}"));
        for options in ["{}", r#"{"update": true}"#] {
            let error = load_fails(&mut client, &url, &format!("'Patient', options => '{options}'"));
            assert_error_with_hint(&error, "42P10", &["\"patient\"", "by column tenant"]);
        }
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    // The HINT helps.
    for change in [
        "SELECT undistribute_table('patient')",
        "ALTER TABLE patient DROP CONSTRAINT patient_pkey, ADD PRIMARY KEY (id)",
        "SELECT create_distributed_table('patient', 'id')",
    ] {
        run(&mut client, change);
    }
    assert_eq!(value(&mut client, &format!("SELECT bulk_load('{url}', 'Patient')")), r#"{"total": 3}"#);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 3);
}

#[test]
fn a_resource_that_a_shard_refuses_is_an_error_and_nothing_is_loaded() {
    let (database, mut client) = with_patients();
    run(&mut client, "ALTER TABLE patient ADD CONSTRAINT dated CHECK (resource ->> 'birthDate' <> '1800-01-01')");
    let bad = patients(1..=9000).replace("\"multipleBirthInteger\":8500", "\"birthDate\":\"1800-01-01\"");
    let url = database.file("bad", bad);
    for options in ["{}", r#"{"update": true}"#, r#"{"on_error": "skip"}"#] {
        let error = load_fails(&mut client, &url, &format!("'Patient', options => '{options}'"));
        assert_eq!(error.code().code(), "23514", "{error:?}");
        assert!(error.message().contains("dated"), "{error:?}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    }
}

#[test]
fn distribution_that_is_asked_for_without_citus_is_refused() {
    let database = without_citus();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.distribute_tables = on");
    for sql in [
        "SELECT bulk_create_table('Patient')".to_owned(),
        format!("SELECT bulk_load('{}', 'Patient')", database.file("patients", patients(1..=3))),
    ] {
        assert_error_with_hint(&fails(&mut client, &sql), "55000", &["distribute_tables", "Citus"]);
    }
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
}
