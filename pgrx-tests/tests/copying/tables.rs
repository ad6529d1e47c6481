//! Which table a COPY means, of which type its lines are, and every way in which tables are written.

use crate::from::{copy, copy_fails, session};
use crate::support::{
    aidbox_tables, assert_error, assert_error_with_hint, count, fails, load, patient, patients, rows, run, value,
};
use fhir_bulk_tests::{Client, Database};

/// A resource table without rows, history or sequence of its own.
fn table(client: &mut Client, name: &str, default: &str) {
    run(
        client,
        &format!(
            "CREATE TABLE {name} (id text PRIMARY KEY, txid bigint NOT NULL, cts timestamptz DEFAULT now(),
             ts timestamptz DEFAULT now(), resource_type text {default}, status public.resource_status NOT NULL,
             resource jsonb NOT NULL)"
        ),
    );
}

#[test]
fn the_table_is_that_of_the_search_path_with_its_own_history_and_sequence() {
    let database = Database::new();
    let mut client = session(&database);
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "CREATE SCHEMA ward; CREATE SEQUENCE ward.transaction_id_seq START 1000;
         CREATE TABLE ward.patient (LIKE public.patient INCLUDING ALL);
         CREATE TABLE ward.patient_history (LIKE public.patient_history INCLUDING ALL);
         SET search_path = ward, public",
    );
    copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=3));
    copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY)", patients(1..=1));
    assert_eq!(
        rows(&mut client, "SELECT id, txid FROM ward.patient ORDER BY id"),
        ["p-1|1001", "p-2|1000", "p-3|1000"]
    );
    assert_eq!(rows(&mut client, "SELECT id, txid FROM ward.patient_history"), ["p-1|1000"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM public.patient"), 0);
    // Named with its schema, and without a history or a sequence beside it.
    run(&mut client, "DROP TABLE ward.patient_history; DROP SEQUENCE ward.transaction_id_seq; RESET search_path");
    copy(&mut client, "COPY ward.patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY)", patients(2..=2));
    assert_eq!(rows(&mut client, "SELECT id FROM public.patient_history"), ["p-2"]);
    assert_eq!(
        value(&mut client, "SELECT txid = last_value FROM ward.patient, transaction_id_seq WHERE id = 'p-2'"),
        "t"
    );
}

#[test]
fn a_temporary_table_is_one_too() {
    let database = Database::new();
    let mut client = session(&database);
    aidbox_tables(&mut client, &["Patient"]);
    run(&mut client, "CREATE TEMPORARY TABLE patient (LIKE public.patient INCLUDING ALL)");
    assert_eq!(copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", patients(1..=3)), 3);
    assert_eq!(count(&mut client, "SELECT count(*) FROM pg_temp.patient"), 3);
    assert_eq!(count(&mut client, "SELECT count(*) FROM public.patient"), 0);
}

#[test]
fn a_table_knows_its_type_by_hl7_by_a_row_by_its_default_or_by_its_first_line() {
    let database = Database::new();
    let mut client = session(&database);
    aidbox_tables(&mut client, &["Patient"]);
    let typed = |client: &mut Client, name: &str| {
        assert_eq!(copy(client, &format!("COPY {name} FROM STDIN (FORMAT fhir)"), "{\"id\":\"typed\"}"), 1);
        value(client, &format!("SELECT resource_type FROM {name} WHERE id = 'typed'"))
    };
    assert_eq!(typed(&mut client, "patient"), "Patient");
    table(&mut client, "\"old patients\"", "");
    run(&mut client, "INSERT INTO \"old patients\" VALUES ('x', 1, now(), now(), 'Patient', 'created', '{}')");
    assert_eq!(typed(&mut client, "\"old patients\""), "Patient");
    table(&mut client, "staff", "DEFAULT 'Staff'");
    assert_eq!(typed(&mut client, "staff"), "Staff");
    // Nothing says it but the first line.
    table(&mut client, "individual", "");
    let statement = "COPY individual FROM STDIN (FORMAT fhir)";
    let line = |id: &str, spelt: &str| format!("{{\"id\":\"{id}\",\"resourceType\":\"{spelt}\"}}\n");
    assert_error(&copy_fails(&mut client, statement, "{\"id\":\"a\"}"), "22023", &["line 1", "no resourceType"]);
    assert_error_with_hint(
        &copy_fails(&mut client, statement, patients(1..=1)),
        "22023",
        &["\"Patient\"", "individual"],
    );
    let two = line("a", "InDividual") + &line("b", "Individual");
    assert_error(&copy_fails(&mut client, statement, two), "22023", &["\"Individual\"", "\"InDividual\""]);
    assert_eq!(copy(&mut client, statement, line("a", "InDividual") + &line("b", "InDividual")), 2);
    assert_error(&copy_fails(&mut client, statement, line("c", "Individual")), "22023", &["line 1", "\"InDividual\""]);
    // A foreign one is an error where the type is known.
    let error = copy_fails(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", line("d", "Group"));
    assert_error(&error, "22023", &["line 1 of STDIN", "\"Group\"", "\"Patient\""]);
}

#[test]
fn what_is_no_resource_table_is_refused_before_the_client_sends_anything() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "CREATE TABLE plain (id text); CREATE VIEW seen AS SELECT * FROM plain");
    for (name, state) in [("plain", "42809"), ("seen", "42809"), ("nowhere", "42P01"), ("nowhere.at_all", "3F000")] {
        for statement in
            [format!("COPY {name} FROM STDIN (FORMAT fhir)"), format!("COPY {name} TO STDOUT (FORMAT fhir)")]
        {
            let error = fails(&mut client, &statement);
            assert_error(&error, state, &[]);
        }
    }
}

#[test]
fn every_kind_of_table_takes_a_copy_as_it_takes_a_load() {
    let kinds = [
        (
            "trigger",
            "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.id = 'p-2' THEN RETURN NULL; END IF; RETURN NEW; END $$;
          CREATE TRIGGER keep_out BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION keep_out()",
        ),
        (
            "generated",
            "ALTER TABLE patient ADD COLUMN family text GENERATED ALWAYS AS (resource #>> '{name,0,family}') STORED",
        ),
        (
            "partitions",
            "DROP TABLE patient; CREATE TABLE patient (LIKE patient_history, PRIMARY KEY (id)) PARTITION BY HASH (id);
          CREATE TABLE part_0 PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 0);
          CREATE TABLE part_1 PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        ),
        ("rule", "CREATE RULE also AS ON INSERT TO patient DO ALSO NOTIFY x"),
        ("plain", ""),
    ];
    for (kind, change) in kinds {
        let (by_load, by_copy) = (Database::new(), Database::new());
        let (mut loaded, mut copied) = (by_load.connect(), session(&by_copy));
        for client in [&mut loaded, &mut copied] {
            run(client, &format!("SELECT bulk_create_table('Patient'); {change}"));
        }
        for lines in [patients(1..=500), patient("p-2", 3) + "\n" + &patients(300..=600)] {
            let url = by_load.file("lines", &lines);
            let answer = load(&mut loaded, &url, "'Patient', fhir => true, options => '{\"update\": true}'");
            let stored = copy(&mut copied, "COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY)", &lines);
            assert_eq!(answer, format!("{{\"total\": {stored}}}"), "{kind}");
        }
        let all = "SELECT id, status, resource FROM patient ORDER BY id";
        assert_eq!(rows(&mut copied, all), rows(&mut loaded, all), "{kind}");
        let history = "SELECT id, status, resource FROM patient_history ORDER BY id, txid";
        assert_eq!(rows(&mut copied, history), rows(&mut loaded, history), "{kind}");
    }
}

