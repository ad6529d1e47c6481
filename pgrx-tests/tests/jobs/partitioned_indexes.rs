//! `disableIndexes` on partitioned tables: a partitioned index goes and comes back as a whole.

use crate::job::{
    allow, allowed, finish, import_sql, import_with, importer, inputs, server, status, wait_for_total,
    wait_until_waiting,
};
use crate::source::Stalling;
use crate::support::{assert_error, count, fails, patients, rows, run, value};
use crate::survival::reconnect;
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::json;

/// Two levels of partitions, one with an index of its own; partitioned indexes whose parts differ in all that they may.
const TABLES: &str = r#"
    CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated');
    CREATE TABLE patient (id text PRIMARY KEY, txid bigint NOT NULL, cts timestamptz DEFAULT now(), ts timestamptz DEFAULT now(),
        resource_type text DEFAULT 'Patient', status resource_status NOT NULL, resource jsonb NOT NULL) PARTITION BY HASH (id);
    CREATE TABLE "Part 0" PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE part_1 PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY HASH (id);
    CREATE TABLE part_10 PARTITION OF part_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE part_11 PARTITION OF part_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE INDEX all_paths ON patient USING gin (resource jsonb_path_ops) WITH (fastupdate = off);
    COMMENT ON INDEX all_paths IS 'all';
    CREATE INDEX "by ON ONLY x" ON ONLY patient ((resource ->> 'birthDate') DESC, ts);
    CREATE INDEX "Own name" ON "Part 0" ((resource ->> 'birthDate') DESC, ts) WITH (fillfactor = 70);
    COMMENT ON INDEX "Own name" IS 'It''s part 0''s';
    ALTER INDEX "Own name" ALTER COLUMN 1 SET STATISTICS 500;
    ALTER TABLE "Part 0" CLUSTER ON "Own name";
    ALTER INDEX "by ON ONLY x" ATTACH PARTITION "Own name";
    CREATE INDEX named_1 ON part_1 ((resource ->> 'birthDate') DESC, ts);
    ALTER INDEX "by ON ONLY x" ATTACH PARTITION named_1;
    CREATE INDEX lonely ON part_11 (txid);
    CREATE UNIQUE INDEX unique_too ON patient (id, ts)"#;

/// All that the catalogue says of the indexes of `patient` and of its partitions, with which is a part of which.
fn indexes(client: &mut Client) -> Vec<String> {
    rows(
        client,
        "SELECT pg_get_indexdef(i.indexrelid), i.indisclustered, i.indisvalid, c.reloptions, t.spcname, h.inhparent::regclass,
             pg_get_userbyid(c.relowner), obj_description(c.oid, 'pg_class'),
             (SELECT string_agg(a.attstattarget::text, ',' ORDER BY attnum) FROM pg_attribute a WHERE attrelid = c.oid)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
             LEFT JOIN pg_inherits h ON h.inhrelid = c.oid
         WHERE i.indrelid IN (SELECT relid FROM pg_partition_tree('patient')) ORDER BY 1",
    )
}

/// How many are there that an import drops.
fn secondary(client: &mut Client) -> i64 {
    count(
        client,
        "SELECT count(*) FROM pg_index WHERE indrelid IN (SELECT relid FROM pg_partition_tree('patient'))
             AND NOT indisunique AND indexrelid <> 'lonely'::regclass",
    )
}

