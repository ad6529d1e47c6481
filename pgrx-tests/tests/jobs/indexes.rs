//! `disableIndexes`: the indexes of a table are gone while an import runs, and there again however it ends.

use crate::job::{
    allow, allowed, finish, import_sql, import_with, importer, inputs, server, set, status, wait_for_status,
    wait_for_total, wait_for_workers_to_end, wait_until_waiting, worker,
};
use crate::source::Stalling;
use crate::support::{assert_error, assert_error_with_hint, count, fails, patients, rows, run, value};
use crate::survival::reconnect;
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::{Value, json};

/// Indexes with all that an index can have, and some that must stay.
const INDEXES: &str = r#"
    SELECT bulk_create_table('Patient');
    CREATE SCHEMA "My opclasses"; CREATE FUNCTION "My opclasses".family(jsonb) RETURNS text IMMUTABLE LANGUAGE sql
        AS $$ SELECT $1 -> 'name' -> 0 ->> 'family' $$;
    CREATE INDEX all_paths ON patient USING gin (resource jsonb_path_ops) WITH (fastupdate = off);
    CREATE INDEX "by Name" ON patient ("My opclasses".family(resource) COLLATE "C" DESC NULLS LAST, (resource ->> 'birthDate'))
        INCLUDE (ts) WITH (fillfactor = 70) WHERE status <> 'deleted';
    COMMENT ON INDEX "by Name" IS 'It''s \ by name';
    ALTER INDEX "by Name" ALTER COLUMN 1 SET STATISTICS 500;
    CREATE INDEX by_ts ON patient (ts); ALTER TABLE patient CLUSTER ON by_ts;
    CREATE UNIQUE INDEX unique_too ON patient (id, ts);
    ALTER TABLE patient ADD CONSTRAINT alone EXCLUDE USING btree (id WITH =)"#;

/// All that the catalogue says of the indexes of `patient`.
fn indexes(client: &mut Client) -> Vec<String> {
    rows(
        client,
        "SELECT pg_get_indexdef(i.indexrelid), i.indisclustered, i.indisvalid, c.reloptions, t.spcname,
             pg_get_userbyid(c.relowner), obj_description(c.oid, 'pg_class'),
             (SELECT string_agg(a.attstattarget::text, ',' ORDER BY attnum) FROM pg_attribute a WHERE attrelid = c.oid)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
         WHERE i.indrelid = 'patient'::regclass ORDER BY 1",
    )
}

/// Those that stay.
fn names(client: &mut Client) -> String {
    value(
        client,
        "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = 'patient'::regclass",
    )
}

const STAY: &str = "alone patient_pkey unique_too";

fn disabling() -> Value {
    json!({"disableIndexes": true})
}

