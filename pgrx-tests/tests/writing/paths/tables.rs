//! How the kinds of tables are made, from those that Aidbox makes, and what is particular to them.

use super::kind::Place;
use crate::servers;
use crate::support::{load, patient, rows, run, value};
use fhir_bulk_tests::{Cluster, Database};

pub const WITHOUT_CTS: &str = "ALTER TABLE patient DROP COLUMN cts; ALTER TABLE patient_history DROP COLUMN cts";

pub const EXTRA_COLUMNS: &str =
    "ALTER TABLE patient ADD COLUMN plain text, ADD COLUMN tenant text NOT NULL DEFAULT 'one',
    ADD COLUMN at timestamptz NOT NULL DEFAULT now(), ADD COLUMN number int GENERATED ALWAYS AS IDENTITY";

pub fn extra_columns_have_defaults(place: &mut Place) {
    let query = "SELECT DISTINCT plain, tenant, at IS NULL, number IS NULL FROM patient";
    assert_eq!(rows(&mut place.admin, query), ["∅|one|f|f"]);
}

pub const BEFORE_TRIGGER: &str = "CREATE FUNCTION tag() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.resource := NEW.resource || ''{\"tagged\": true}''; RETURN NEW; END';
    CREATE TRIGGER tag BEFORE INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION tag()";

pub fn trigger_changed_rows(place: &mut Place) {
    assert_eq!(rows(&mut place.admin, "SELECT DISTINCT resource -> 'tagged' FROM patient"), ["true"]);
}

pub const AFTER_TRIGGER: &str = "CREATE TABLE log (id text);
    CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NULL; END';
    CREATE TRIGGER log AFTER INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION log()";

pub const STATEMENT_TRIGGERS: &str = "CREATE TABLE log (id text);
    CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log SELECT id FROM seen; RETURN NULL; END';
    CREATE TRIGGER new AFTER INSERT ON patient REFERENCING NEW TABLE AS seen FOR EACH STATEMENT EXECUTE FUNCTION log();
    CREATE TRIGGER old AFTER UPDATE ON patient REFERENCING NEW TABLE AS seen FOR EACH STATEMENT EXECUTE FUNCTION log()";

pub fn trigger_saw_rows(place: &mut Place) {
    assert_eq!(rows(&mut place.admin, "SELECT id FROM patient EXCEPT SELECT id FROM log"), [""; 0]);
}

pub const FOREIGN_KEYS: &str = "CREATE TABLE tenant (name text PRIMARY KEY); INSERT INTO tenant VALUES ('one');
    ALTER TABLE patient ADD COLUMN tenant text NOT NULL DEFAULT 'one' REFERENCES tenant;
    CREATE TABLE visit (patient text REFERENCES patient ON DELETE CASCADE)";

pub const ALSO_RULE: &str = "CREATE TABLE log (id text);
    CREATE RULE also AS ON INSERT TO patient DO ALSO INSERT INTO log VALUES (NEW.id)";

pub fn rule_saw_rows(place: &mut Place) {
    trigger_saw_rows(place);
}

pub const POLICY: &str = "ALTER TABLE patient ADD COLUMN tenant text NOT NULL DEFAULT 'mine', ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON patient USING (tenant = 'mine') WITH CHECK (tenant = 'mine' AND resource ->> 'birthDate' IS DISTINCT FROM '1800-01-01')";

pub const FORCED_POLICY: &str = "ALTER TABLE patient ADD COLUMN tenant text NOT NULL DEFAULT 'mine',
        ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY mine ON patient USING (tenant = 'mine') WITH CHECK (tenant = 'mine')";

pub const GENERATED: &str =
    "ALTER TABLE patient ADD COLUMN number text GENERATED ALWAYS AS (resource ->> 'multipleBirthInteger') STORED";

pub fn generated_is_right(place: &mut Place) {
    let query = "SELECT DISTINCT number IS NOT DISTINCT FROM resource ->> 'multipleBirthInteger' FROM patient";
    assert_eq!(rows(&mut place.admin, query), ["t"]);
}

pub const DOMAIN: &str = "CREATE DOMAIN short AS text CHECK (length(value) < 9);
    ALTER TABLE patient ADD COLUMN word short DEFAULT 'word', ADD COLUMN other short";

pub const STATUS_OF_TEXT: &str =
    "ALTER TABLE patient ALTER COLUMN status TYPE text; ALTER TABLE patient_history ALTER COLUMN status TYPE text";

