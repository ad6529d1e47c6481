//! A schema has all names of pg_catalog and comes before it in search_path. The extension must never call its functions,
//! above all not with other roles' rights.

use crate::job::{close_gate, done, download, export, export_sql, finish, ids, wait_for_readers, with_location};
use crate::support::{assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::{Value, json};

/// All functions and operators of pg_catalog that SQL can create, and some of its types. Each one that is called records its
/// name and the role whose rights it has.
const TRAP: &str = r#"
CREATE SCHEMA trap;
CREATE TABLE public.sprung (what text, role text);
DO $$
DECLARE
    it record;
    body text;
BEGIN
    FOR it IN SELECT p.oid, proname, proretset, pg_get_function_identity_arguments(p.oid) AS arguments,
                  pg_get_function_result(p.oid) AS result
              FROM pg_proc p WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' LOOP
        body := format('BEGIN INSERT INTO public.sprung VALUES (%L, current_user); RETURN%s; END', it.proname,
            CASE WHEN it.proretset THEN '' ELSE ' NULL' END);
        BEGIN
            EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
                it.proname, it.arguments, it.result, body);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR it IN SELECT oid, oprname, format_type(NULLIF(oprleft, 0), NULL) AS lefts, format_type(oprright, NULL) AS rights,
                  format_type(oprresult, NULL) AS result
              FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace LOOP
        body := format('BEGIN INSERT INTO public.sprung VALUES (%L, current_user); RETURN NULL; END', it.oprname);
        BEGIN
            EXECUTE format('CREATE FUNCTION trap.op_%s(%s%s) RETURNS %s LANGUAGE plpgsql AS %L',
                it.oid, it.lefts || ', ', it.rights, it.result, body);
            EXECUTE format('CREATE OPERATOR trap.%s (%s RIGHTARG = %s, FUNCTION = trap.op_%s)',
                it.oprname, 'LEFTARG = ' || it.lefts || ',', it.rights, it.oid);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END $$;
CREATE DOMAIN trap.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN trap.int8 AS pg_catalog.int8 CHECK (false);
CREATE DOMAIN trap.int4 AS pg_catalog.int4 CHECK (false);
CREATE DOMAIN trap.oid AS pg_catalog.oid CHECK (false);
CREATE DOMAIN trap.name AS pg_catalog.name CHECK (false);
CREATE DOMAIN trap.timestamptz AS pg_catalog.timestamptz CHECK (false);
CREATE DOMAIN trap.jsonb AS pg_catalog.jsonb CHECK (false);
CREATE DOMAIN trap.numeric AS pg_catalog.numeric CHECK (false);
CREATE DOMAIN trap.regclass AS pg_catalog.regclass CHECK (false);
CREATE VIEW trap.pg_stat_activity AS SELECT trap.clock_timestamp() AS xact_start;
CREATE VIEW trap.pg_prepared_xacts AS SELECT trap.clock_timestamp() AS prepared;
CREATE VIEW trap.pg_extension AS SELECT trap.clock_timestamp() AS extname;
CREATE VIEW trap.pg_roles AS SELECT trap.clock_timestamp() AS rolname"#;

/// A database with the trap, a role that may call everything, and that role's session with the trap in its way.
fn trapped() -> (Database, Client, Client) {
    let (database, mut admin) = with_location();
    let role = database.role("evil");
    run(
        &mut admin,
        &format!(
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}; GRANT CREATE ON SCHEMA public TO {role};
             GRANT pg_read_server_files TO {role}"
        ),
    );
    run(&mut admin, TRAP);
    let made = "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'trap'::regnamespace) > 2000
        AND (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'trap'::regnamespace) > 700";
    assert_eq!(value(&mut admin, made), "t");
    // Each of them must be able to record its call.
    run(
        &mut admin,
        &format!(
            "GRANT INSERT ON public.sprung TO PUBLIC; GRANT USAGE ON SCHEMA trap TO PUBLIC;
             GRANT ALL ON ALL TABLES IN SCHEMA trap TO PUBLIC;
             ALTER DATABASE {0} SET search_path = trap, pg_catalog, public;
             ALTER ROLE {role} IN DATABASE {0} SET search_path = trap, pg_catalog, public",
            database.name()
        ),
    );
    let client = database.connect_as(&role);
    (database, admin, client)
}

