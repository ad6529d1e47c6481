//! Objects of other roles with the same names must not change what the extension's statements do.

use crate::support::{aidbox_tables, count, load, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};

/// A trap that is called leaves a row in `sprung` and returns wrong results.
const TRAP: &str = "
    CREATE TABLE trap.sprung (what text);
    CREATE FUNCTION trap.same(text, text) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('='); RETURN false; END $$;
    CREATE FUNCTION trap.same(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('= of bigint'); RETURN true; END $$;
    CREATE FUNCTION trap.same(public.resource_status, public.resource_status) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('= of status'); RETURN true; END $$;
    CREATE FUNCTION trap.same(public.resource_status, text) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('= of status and text'); RETURN true; END $$;
    CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.same);
    CREATE OPERATOR trap.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.same);
    CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.same);
    CREATE OPERATOR trap.= (LEFTARG = public.resource_status, RIGHTARG = public.resource_status, FUNCTION = trap.same);
    CREATE OPERATOR trap.<> (LEFTARG = public.resource_status, RIGHTARG = public.resource_status, FUNCTION = trap.same);
    CREATE OPERATOR trap.<> (LEFTARG = public.resource_status, RIGHTARG = text, FUNCTION = trap.same);
    CREATE FUNCTION trap.later(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('>'); RETURN false; END $$;
    CREATE OPERATOR trap.> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = trap.later);
    CREATE FUNCTION trap.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('unnest'); RETURN; END $$;
    CREATE FUNCTION trap.nextval(regclass) RETURNS bigint LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('nextval'); RETURN -1; END $$;
    CREATE FUNCTION trap.to_regtype(text) RETURNS regtype LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('to_regtype'); RETURN NULL; END $$;
    CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('now'); RETURN NULL; END $$;
    CREATE FUNCTION trap.pg_advisory_xact_lock(int, int) RETURNS void LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES ('pg_advisory_xact_lock'); END $$;
    CREATE DOMAIN trap.text AS pg_catalog.text CHECK (false);
    CREATE DOMAIN trap.int8 AS pg_catalog.int8 CHECK (false);
    CREATE DOMAIN trap.timestamptz AS pg_catalog.timestamptz CHECK (false);
    CREATE DOMAIN trap.jsonb AS pg_catalog.jsonb CHECK (false);
    CREATE TYPE trap.resource_status AS ENUM ('wrong');
    CREATE SEQUENCE trap.transaction_id_seq START 1000000;
    CREATE TABLE trap.pg_settings (name pg_catalog.text, enumvals pg_catalog.text[]);
    CREATE TABLE trap.patient (LIKE public.patient INCLUDING ALL);
    CREATE TABLE trap.\"group\" (LIKE public.patient INCLUDING ALL)";

/// In the schema that the extension is put into, and that is in its script's search_path behind pg_catalog: an operator for
/// each pair of types that PostgreSQL has none for itself, and functions that fit some calls better than its own.
const BETTER: &str = "
    DO $$
    DECLARE
        of record;
        number integer := 0;
    BEGIN
        FOR of IN SELECT o.name AS operator, l.name AS lefts, r.name AS rights,
                CASE WHEN o.name ~ '[=<>]' THEN 'boolean' ELSE l.name END AS result
            FROM unnest('{=,<>,<,>,<=,>=,+,-,*,/,||}'::text[]) o (name),
                unnest('{text,name,bigint,integer,smallint,oid,boolean,jsonb,timestamptz,interval,numeric,double precision}'::text[]) l (name),
                unnest('{text,name,bigint,integer,smallint,oid,boolean,jsonb,timestamptz,interval,numeric,double precision}'::text[]) r (name)
            WHERE NOT EXISTS (SELECT FROM pg_operator WHERE oprname = o.name AND oprleft = l.name::regtype
                AND oprright = r.name::regtype) LOOP
            number := number + 1;
            EXECUTE format('CREATE FUNCTION trap.better_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L',
                number, of.lefts, of.rights, of.result,
                format('BEGIN INSERT INTO trap.sprung VALUES (%L); RETURN NULL; END', concat_ws(' ', of.lefts, of.operator, of.rights)));
            EXECUTE format('CREATE OPERATOR trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trap.better_%s)',
                of.operator, of.lefts, of.rights, number);
        END LOOP;
        FOR of IN SELECT * FROM (VALUES ('hashtextextended(text, integer)', 'bigint'), ('to_jsonb(text)', 'jsonb'),
                ('to_jsonb(bigint)', 'jsonb'), ('unnest(text[])', 'SETOF text'), ('unnest(bigint[])', 'SETOF bigint'),
                ('unnest(bytea[])', 'SETOF bytea'), ('make_interval(integer)', 'interval'), ('count(bigint)', 'bigint'),
                ('format(text, text)', 'text'), ('min(timestamptz)', 'timestamptz'), ('concat_ws(text, oid, oid)', 'text')
            ) AS f (signature, result) LOOP
            EXECUTE format('CREATE FUNCTION trap.%s RETURNS %s LANGUAGE plpgsql AS %L', of.signature, of.result,
                format('BEGIN INSERT INTO trap.sprung VALUES (%L); RETURN%s; END', of.signature,
                    CASE WHEN of.result ~ 'SETOF' THEN '' ELSE ' NULL' END));
        END LOOP;
    END
    $$";