#[test]
fn a_foreign_table_takes_a_copy_and_so_does_one_that_citus_distributes() {
    let far = Database::new();
    let mut other = far.connect();
    aidbox_tables(&mut other, &[]);
    table(&mut other, "far_patient", "");
    let database = Database::new();
    let mut client = session(&database);
    aidbox_tables(&mut client, &[]);
    run(
        &mut client,
        &format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{}', dbname '{}');
             CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE patient (id text, txid bigint NOT NULL, cts timestamptz DEFAULT now(),
                 ts timestamptz DEFAULT now(), resource_type text, status resource_status NOT NULL, resource jsonb NOT NULL)
                 SERVER far OPTIONS (table_name 'far_patient')",
            far.cluster().port(),
            far.name()
        ),
    );
    let statement = "COPY patient FROM STDIN (FORMAT fhir)";
    assert_eq!(copy(&mut client, statement, patients(1..=300)), 300);
    assert_eq!(copy(&mut client, statement, patients(200..=400)), 201);
    let states = "SELECT status, count(*) FROM far_patient GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&mut other, states), ["created|299", "updated|101"]);
    assert_error(&copy_fails(&mut client, statement, patients(500..=501) + "bad\n"), "22P02", &["line 3"]);
    assert_eq!(count(&mut other, "SELECT count(*) FROM far_patient"), 400);

    // What tells of a distributed table, without Citus.
    let database = Database::new();
    let mut client = session(&database);
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "SET allow_system_table_mods = on; CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, colocationid int);
         INSERT INTO pg_catalog.pg_dist_partition VALUES ('patient')",
    );
    assert!(value(&mut client, "SELECT bulk_write_path('Patient')").starts_with("shards"));
    assert_eq!(copy(&mut client, statement, patients(1..=300)), 300);
    assert_eq!(copy(&mut client, statement, patients(200..=400)), 201);
    assert_eq!(rows(&mut client, &states.replace("far_", "")), ["created|299", "updated|101"]);
}