#[test]
fn no_function_view_or_job_calls_what_a_schema_before_pg_catalog_has_under_its_names() {
    let (database, mut admin, mut client) = trapped();
    let line = |id: usize| {
        format!(r#"{{"id":"{id}","resourceType":"Patient","identifier":[{{"system":"s","value":"{id}"}}]}}"#) + "\n"
    };
    let lines: String = (1..=300).map(line).collect();
    let (url, bad) = (database.file("patients", &lines), database.file("bad", format!("bad\n{}", line(1))));
    for _ in 0..2 {
        assert_eq!(
            value(&mut client, &format!("SELECT public.bulk_load('{url}', 'Patient', true)")),
            r#"{"total": 300}"#
        );
    }
    let update = format!("SELECT public.bulk_load('{bad}', options => '{{\"update\": true, \"on_error\": \"skip\"}}')");
    assert_eq!(value(&mut client, &update), r#"{"errors": 1, "Patient": 1}"#);
    assert_eq!(rows(&mut client, "SELECT sqlstate FROM public.bulk_load_reject").len(), 1);
    run(&mut client, "DELETE FROM public.bulk_load_reject");
    for dump in [
        "public.bulk_dump('Patient')",
        "public.bulk_dump('Patient', '1999-01-01')",
        "public.dump_sql('SELECT id FROM public.patient')",
    ] {
        assert_eq!(rows(&mut client, &format!("SELECT {dump}")).len(), 300, "{dump}");
    }
    assert_eq!(rows(&mut client, "SELECT public.bulk_dump_chunks('Patient', gzip => true)").len(), 1);
    assert_eq!(rows(&mut client, "SELECT public.bulk_resource_types()"), ["Patient"]);
    assert_eq!(rows(&mut client, "SELECT public.bulk_write_path('Patient')").len(), 1);
    run(&mut client, "SELECT public.bulk_create_table('Group')");
    let asked = r#"SELECT public.bulk_export_identifiers('{"type": "Patient", "identifiers": ["s|7"]}')"#;
    let found: Value = serde_json::from_str(&value(&mut client, asked)).unwrap();
    assert_eq!(found["successful"], 1, "{found}");

    let import = |id: &str| {
        format!(
            r#"SELECT public.bulk_import('{{"id": "{id}", "inputs": [{{"resourceType": "Patient", "url": "{url}"}}]}}', true)"#
        )
    };
    run(&mut client, &import("one"));
    let status = "SELECT public.bulk_import_status('one')";
    wait_for("the import to end", || {
        value(&mut client, status).contains(r#""status": "finished", "resourceType""#)
            || value(&mut client, "SELECT status FROM public.bulk_jobs WHERE id OPERATOR(pg_catalog.=) 'one'")
                == "finished"
    });
    run(&mut client, "SELECT public.bulk_import_cancel('one')");

    // The helper calls functions unqualified.
    let export = |request: &Value| format!("SELECT public.bulk_export('{request}')");
    let status = |id: &str| format!("SELECT public.bulk_export_status('{id}')");
    for request in [
        json!({}),
        json!({"_type": "Patient", "_since": "2000-01-01T00:00:00Z"}),
        json!({"resourceTypes": ["Patient"]}),
    ] {
        let id = value(&mut client, &export(&request));
        let mut last = Value::Null;
        wait_for("the export to end", || {
            last = serde_json::from_str(&value(&mut client, &status(&id))).unwrap();
            last["status"] != "pending" && last["status"] != "processing"
        });
        assert_eq!(last["status"], "completed", "{last}");
        let url = last["output"][0]["url"].as_str().or(last["downloadUrl"].as_str()).unwrap();
        assert!(!rows(&mut client, &format!("SELECT public.bulk_export_file('{url}')")).is_empty());
        assert_eq!(value(&mut client, &format!("SELECT public.bulk_export_cancel('{id}')")), "t");
    }
    assert_eq!(rows(&mut admin, "SELECT DISTINCT what || ' as ' || role FROM public.sprung"), [""; 0]);
}

/// What `evil` put there, whom it would have got the administrator's rights.
fn planted(admin: &mut Client, database: &Database) -> Client {
    let role = database.role("evil");
    run(
        admin,
        &format!(
            "GRANT CREATE ON SCHEMA public TO {role}; CREATE TABLE public.sprung (what text, role text);
             GRANT INSERT ON public.sprung TO PUBLIC; GRANT SELECT ON patient TO {role}"
        ),
    );
    let mut evil = database.connect_as(&role);
    let of_patient = "SELECT id, txid, cts, ts, resource_type, status, resource FROM patient";
    run(
        &mut evil,
        &format!(
            "CREATE FUNCTION evil(text) RETURNS boolean LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO public.sprung VALUES ($1, current_user); RETURN true; END $$;
             CREATE FUNCTION evil_fixed(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
               $$ BEGIN PERFORM public.evil($1); RETURN $1; END $$;
             CREATE VIEW basic AS {of_patient} WHERE evil('view');
             CREATE TABLE account (LIKE patient); INSERT INTO account {of_patient};
             ALTER TABLE account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             CREATE POLICY p ON account USING (evil('policy'));
             CREATE TYPE hidden AS (resource jsonb);
             CREATE FUNCTION shown(hidden) RETURNS jsonb LANGUAGE plpgsql AS
               $$ BEGIN PERFORM public.evil('cast'); RETURN $1.resource; END $$;
             CREATE CAST (hidden AS jsonb) WITH FUNCTION shown(hidden);
             CREATE TABLE flag (LIKE patient); INSERT INTO flag {of_patient};
             ALTER TABLE flag ALTER COLUMN resource TYPE hidden USING ROW(resource)::hidden;
             CREATE TABLE goal (LIKE patient) PARTITION BY LIST (resource_type);
             CREATE TABLE goal_part PARTITION OF goal DEFAULT; INSERT INTO goal {of_patient};
             CREATE TABLE list (LIKE patient); INSERT INTO list {of_patient};
             CREATE INDEX ON list ((evil_fixed('index')));
             CREATE TABLE slot (LIKE patient, CHECK (evil_fixed('check') IS NOT NULL)); INSERT INTO slot {of_patient};
             CREATE TABLE media (LIKE patient INCLUDING ALL); INSERT INTO media {of_patient};
             GRANT SELECT ON basic, account, flag, goal, list, slot, media TO PUBLIC"
        ),
    );
    run(admin, "TRUNCATE public.sprung");
    evil
}

#[test]
fn an_export_of_all_types_runs_no_code_of_others_and_says_what_it_left_out() {
    let (database, mut admin) = with_location();
    run(
        &mut admin,
        "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource) VALUES ('1', 1, 'created', '{}')",
    );
    // The administrator's own views are exported, unless they use objects of other roles.
    run(&mut admin, "CREATE VIEW device AS SELECT * FROM patient");
    let _evil = planted(&mut admin, &database);
    run(
        &mut admin,
        "CREATE VIEW consent AS SELECT * FROM basic; CREATE VIEW claim AS SELECT * FROM patient WHERE evil('function')",
    );
    run(&mut admin, "TRUNCATE public.sprung");
    let app = database.role("app");
    run(
        &mut admin,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {app}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {app}"
        ),
    );
    let all = ["Patient", "Device", "Media"];
    let suspect = ["Basic", "Flag", "Goal", "List", "Slot", "Consent", "Claim", "Account"];
    // Policies do not apply to a superuser.
    for (mut client, suspect) in [(database.connect(), &suspect[..7]), (database.connect_as(&app), &suspect[..])] {
        let status = done(&mut client, &json!({}));
        for resource_type in all {
            assert_eq!(ids(&mut client, &status, resource_type), ["1"], "{resource_type}: {status}");
        }
        assert_eq!(rows(&mut admin, "SELECT * FROM public.sprung"), [""; 0]);
        let listed: Vec<_> =
            status["output"].as_array().unwrap().iter().map(|file| file["type"].as_str().unwrap()).collect();
        let file = &status["error"][0];
        assert_eq!((&file["type"], &file["count"]), (&json!("OperationOutcome"), &json!(suspect.len())), "{status}");
        let errors = String::from_utf8(download(&mut client, &file["url"])).unwrap();
        let outcomes: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for resource_type in suspect {
            assert!(!listed.contains(resource_type), "{status}");
            let of_type = |outcome: &&Value| {
                outcome["issue"][0]["diagnostics"]
                    .as_str()
                    .unwrap()
                    .starts_with(&format!("{resource_type} is left out"))
            };
            assert_eq!(outcomes.iter().filter(of_type).count(), 1, "{resource_type}: {errors}");
        }
    }
    // A caller who names a type trusts it.
    let named = done(&mut admin, &json!({"_type": "Basic"}));
    assert_eq!((ids(&mut admin, &named, "Basic"), &named["error"]), (vec!["1".to_owned()], &json!([])));
    assert_ne!(value(&mut admin, "SELECT count(*) FROM public.sprung"), "0");
}

#[test]
fn an_index_that_others_make_while_the_export_runs_has_it_begin_anew_without_their_table() {
    let (database, mut admin) = with_location();
    run(
        &mut admin,
        "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource) VALUES ('1', 1, 'created', '{}')",
    );
    let mut evil = planted(&mut admin, &database);
    // Views come one after the other: the administrator's own waits, and then one that reads what is another's.
    let gate = close_gate(&database);
    run(
        &mut admin,
        &format!(
            "CREATE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
               WHILE (pg_stat_file('{}', true)).size IS NOT NULL LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN true; END $$;
             CREATE VIEW device AS SELECT * FROM patient WHERE gate();
             CREATE VIEW encounter AS SELECT * FROM media",
            database.path("gate").display()
        ),
    );
    let mut client = database.connect();
    let id = export(&mut client, &json!({}));
    wait_for_readers(&mut client, 1);
    run(&mut evil, "CREATE INDEX ON media ((evil_fixed('index')))");
    run(&mut admin, "TRUNCATE public.sprung");
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(rows(&mut admin, "SELECT * FROM public.sprung"), [""; 0]);
    assert_eq!(ids(&mut client, &status, "Device"), ["1"]);
    let errors = String::from_utf8(download(&mut client, &status["error"][0]["url"])).unwrap();
    assert!(errors.contains("Encounter is left out") && errors.contains("Media is left out"), "{errors}");
    assert!(database.cluster().log().contains("would now run code of another role"));
}

#[test]
fn a_table_that_becomes_a_view_of_another_while_the_export_waits_is_left_out() {
    let (database, mut admin) = with_location();
    run(
        &mut admin,
        "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource) VALUES ('1', 1, 'created', '{}')",
    );
    let mut evil = planted(&mut admin, &database);
    // The first table by name: the job waits for it, and holds none of the others yet.
    run(&mut admin, "BEGIN; LOCK TABLE account IN ACCESS EXCLUSIVE MODE");
    let mut client = database.connect();
    let id = export(&mut client, &json!({}));
    wait_for("the job to wait", || {
        value(
            &mut client,
            "SELECT EXISTS (SELECT FROM pg_stat_activity a JOIN pg_locks l USING (pid)
             WHERE a.datname = current_database() AND backend_type = 'fhir_bulk job worker' AND NOT l.granted)",
        ) == "t"
    });
    run(
        &mut evil,
        "ALTER TABLE media RENAME TO media_before; CREATE VIEW media AS SELECT * FROM media_before WHERE evil('late')",
    );
    run(&mut admin, "COMMIT");
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(rows(&mut admin, "SELECT * FROM public.sprung"), [""; 0]);
    let errors = String::from_utf8(download(&mut client, &status["error"][0]["url"])).unwrap();
    assert!(errors.contains("Media is left out"), "{errors}");
}

#[test]
fn no_level_of_an_export_reads_a_table_that_nobody_named_and_that_runs_code_of_others() {
    let (database, mut admin) = with_location();
    run(
        &mut admin,
        r#"SELECT bulk_create_table('Provenance'); SELECT bulk_create_table('Patient'); SELECT bulk_create_table('Coverage');
           DROP TABLE coverage_history;
           INSERT INTO patient (id, txid, status, resource) VALUES ('1', 1, 'created', '{}');
           INSERT INTO provenance (id, txid, status, resource)
               VALUES ('v', 1, 'created', '{"target": [{"resourceType": "AdverseEvent", "id": "1"}]}')"#,
    );
    let mut evil = planted(&mut admin, &database);
    let of_patient = "SELECT id, txid, cts, ts, resource_type, status, resource FROM patient WHERE evil('level')";
    for name in ["\"group\"", "adverseevent", "coverage_history", "practitioner"] {
        run(&mut evil, &format!("CREATE VIEW {name} AS {of_patient}; GRANT SELECT ON {name} TO PUBLIC"));
    }
    run(&mut admin, "TRUNCATE public.sprung; SET fhir_bulk.export_extras = 'Practitioner'");
    let group = json!({"level": "group", "group": "1"});
    let refused = fails(&mut admin, &export_sql(&group));
    assert_error_with_hint(&refused, "42501", &["Group", "view"]);
    for request in [
        json!({"level": "patient"}),
        json!({"level": "patient", "patient": "1"}),
        json!({"level": "patient", "_type": "Provenance,Patient"}),
        json!({"level": "patient", "_since": "2020-01-01"}),
        json!({"_since": "2020-01-01"}),
    ] {
        let status = done(&mut admin, &request);
        assert_eq!(ids(&mut admin, &status, "Patient"), ["1"], "{request}");
    }
    assert_eq!(rows(&mut admin, "SELECT * FROM public.sprung"), [""; 0]);
    // A caller who names a type trusts it.
    let mut named = group.clone();
    named["_type"] = "Group,Patient".into();
    done(&mut admin, &named);
    assert_ne!(value(&mut admin, "SELECT count(*) FROM public.sprung"), "0");
}

#[test]
fn a_look_for_the_code_of_others_reads_what_belongs_to_the_tables_and_not_the_whole_catalogue() {
    let (_database, mut client) = with_location();
    let columns: Vec<_> = (1..=200).map(|number| format!("c{number} int DEFAULT 1")).collect();
    let made: String = (1..=40).map(|number| format!("CREATE TABLE many_{number} ({});", columns.join(", "))).collect();
    run(&mut client, &format!("SELECT bulk_create_table('Patient'), bulk_create_table('Observation'); {made}"));
    run(&mut client, "INSERT INTO patient (id, txid, status, resource) VALUES ('1', 1, 'created', '{}')");
    let mut rows_read = |types: &str| -> i64 {
        let asked = export_sql(&json!({"level": "patient", "_type": types, "patient": ["Patient/1"]}));
        // A session that knows the tables by now.
        run(&mut client, &asked);
        run(&mut client, "BEGIN");
        run(&mut client, &asked);
        let read = "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_sys_tables";
        let read = value(&mut client, read).parse().unwrap();
        run(&mut client, "ROLLBACK");
        read
    };
    // The patients' table is read for both, and looked at only where it is not named.
    let (with_look, without) = (rows_read("Observation"), rows_read("Observation,Patient"));
    assert!(with_look - without < 1000, "{with_look} and {without} rows of the catalogue");
}