/// An import that has committed 2,000 of 4,000 patients without indexes, and waits for its source.
fn under_way(database: &Database, client: &mut Client, id: &str) -> Stalling {
    run(client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import_with(client, id, &[("Patient", &source.url())], disabling());
    wait_for_total(client, id, 2000);
    wait_until_waiting(&mut database.connect(), "Extension");
    source
}

#[test]
fn indexes_come_back_as_they_were_before_the_import_is_over() {
    let (database, mut client) = allowed();
    run(&mut client, INDEXES);
    run(&mut client, "SET allow_in_place_tablespaces = on");
    run(&mut client, &format!("CREATE TABLESPACE {} LOCATION ''", database.name()));
    run(&mut client, &format!("CREATE INDEX elsewhere ON patient (txid) TABLESPACE {}", database.name()));
    let before = indexes(&mut client);
    let source = under_way(&database, &mut client, "job");
    assert_eq!(names(&mut client), STAY);
    let shown = status(&mut client, "job");
    let missing = ["all_paths", "by Name", "by_ts", "elsewhere"];
    assert_eq!(
        shown["disabledIndexes"],
        json!(missing.map(|name| json!({"table": "patient", "name": name}))),
        "{shown}"
    );
    assert_eq!(rows(&mut client, "SELECT index_name FROM bulk_disabled_indexes ORDER BY 1"), missing);
    // What makes one waits for this session.
    let mut held = database.connect();
    run(&mut held, "BEGIN; UPDATE patient SET txid = txid WHERE id = 'p-1'");
    source.go_on();
    wait_for("an index to be made", || {
        count(
            &mut client,
            "SELECT count(*) FROM pg_locks WHERE relation = 'patient'::regclass AND mode = 'ShareLock' AND NOT granted",
        ) > 0
    });
    let making = status(&mut client, "job");
    assert_eq!((&making["status"], inputs(&making)), (&json!("active"), vec!["finished 4000".to_owned()]));
    run(&mut held, "COMMIT");
    let ended = finish(&mut client, "job");
    assert_eq!((&ended["status"], ended.get("disabledIndexes")), (&json!("finished"), None));
    assert_eq!(indexes(&mut client), before);
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_disabled_indexes"), [""; 0]);
    assert_eq!(rows(&mut client, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
    run(&mut client, "DROP INDEX elsewhere");
    run(&mut client, &format!("DROP TABLESPACE {}", database.name()));
}

#[test]
fn indexes_come_back_after_a_failure_and_after_a_cancel() {
    let (database, mut client) = allowed();
    run(&mut client, INDEXES);
    let before = indexes(&mut client);
    let broken = database.file("broken", patients(1..=10) + "{");
    import_with(&mut client, "failed", &[("Patient", &broken)], disabling());
    assert_eq!(finish(&mut client, "failed")["status"], "failed");
    assert_eq!(indexes(&mut client), before);
    let _source = under_way(&database, &mut client, "cancelled");
    assert_eq!(names(&mut client), STAY);
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('cancelled')"), "t");
    wait_for("the indexes", || indexes(&mut client) == before);
    assert_eq!(status(&mut client, "cancelled")["status"], "cancelled");
    wait_for_workers_to_end(&database);
}

/// While one worker drops them, others look for what there is to drop.
#[test]
fn inputs_that_begin_at_once_share_one_drop() {
    let (database, _) = allowed();
    let mut client = set(&database, "fhir_bulk.import_workers = 6");
    run(&mut client, INDEXES);
    let before = indexes(&mut client);
    let urls: Vec<_> =
        (0..6).map(|n| database.file(&format!("part-{n}"), patients(n * 10 + 1..=n * 10 + 10))).collect();
    let all: Vec<_> = urls.iter().map(|url| ("Patient", url.as_str())).collect();
    for number in 0..15 {
        let id = format!("job-{number}");
        import_with(&mut client, &id, &all, disabling());
        let ended = finish(&mut client, &id);
        assert_eq!(inputs(&ended), ["finished 10"; 6], "{ended}");
        assert_eq!(indexes(&mut client), before);
    }
}

#[test]
fn two_imports_share_one_drop_and_the_last_one_makes_the_indexes_again() {
    let (database, mut client) = allowed();
    run(&mut client, INDEXES);
    let before = indexes(&mut client);
    let source = under_way(&database, &mut client, "first");
    let url = database.file("more", patients(5001..=6000));
    import_with(&mut client, "second", &[("Patient", &url)], disabling());
    assert_eq!(finish(&mut client, "second")["status"], "finished");
    assert_eq!(names(&mut client), STAY);
    source.go_on();
    finish(&mut client, "first");
    assert_eq!(indexes(&mut client), before);
}

/// At three moments that locks and the source choose: before the drop, in the middle, and while the indexes are made.
#[test]
fn indexes_come_back_after_the_server_was_killed_at_any_moment() {
    for moment in ["before", "between", "after"] {
        let database = server(&[]);
        allow(&database);
        let mut client = database.connect();
        run(&mut client, INDEXES);
        let before = indexes(&mut client);
        let source = match moment {
            "before" => {
                let mut reader = database.connect();
                run(&mut reader, "BEGIN; SELECT FROM patient");
                let source = Stalling::new(patients(1..=4000), 0.6);
                import_with(&mut client, "job", &[("Patient", &source.url())], disabling());
                wait_until_waiting(&mut client, "Lock");
                database.cluster().kill_server();
                source
            }
            _ => {
                let source = under_way(&database, &mut client, "job");
                let mut held = database.connect();
                if moment == "after" {
                    run(&mut held, "BEGIN; UPDATE patient SET txid = txid WHERE id = 'p-1'");
                    source.go_on();
                    wait_until_waiting(&mut client, "Lock");
                    assert_eq!(inputs(&status(&mut client, "job")), ["finished 4000"]);
                }
                database.cluster().kill_server();
                source
            }
        };
        database.cluster().start_server();
        let mut client = reconnect(&database);
        assert_eq!(names(&mut client) == STAY, moment != "before", "{moment}");
        source.go_on();
        let ended = finish(&mut client, "job");
        assert_eq!(inputs(&ended), ["finished 4000"], "{moment}: {ended}");
        assert_eq!(indexes(&mut client), before, "{moment}");
        assert_eq!(count(&mut client, "SELECT count(DISTINCT id) FROM patient"), 4000);
        drop(client);
        database.cluster().stop_server("fast");
    }
}

#[test]
fn a_worker_that_is_terminated_while_it_makes_an_index_is_followed_by_another() {
    let (database, _) = allowed();
    let mut client = set(&database, "fhir_bulk.import_workers = 1");
    run(&mut client, INDEXES);
    let before = indexes(&mut client);
    let source = under_way(&database, &mut client, "job");
    let mut held = database.connect();
    run(&mut held, "BEGIN; UPDATE patient SET txid = txid WHERE id = 'p-1'");
    source.go_on();
    wait_until_waiting(&mut client, "Lock");
    let making = worker(&mut client);
    assert_eq!(value(&mut client, &format!("SELECT pg_terminate_backend({making}, 10000)")), "t");
    run(&mut held, "COMMIT");
    assert_eq!(finish(&mut client, "job")["status"], "finished");
    assert_eq!(indexes(&mut client), before);
}

#[test]
fn an_index_that_cannot_be_made_again_is_told_and_made_when_it_can_be() {
    let (database, mut client) = allowed();
    run(&mut client, "SELECT bulk_create_table('Patient');
        CREATE INDEX number ON patient (((resource ->> 'multipleBirthInteger')::int)); CREATE INDEX by_ts ON patient (ts)");
    let before = indexes(&mut client);
    let bad = database
        .file("bad", patients(1..=10).replace("\"multipleBirthInteger\":7}", "\"multipleBirthInteger\":\"x\"}"));
    import_with(&mut client, "bad", &[("Patient", &bad)], disabling());
    let ended = finish(&mut client, "bad");
    assert_eq!(inputs(&ended), ["finished 10"], "{ended}");
    let told = &ended["disabledIndexes"];
    assert_eq!((told.as_array().unwrap().len(), &told[0]["name"]), (1, &json!("number")), "{ended}");
    assert!(told[0]["error"].as_str().unwrap().contains("integer"), "{ended}");
    let view = "SELECT table_name, index_name, definition LIKE 'CREATE INDEX number ON public.patient%', error ~ 'integer' FROM bulk_disabled_indexes";
    assert_eq!(rows(&mut client, view), ["patient|number|t|t"]);
    assert!(database.cluster().log().contains("could not make index \"number\" again"));
    // With the next import that has the right rows, it is there again.
    import_with(&mut client, "good", &[("Patient", &database.file("good", patients(1..=10)))], disabling());
    finish(&mut client, "good");
    assert_eq!(indexes(&mut client), before);
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_disabled_indexes"), 0);
    assert_eq!(finish(&mut client, "bad").get("disabledIndexes"), None);
}

#[test]
fn what_was_changed_meanwhile_is_not_undone() {
    let (database, mut client) = allowed();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'), bulk_create_table('Person');
        CREATE INDEX by_ts ON patient (ts); CREATE INDEX by_txid ON patient (txid); CREATE INDEX ON person (ts)",
    );
    let source = under_way(&database, &mut client, "job");
    let people = database.file("people", patients(1..=10).replace("Patient", "Person"));
    let other = Stalling::new(patients(1..=10).replace("Patient", "Person"), 0.5);
    import_with(&mut client, "gone", &[("Person", &people), ("Person", &other.url())], disabling());
    wait_for_status(&mut client, "gone", "the first", |status| status["inputs"][0]["status"] == "finished");
    // Committed before the table is asked for, which the worker has locked until it is told.
    run(&mut client, "SELECT bulk_import_cancel('gone')");
    run(&mut client, "DROP TABLE person");
    // What makes them waits for this session.
    let mut held = database.connect();
    run(&mut held, "BEGIN; UPDATE patient SET txid = txid WHERE id = 'p-1'");
    source.go_on();
    wait_until_waiting(&mut client, "Lock");
    run(&mut held, "CREATE INDEX by_ts ON patient (ts DESC); COMMIT");
    assert_eq!(finish(&mut client, "job")["status"], "finished");
    let definitions =
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'patient'::regclass ORDER BY 1";
    assert_eq!(
        rows(&mut client, definitions)[..2],
        [
            "CREATE INDEX by_ts ON public.patient USING btree (ts DESC)",
            "CREATE INDEX by_txid ON public.patient USING btree (txid)"
        ]
    );
    wait_for("nothing to be left", || {
        count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_dropped_index") == 0
    });
}

#[test]
fn only_who_owns_the_table_and_can_make_its_indexes_again_may_disable_them() {
    let (database, mut client) = allowed();
    let role = importer(&database, &mut client, "importer");
    run(&mut client, &format!("CREATE INDEX by_ts ON patient (ts); GRANT pg_read_server_files TO {role}"));
    let url = database.file("one", patients(1..=10));
    let ask = |id: &str| import_sql(id, &[("Patient", &url)], disabling());
    run(&mut client, &format!("SET ROLE {role}"));
    assert_error_with_hint(&fails(&mut client, &ask("foreign")), "42501", &["must be owner", "patient"]);
    run(
        &mut client,
        &format!(
            "RESET ROLE; REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER TABLE patient OWNER TO {role}; SET ROLE {role}"
        ),
    );
    assert_error_with_hint(&fails(&mut client, &ask("again")), "42501", &["by_ts", "again"]);
    run(&mut client, &format!("RESET ROLE; GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role}"));
    run(&mut client, &ask("own"));
    assert_eq!(finish(&mut client, "own")["status"], "finished");
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'by_ts'";
    assert_eq!(value(&mut client, owner), role);
    // An owner who is no owner any more when the job begins: the input fails, and nothing is dropped.
    run(&mut client, &format!("BEGIN; {}; RESET ROLE; ALTER TABLE patient OWNER TO postgres; COMMIT", ask("lost")));
    run(&mut client, &format!("SET ROLE {role}"));
    let lost = finish(&mut client, "lost");
    assert!(lost["inputs"][0]["error"].as_str().unwrap().contains("must be owner"), "{lost}");
    run(&mut client, "RESET ROLE");
    assert_eq!(value(&mut client, owner), "postgres");
    let untyped = json!({"disableIndexes": true, "inputs": [{"url": url}]});
    assert_error_with_hint(
        &fails(&mut client, &import_sql("untyped", &[], untyped)),
        "22023",
        &["disableIndexes", "resourceType"],
    );
    assert_error(
        &fails(&mut client, &import_sql("x", &[("Patient", &url)], json!({"disableIndexes": 1}))),
        "22023",
        &["disableIndexes"],
    );
}
