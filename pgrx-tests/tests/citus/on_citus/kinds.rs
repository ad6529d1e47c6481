//! The checks that hold of loads into any kind of table, on the kinds of tables that Citus has.

#[path = "../../writing/paths/checks.rs"]
mod checks;
/// What those checks take.
mod kind {
    use fhir_bulk_tests::{Client, Database};

    /// A table, who loads into it, and the superuser.
    pub struct Place {
        pub database: Database,
        pub client: Client,
        pub admin: Client,
        pub has_cts: bool,
        pub also: Option<fn(&mut Place)>,
    }
}

use crate::nodes::{database, distributed};
use crate::support::{aidbox_tables, run, value};
use kind::Place;

const SHARDS: &str = "shards: Citus distributes it to other servers";

/// Runs the checks on Aidbox's tables, which statements change and distribute, each in a transaction of its own. The load is
/// the superuser's, or that of a role with just the rights it needs.
fn check(statements: &[&str], path: &str, by_role: bool) {
    let database = database();
    let mut admin = database.connect();
    aidbox_tables(&mut admin, &["Patient"]);
    for statement in statements {
        run(&mut admin, &statement.replace("CURRENT_DATABASE", database.name()));
    }
    let client = if by_role {
        let role = database.role("loader");
        run(
            &mut admin,
            &format!(
                "GRANT pg_read_server_files TO {role};
                 GRANT EXECUTE ON FUNCTION bulk_load, bulk_write_path TO {role};
                 GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"
            ),
        );
        run(&mut admin, &format!("GRANT INSERT ON patient_history TO {role}"));
        run(&mut admin, &format!("GRANT SELECT, INSERT, UPDATE ON patient TO {role}"));
        database.connect_as(&role)
    } else {
        database.connect()
    };
    let has_cts = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'patient'::regclass AND attname = 'cts' AND NOT attisdropped";
    let has_cts = value(&mut admin, has_cts) == "1";
    let mut place = Place { database, client, admin, has_cts, also: None };
    assert_eq!(value(&mut place.client, "SELECT bulk_write_path('Patient')"), path);
    checks::all(&mut place);
}

const TABLE: &str = "SELECT create_distributed_table('patient', 'id')";
const HISTORY: &str = "SELECT create_distributed_table('patient_history', 'id', colocate_with => 'patient')";

#[test]
fn tables_distributed_by_id_load() {
    check(&[TABLE, HISTORY], SHARDS, false);
}

#[test]
fn tables_that_the_extension_distributes_load() {
    let database = database();
    let client = distributed(&database, "Patient");
    let admin = database.connect();
    checks::all(&mut Place { database, client, admin, has_cts: true, also: None });
}

#[test]
fn distributed_tables_load_for_a_role_with_just_the_rights_it_needs() {
    check(&[TABLE, HISTORY], SHARDS, true);
}

#[test]
fn distributed_tables_load_by_single_statements() {
    let set = "ALTER DATABASE CURRENT_DATABASE SET fhir_bulk.write_path = 'set'";
    check(&[TABLE, HISTORY, set], "set: fhir_bulk.write_path asks for it", false);
}

#[test]
fn distributed_tables_load_through_a_temporary_table() {
    let staged = "ALTER DATABASE CURRENT_DATABASE SET fhir_bulk.write_path = 'staged'";
    check(&[TABLE, HISTORY, staged], "staged: fhir_bulk.write_path asks for it", false);
}

#[test]
fn distributed_tables_of_fhirbase_without_cts_load() {
    let without = "ALTER TABLE patient DROP COLUMN cts; ALTER TABLE patient_history DROP COLUMN cts";
    check(&[without, TABLE, HISTORY], SHARDS, false);
}

#[test]
fn distributed_tables_with_columns_of_their_own_load() {
    let columns = "ALTER TABLE patient ADD COLUMN plain text, ADD COLUMN tenant text NOT NULL DEFAULT 'one',
        ADD COLUMN number text GENERATED ALWAYS AS (resource ->> 'multipleBirthInteger') STORED";
    check(&[columns, TABLE, HISTORY], SHARDS, false);
}

#[test]
fn distributed_tables_with_policies_load_for_an_ordinary_role() {
    let policy = "CREATE POLICY mine ON patient USING (resource ->> 'birthDate' IS DISTINCT FROM '1800-01-01')";
    check(
        &[TABLE, HISTORY, "ALTER TABLE patient ENABLE ROW LEVEL SECURITY", policy],
        "staged: Citus distributes it to other servers, and row level security applies to the current role",
        true,
    );
}

#[test]
fn distributed_tables_with_triggers_load() {
    check(
        &[
            TABLE,
            HISTORY,
            "ALTER DATABASE CURRENT_DATABASE SET citus.enable_unsafe_triggers = on",
            "SET citus.enable_unsafe_triggers = on",
            "CREATE FUNCTION tag() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN NEW.resource := NEW.resource || ''{\"tagged\": true}''; RETURN NEW; END'",
            "CREATE TRIGGER tag BEFORE INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION tag()",
        ],
        "staged: Citus distributes it to other servers, and it has triggers",
        false,
    );
}

#[test]
fn partitioned_tables_that_are_distributed_load() {
    check(
        &[
            "ALTER TABLE patient RENAME TO whole",
            "CREATE TABLE patient (LIKE whole INCLUDING DEFAULTS) PARTITION BY LIST (id)",
            "ALTER TABLE patient ADD PRIMARY KEY (id)",
            "CREATE TABLE patient_one PARTITION OF patient FOR VALUES IN ('p-1')",
            "CREATE TABLE patient_rest PARTITION OF patient DEFAULT",
            TABLE,
            HISTORY,
        ],
        SHARDS,
        false,
    );
}

#[test]
fn distributed_tables_whose_history_is_on_the_coordinator_load() {
    check(&[TABLE], SHARDS, false);
}

#[test]
fn distributed_tables_whose_history_has_other_shards_load() {
    let apart = "SELECT create_distributed_table('patient_history', 'id', shard_count => 4, colocate_with => 'none')";
    check(&[TABLE, apart], SHARDS, false);
}

#[test]
fn reference_tables_load() {
    let table = "SELECT create_reference_table('patient')";
    check(&[table, "SELECT create_reference_table('patient_history')"], SHARDS, false);
}

#[test]
fn reference_tables_whose_history_is_on_the_coordinator_load() {
    check(&["SELECT create_reference_table('patient')"], SHARDS, false);
}

#[test]
fn tables_of_the_coordinator_that_citus_manages_load() {
    let table = "SELECT citus_add_local_table_to_metadata('patient')";
    check(&[table, "SELECT citus_add_local_table_to_metadata('patient_history')"], SHARDS, false);
}

#[test]
fn tables_that_citus_keeps_whole_on_one_worker_load() {
    check(
        &[
            "SELECT create_distributed_table('patient', NULL, colocate_with => 'none', distribution_type => NULL)",
            "SELECT create_distributed_table('patient_history', NULL, colocate_with => 'patient', distribution_type => NULL)",
        ],
        SHARDS,
        false,
    );
}