pub const STATUS_OF_DOMAIN: &str = "CREATE DOMAIN state AS resource_status CHECK (value IS NOT NULL);
    ALTER TABLE patient ALTER COLUMN status TYPE state; ALTER TABLE patient_history ALTER COLUMN status TYPE state";

pub const DEFERRABLE_KEY_AND_INDEX: &str = "ALTER TABLE patient DROP CONSTRAINT patient_pkey,
        ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED;
    CREATE UNIQUE INDEX by_id ON patient (id);
    ALTER TABLE patient_history DROP CONSTRAINT patient_history_pkey, ADD PRIMARY KEY (id, txid) DEFERRABLE";

pub const KEY_AND_DEFERRABLE_ONE: &str = "ALTER TABLE patient DROP CONSTRAINT patient_pkey,
        ADD CONSTRAINT \"The key, of \"\"patient\"\"\" PRIMARY KEY (id), ADD UNIQUE (id) DEFERRABLE;
    ALTER TABLE patient_history ADD UNIQUE (id, txid) DEFERRABLE";

pub const IDS_WITHOUT_CASE: &str =
    "CREATE COLLATION without_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    ALTER TABLE patient ALTER COLUMN id TYPE text COLLATE without_case";

pub fn case_makes_no_other_id(place: &mut Place) {
    if value(&mut place.admin, "SELECT count(*) FROM patient WHERE id = 'p-1'") == "0" {
        return;
    }
    let url = place.database.file("case", patient("P-1", 4711));
    load(&mut place.client, &url, "'Patient'");
    let query = "SELECT id, resource ->> 'multipleBirthInteger' FROM patient WHERE id = 'P-1'";
    assert_eq!(rows(&mut place.admin, query), ["p-1|4711"]);
}