fn trapped() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(&mut client, "CREATE SCHEMA trap");
    run(&mut client, TRAP);
    (database, client)
}

fn assert_not_sprung(client: &mut Client) {
    run(client, "RESET search_path");
    assert_eq!(rows(client, "SELECT DISTINCT what FROM trap.sprung"), [""; 0]);
    assert_eq!(count(client, "SELECT count(*) FROM trap.patient"), 0);
    assert_eq!(count(client, "SELECT count(*) FROM trap.\"group\""), 0);
    assert_eq!(value(client, "SELECT is_called FROM trap.transaction_id_seq"), "f");
}

#[test]
fn a_schema_full_of_traps_before_pg_catalog_in_search_path_changes_nothing() {
    let (database, mut client) = trapped();
    let url = database.file("patients", patients(1..=2500) + &patients(1..=100));
    let mixed = database.file("mixed", patient("p-1", 9) + "\n{\"id\":\"g\",\"resourceType\":\"Group\"}\n");
    run(&mut client, "SET search_path = trap, pg_catalog, public");
    let mut of_load = |url: &str, arguments: &str| {
        let sql = format!("SELECT public.bulk_load('{url}'{arguments})::pg_catalog.text");
        rows(&mut client, &sql).remove(0)
    };
    assert_eq!(of_load(&url, ", 'Patient'"), r#"{"total": 2600}"#);
    assert_eq!(of_load(&url, ", 'Patient'"), r#"{"total": 2600}"#);
    assert_eq!(of_load(&mixed, ""), r#"{"Group": 1, "Patient": 1}"#);
    assert_eq!(rows(&mut client, "SELECT public.bulk_dump('Patient')").len(), 2500);
    assert_eq!(
        rows(&mut client, "SELECT public.bulk_dump('Patient', '1999-01-01'::pg_catalog.timestamptz)").len(),
        2500
    );
    assert_eq!(rows(&mut client, "SELECT public.bulk_dump_chunks('Group', gzip => true)").len(), 1);
    assert_eq!(rows(&mut client, "SELECT public.dump_csv('Patient', '{\"since\": \"1999-01-01\"}')").len(), 2501);
    assert_eq!(
        rows(&mut client, "SELECT public.bulk_create_table('Device')::pg_catalog.oid::pg_catalog.regclass").len(),
        1
    );
    assert_not_sprung(&mut client);
    assert_eq!(
        rows(&mut client, "SELECT status, count(*), count(DISTINCT txid) FROM patient GROUP BY 1 ORDER BY 1"),
        ["updated|2500|2"]
    );
    assert_eq!(
        rows(
            &mut client,
            "SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = 'public.\"group\"'::regclass AND attnum > 0"
        ),
        ["text", "bigint", "timestamp with time zone", "timestamp with time zone", "text", "resource_status", "jsonb"]
    );
}

/// The script binds names and operators of functions and views for good.
#[test]
fn what_stands_in_the_schema_that_the_extension_is_put_into_is_in_nothing_that_it_makes() {
    let (database, mut client) = trapped();
    run(&mut client, "DROP EXTENSION fhir_bulk");
    run(&mut client, BETTER);
    assert!(count(&mut client, "SELECT count(*) FROM pg_operator WHERE oprnamespace = 'trap'::regnamespace") > 1000);
    run(&mut client, "BEGIN; SET LOCAL search_path = public, trap; CREATE EXTENSION fhir_bulk SCHEMA trap");
    assert_eq!(value(&mut client, "SHOW search_path"), "public, trap");
    run(&mut client, "COMMIT");
    assert_eq!(value(&mut client, "SHOW search_path"), "\"$user\", public");
    let used = "SELECT pg_describe_object(d.classid, d.objid, 0) || ': ' || pg_describe_object(d.refclassid, d.refobjid, 0)
        FROM pg_depend m JOIN pg_depend d ON (d.classid, d.objid) = (m.classid, m.objid)
            OR d.classid = 'pg_rewrite'::regclass AND m.classid = 'pg_class'::regclass
                AND d.objid IN (SELECT oid FROM pg_rewrite WHERE ev_class = m.objid)
        JOIN (SELECT 'pg_operator'::regclass AS class, oid FROM pg_operator WHERE oprnamespace = 'trap'::regnamespace
            UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = 'trap'::regnamespace
            UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = 'trap'::regnamespace) t
            ON (t.class, t.oid) = (d.refclassid, d.refobjid)
        WHERE m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e'
        AND m.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk')
        AND NOT EXISTS (SELECT FROM pg_depend o WHERE (o.classid, o.objid, o.deptype) = (d.refclassid, d.refobjid, 'e'))";
    assert_eq!(rows(&mut client, used), [""; 0]);
    let url = database.file("patients", patients(1..=100));
    let bad = database.file("bad", "bad\n");
    run(&mut client, &format!("SELECT trap.bulk_load('{bad}', 'Patient', options => '{{\"on_error\": \"skip\"}}')"));
    assert_eq!(count(&mut client, "SELECT count(*) FROM trap.bulk_load_reject"), 1);
    let import = format!(
        r#"SELECT trap.bulk_import('{{"id": "i", "inputs": [{{"resourceType": "Patient", "url": "{url}"}}]}}')"#
    );
    run(&mut client, &import);
    wait_for("the import to end", || {
        count(&mut client, "SELECT count(*) FROM trap.bulk_jobs WHERE status = 'finished' AND resources = 100") == 1
    });
    assert!(value(&mut client, "SELECT trap.bulk_import_status('i')").contains("100"));
    run(&mut client, "SELECT trap.bulk_import_cancel('i')");
    assert_not_sprung(&mut client);
}

#[test]
fn temporary_tables_and_functions_named_like_the_resource_tables_are_not_taken_for_them() {
    let (database, mut client) = trapped();
    let url = database.file("patients", patients(1..=10));
    run(
        &mut client,
        "CREATE TEMP TABLE patient (LIKE public.patient INCLUDING ALL);
         CREATE TEMP SEQUENCE transaction_id_seq START 7000; CREATE TYPE pg_temp.resource_status AS ENUM ('wrong');
         INSERT INTO pg_temp.patient (id, txid, status, resource) VALUES ('temporary', 1, 'created', '{}')",
    );
    for _ in 0..2 {
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 10}"#);
    }
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')").len(), 10);
    assert_eq!(count(&mut client, "SELECT count(*) FROM pg_temp.patient"), 1);
    assert_eq!(count(&mut client, "SELECT count(*) FROM public.patient WHERE txid < 7000"), 10);
    run(&mut client, "SELECT bulk_create_table('Group')");
    assert_eq!(value(&mut client, "SELECT to_regclass('public.\"group\"') IS NOT NULL"), "t");
}

#[test]
fn names_inside_of_data_cannot_become_sql() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "CREATE TABLE victim ()");
    let evil = "'); DROP TABLE victim; --";
    let line = serde_json::json!({"id": evil, "resourceType": "Patient", evil: evil, "meta": {"source": evil}});
    let url = database.file("it's \"evil\" $1.ndjson", format!("{line}\n{line}\n"));
    let quoted = url.replace('\'', "''");
    for _ in 0..2 {
        assert_eq!(load(&mut client, &quoted, "'Patient'"), r#"{"total": 2}"#);
    }
    assert_eq!(rows(&mut client, "SELECT id FROM patient"), [evil]);
    assert_eq!(value(&mut client, "SELECT to_regclass('victim') IS NOT NULL"), "t");
    run(&mut client, "CREATE SCHEMA \"it's; \"\"DROP\"\"\"; SET fhir_bulk.data_schema = 'it''s; \"DROP\"'");
    for _ in 0..2 {
        assert_eq!(load(&mut client, &quoted, "'Patient'"), r#"{"total": 2}"#);
    }
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')").len(), 1);
}