/// An import that has committed 2,000 of 4,000 patients without indexes, and waits for its source.
fn under_way(database: &Database, client: &mut Client) -> Stalling {
    run(client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import_with(client, "job", &[("Patient", &source.url())], json!({"disableIndexes": true}));
    wait_for_total(client, "job", 2000);
    wait_until_waiting(&mut database.connect(), "Extension");
    source
}

#[test]
fn partitioned_indexes_come_back_with_all_their_parts_as_they_were() {
    let (database, mut client) = allowed();
    run(&mut client, TABLES);
    run(&mut client, "SET allow_in_place_tablespaces = on");
    run(&mut client, &format!("CREATE TABLESPACE {} LOCATION ''", database.name()));
    let elsewhere = format!(
        "CREATE INDEX elsewhere ON patient (txid, ts) TABLESPACE {0}; CREATE INDEX here ON patient (ts, txid);
         ALTER INDEX part_10_ts_txid_idx SET TABLESPACE {0}",
        database.name()
    );
    run(&mut client, &elsewhere);
    let (before, number) = (indexes(&mut client), secondary(&mut client));
    assert_eq!(number, 4 * 5);
    let source = under_way(&database, &mut client);
    assert_eq!(secondary(&mut client), 0);
    let missing = ["all_paths", "by ON ONLY x", "elsewhere", "here"];
    assert_eq!(
        status(&mut client, "job")["disabledIndexes"],
        json!(missing.map(|name| json!({"table": "patient", "name": name})))
    );
    let shown = "SELECT index_name, definition FROM bulk_disabled_indexes ORDER BY 1";
    assert_eq!(rows(&mut client, shown)[3], "here|CREATE INDEX here ON public.patient USING btree (ts, txid)");
    source.go_on();
    let ended = finish(&mut client, "job");
    assert_eq!((&ended["status"], ended.get("disabledIndexes")), (&json!("finished"), None));
    assert_eq!(indexes(&mut client), before);
    assert_eq!(count(&mut client, "SELECT count(DISTINCT id) FROM patient"), 4000);
    run(&mut client, "DROP INDEX elsewhere, here");
    run(&mut client, &format!("DROP TABLESPACE {}", database.name()));
}

#[test]
fn partitioned_indexes_come_back_after_a_failure_and_after_a_cancel() {
    let (database, mut client) = allowed();
    run(&mut client, TABLES);
    let before = indexes(&mut client);
    let broken = database.file("broken", patients(1..=10) + "{");
    import_with(&mut client, "failed", &[("Patient", &broken)], json!({"disableIndexes": true}));
    assert_eq!(finish(&mut client, "failed")["status"], "failed");
    assert_eq!(indexes(&mut client), before);
    let _source = under_way(&database, &mut client);
    assert_eq!(secondary(&mut client), 0);
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('job')"), "t");
    wait_for("the indexes", || indexes(&mut client) == before);
}

#[test]
fn partitioned_indexes_come_back_after_the_server_was_killed() {
    let database = server(&[]);
    allow(&database);
    let mut client = database.connect();
    run(&mut client, TABLES);
    let before = indexes(&mut client);
    let source = under_way(&database, &mut client);
    database.cluster().kill_server();
    database.cluster().start_server();
    let mut client = reconnect(&database);
    assert_eq!(secondary(&mut client), 0);
    // Once more while they are made: what makes one waits for this session.
    let mut held = database.connect();
    run(&mut held, "BEGIN; UPDATE patient SET txid = txid WHERE id = 'p-1'");
    source.go_on();
    wait_for("an index to be made", || {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND NOT granted AND locktype = 'relation'";
        status(&mut client, "job");
        count(&mut client, waiting) > 0
    });
    assert_eq!(inputs(&status(&mut client, "job")), ["finished 4000"]);
    database.cluster().kill_server();
    database.cluster().start_server();
    let mut client = reconnect(&database);
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 4000"]);
    assert_eq!(indexes(&mut client), before);
    drop((client, held));
    database.cluster().stop_server("fast");
}

#[test]
fn only_who_owns_all_partitions_may_disable_the_indexes_of_a_table() {
    let (database, mut client) = allowed();
    run(&mut client, TABLES);
    let role = importer(&database, &mut client, "importer");
    run(
        &mut client,
        &format!(
            "GRANT pg_read_server_files TO {role}; ALTER TABLE patient OWNER TO {role}; ALTER TABLE part_1 OWNER TO {role};
             ALTER TABLE part_10 OWNER TO {role}; ALTER TABLE part_11 OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role};
             SET ROLE {role}"
        ),
    );
    let before = indexes(&mut client);
    let url = database.file("one", patients(1..=10));
    let ask = import_sql("job", &[("Patient", &url)], json!({"disableIndexes": true}));
    assert_error(&fails(&mut client, &ask), "42501", &["must be owner", "partitions"]);
    run(&mut client, &format!("RESET ROLE; ALTER TABLE \"Part 0\" OWNER TO {role}; SET ROLE {role}"));
    run(&mut client, &ask);
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 10"]);
    let owners = |rows: Vec<String>| rows.into_iter().map(|row| row.replace("|postgres|", &format!("|{role}|")));
    assert_eq!(indexes(&mut client), owners(before).collect::<Vec<_>>());
}