pub const INDEXES: &str = "CREATE INDEX content ON patient USING gin (resource jsonb_path_ops);
    CREATE INDEX family ON patient ((resource #>> '{name,0,family}'));
    CREATE INDEX replaced ON patient (txid) WHERE status <> 'created';
    CREATE UNIQUE INDEX other_key ON patient ((id || '!')); CREATE INDEX creation ON patient USING brin (cts)";

pub const KEY_WITH_COLUMNS: &str = "ALTER TABLE patient DROP CONSTRAINT patient_pkey;
    CREATE UNIQUE INDEX patient_pkey ON patient (id) INCLUDE (txid, status)";

pub fn key_is_sound(place: &mut Place) {
    assert_eq!(value(&mut place.admin, "SELECT bt_index_check('patient_pkey', true)"), "");
    let twice = "SELECT id FROM patient GROUP BY 1 HAVING count(*) > 1";
    assert_eq!(rows(&mut place.admin, twice), [""; 0]);
}

pub fn indexes_are_sound(place: &mut Place) {
    for index in ["patient_pkey", "family", "replaced", "other_key"] {
        assert_eq!(value(&mut place.admin, &format!("SELECT bt_index_check('{index}', true)")), "", "{index}");
    }
    let mut found = |plan: &str| {
        run(&mut place.admin, &format!("SET enable_seqscan = {plan}"));
        value(
            &mut place.admin,
            "SELECT (SELECT count(*) FROM patient WHERE resource @> '{\"birthDate\": \"1970-01-01\"}'),
                    (SELECT count(*) FROM patient WHERE resource @> '{\"birthDate\": \"none\"}'),
                    (SELECT count(*) FROM patient WHERE resource #>> '{name,0,family}' ~ '^Other' AND txid > 0 AND status <> 'created'),
                    (SELECT count(*) FROM patient WHERE cts > '2020-01-01')",
        )
    };
    assert_eq!(found("off"), found("on"));
    assert_eq!(rows(&mut place.admin, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
}

const COLUMNS: &str =
    "(id text NOT NULL, txid bigint NOT NULL, cts timestamptz DEFAULT now(), ts timestamptz DEFAULT now(),
    resource_type text DEFAULT 'Patient', status resource_status NOT NULL, resource jsonb NOT NULL";

pub const HASH: &str = "DROP TABLE patient;
    CREATE TABLE patient (id text PRIMARY KEY, txid bigint NOT NULL, cts timestamptz, ts timestamptz,
        resource_type text, status resource_status NOT NULL, resource jsonb NOT NULL) PARTITION BY HASH (id);
    CREATE TABLE patient_0 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 0);
    CREATE TABLE patient_1 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 1);
    CREATE TABLE patient_2 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 2)";

pub const RANGE: &str = "DROP TABLE patient;
    CREATE TABLE patient (resource jsonb NOT NULL, id text PRIMARY KEY, txid bigint NOT NULL, cts timestamptz,
        ts timestamptz, resource_type text, status resource_status NOT NULL) PARTITION BY RANGE (id);
    CREATE TABLE low (id text PRIMARY KEY, dropped int, txid bigint NOT NULL, cts timestamptz, ts timestamptz,
        resource_type text, status resource_status NOT NULL, resource jsonb NOT NULL);
    ALTER TABLE low DROP COLUMN dropped;
    ALTER TABLE patient ATTACH PARTITION low FOR VALUES FROM (MINVALUE) TO ('p-5');
    CREATE TABLE high PARTITION OF patient FOR VALUES FROM ('p-5') TO (MAXVALUE)";

pub const LEAF: &str = "DROP TABLE patient; DROP TABLE patient_history; CREATE SCHEMA leaves;
    CREATE SEQUENCE leaves.transaction_id_seq;
    CREATE TABLE parent (id text PRIMARY KEY, txid bigint NOT NULL, cts timestamptz, ts timestamptz,
        resource_type text, status resource_status NOT NULL, resource jsonb NOT NULL) PARTITION BY RANGE (id);
    CREATE TABLE leaves.patient PARTITION OF parent FOR VALUES FROM (MINVALUE) TO ('q');
    CREATE TABLE leaves.patient_history (LIKE parent, PRIMARY KEY (id, txid))";

pub const MOVED: &str =
    "CREATE SCHEMA \"Other \"\"schema\"\"\"; ALTER TABLE patient SET SCHEMA \"Other \"\"schema\"\"\";
    ALTER TABLE patient_history SET SCHEMA \"Other \"\"schema\"\"\";
    CREATE SEQUENCE \"Other \"\"schema\"\"\".transaction_id_seq";

/// Without Citus: what its list says is believed.
pub const LISTED_BY_CITUS: &str = "SET allow_system_table_mods = on; SET default_tablespace = '';
    CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, colocationid int);
    INSERT INTO pg_catalog.pg_dist_partition VALUES ('patient')";

pub fn foreign_table(database: &Database) -> String {
    foreign(database, "")
}

pub fn foreign_table_batched(database: &Database) -> String {
    foreign(database, ", batch_size '1000', fetch_size '1000'")
}

fn foreign(database: &Database, options: &str) -> String {
    format!(
        "CREATE EXTENSION postgres_fdw; DROP TABLE patient; {}
         CREATE FOREIGN TABLE patient {COLUMNS}) SERVER second OPTIONS (table_name 'far_patient')",
        other_server(database, "second", servers::second(), options)
    )
}

pub fn foreign_partitions(database: &Database) -> String {
    format!(
        "CREATE EXTENSION postgres_fdw; DROP TABLE patient; {}{}
         CREATE TABLE patient {COLUMNS}) PARTITION BY HASH (id);
         CREATE TABLE patient_0 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 0);
         CREATE FOREIGN TABLE patient_1 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 1)
             SERVER second OPTIONS (table_name 'far_patient');
         CREATE FOREIGN TABLE patient_2 PARTITION OF patient FOR VALUES WITH (modulus 3, remainder 2)
             SERVER third OPTIONS (table_name 'far_patient')",
        other_server(database, "second", servers::second(), ", batch_size '1000'"),
        other_server(database, "third", servers::third(), "")
    )
}

/// Makes a database with a table there; the statements by which this one finds it.
fn other_server(database: &Database, name: &str, server: &Cluster, options: &str) -> String {
    let mut far = servers::plain_database(server, database.name());
    run(
        &mut far,
        &format!(
            "CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated');
             CREATE TABLE far_patient {COLUMNS}, PRIMARY KEY (id))"
        ),
    );
    assert_eq!(value(&mut far, "SELECT count(*) FROM far_patient"), "0");
    format!(
        "CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw
             OPTIONS (host '127.0.0.1', port '{}', dbname '{}'{options});
         CREATE USER MAPPING FOR postgres SERVER {name} OPTIONS (user 'postgres');",
        server.port(),
        database.name()
    )
}
