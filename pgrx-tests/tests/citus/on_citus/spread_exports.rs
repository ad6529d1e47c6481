//! Exports whose files the nodes write (`fhir_bulk.use_nodes`).

use super::faults::{fragile, place as fragile_place};
use super::kills::kill_while;
use super::spread::keep_busy;
use crate::exports::{done, dump, export, files, finish, ids, lines, status, with_location_on};
use crate::job::set;
use crate::nodes::{database, distributed, shared};
use crate::support::{assert_error, count, fails, load, patients, rows, run, value};
use fhir_bulk_tests::citus::Nodes;
use fhir_bulk_tests::kills::{self, Random};
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::{Value, json};

/// A database with distributed patients and devices, a folder for exports, and sessions that have the nodes write them.
fn spread() -> (Database, Client) {
    let database = database();
    let mut client = distributed(&database, "Patient");
    run(&mut client, "SELECT bulk_create_table('Device')");
    let (database, _) = with_location_on(database);
    let mut client = set(&database, "fhir_bulk.use_nodes = files");
    let devices = patients(1..=3000).replace("\"Patient\"", "\"Device\"");
    load(&mut client, &database.file("all", patients(1..=20_000) + &devices), "null, fhir => true");
    run(&mut client, "UPDATE patient SET status = 'deleted', ts = now() WHERE id LIKE 'p-3%'");
    (database, client)
}

/// How many parts of exports each worker has done.
fn parts(nodes: &Nodes, database: &Database) -> Vec<i64> {
    let parts = "SELECT count(*) FROM bulk_jobs WHERE kind = 'part' AND status = 'finished'";
    (0..2).map(|number| count(&mut nodes.on_worker(number, database), parts)).collect()
}

fn assert_is_dump(client: &mut Client, status: &Value, name: &str) {
    let (mut found, mut expected) = (lines(client, status, name), dump(client, name));
    found.sort();
    expected.sort();
    assert!(found == expected, "{name}: {} {}", found.len(), expected.len());
}

#[test]
fn the_files_of_all_nodes_have_what_a_dump_has() {
    let (database, mut client) = spread();
    for (number, request) in
        [json!({}), json!({"contentEncoding": "gzip"}), json!({"allowPartialManifests": true})].iter().enumerate()
    {
        let status = done(&mut client, request);
        for name in ["Patient", "Device"] {
            assert_is_dump(&mut client, &status, name);
        }
        assert!(status["error"].as_array().unwrap().is_empty(), "{status}");
        let done = parts(shared(), &database);
        assert!(done.iter().all(|of_node| *of_node > number as i64), "{done:?}");
    }
    // Both nodes have written files.
    let done = parts(shared(), &database);
    let filtered = done_ids(&mut client, &json!({"_type": "Patient", "_typeFilter": "Patient?_id=p-5,p-6,p-7000"}));
    assert_eq!(filtered, ["p-5", "p-6", "p-7000"]);
    let at = value(&mut client, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    load(&mut client, &database.file("new", patients(19_999..=20_010)), "null, fhir => true");
    assert_eq!(done_ids(&mut client, &json!({"_type": "Patient", "_since": at})).len(), 12);
    assert!(parts(shared(), &database).iter().zip(&done).all(|(after, before)| after > before));
    let patient = done_ids(&mut client, &json!({"level": "patient", "_type": "Patient"}));
    assert_eq!(patient.len() as i64, count(&mut client, "SELECT count(*) FROM patient WHERE status <> 'deleted'"));
}

fn done_ids(client: &mut Client, request: &Value) -> Vec<String> {
    let status = done(client, request);
    ids(client, &status, "Patient")
}

#[test]
fn small_files_of_many_shards_have_different_names_and_all_bytes_count() {
    let (_database, mut client) = spread();
    run(&mut client, "SET fhir_bulk.export_file_size = '64kB'");
    let status = done(&mut client, &json!({"_type": "Patient", "fileSizes": true}));
    let names: std::collections::BTreeSet<_> = status["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["url"].as_str().unwrap().split('?').next().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), status["output"].as_array().unwrap().len());
    assert!(names.len() > 20, "{names:?}");
    assert_is_dump(&mut client, &status, "Patient");
    run(&mut client, "SET fhir_bulk.export_max_bytes = 1500000");
    let id = export(&mut client, &json!({}));
    let failed = finish(&mut client, &id);
    assert!(failed["error"].as_str().unwrap().contains("1500000 bytes"), "{failed}");
}

#[test]
fn who_sees_some_rows_only_gets_them_from_the_coordinator() {
    let (database, mut client) = spread();
    let role = database.role("reader");
    for change in [
        &format!("GRANT SELECT ON patient, device TO {role}"),
        &format!("GRANT EXECUTE ON FUNCTION bulk_export TO {role}"),
        &format!("GRANT EXECUTE ON FUNCTION bulk_export_file TO {role}"),
        "ALTER TABLE patient ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON patient USING (id LIKE 'p-1%')",
    ] {
        run(&mut client, change);
    }
    let mut reader = database.connect_as(&role);
    let status = done(&mut reader, &json!({"_type": "Patient"}));
    let found = ids(&mut reader, &status, "Patient");
    assert_eq!(found.len(), 11_111);
    assert_eq!(parts(shared(), &database), [0, 0]);
    // Of the other table it sees all, and may not ask the nodes.
    let id = export(&mut reader, &json!({"_type": "Device"}));
    let failed = finish(&mut reader, &id);
    let error = failed["error"].as_str().unwrap();
    assert!(
        error.contains("node 127.0.0.1:") && error.contains("permission denied for function bulk_export_part"),
        "{error}"
    );
    for number in 0..2 {
        let grant = format!("GRANT EXECUTE ON FUNCTION bulk_export_part, bulk_export_part_cancel TO {role}");
        run(&mut shared().on_worker(number, &database), &grant);
    }
    run(&mut client, &format!("GRANT EXECUTE ON FUNCTION bulk_export_part, bulk_export_part_cancel TO {role}"));
    let status = done(&mut reader, &json!({"_type": "Device"}));
    assert_is_dump(&mut client, &status, "Device");
    // A right that is taken on one node, and not on the coordinator's table.
    let mut worker = shared().on_worker(1, &database);
    let shards = rows(
        &mut worker,
        "SELECT c.oid::regclass FROM pg_class c WHERE c.relname ~ '^device_\\d+$' AND c.relkind = 'r'",
    );
    for shard in shards {
        run(&mut worker, &format!("SET citus.enable_ddl_propagation = off; REVOKE ALL ON {shard} FROM {role}"));
    }
    let id = export(&mut reader, &json!({"_type": "Device"}));
    let error = finish(&mut reader, &id)["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&shared().workers[1].port().to_string()) && error.contains("permission denied"), "{error}");
}

#[test]
fn a_part_that_is_asked_for_by_hand_writes_nothing_but_the_exports_own_draft() {
    let (database, mut client) = spread();
    let other = done(&mut client, &json!({"_type": "Device"}));
    let before = files(&database);
    let location = value(&mut client, "SHOW fhir_bulk.export_location");
    let folder = other["jobId"].as_str().unwrap();
    let part = |changes: &[(&str, Value)]| {
        let mut part = json!({
            "id": "part-00000000", "location": location, "owner": "0123456789abcdef", "folder": folder,
            "attempt": "00000000-0000-0000-0000-000000000000", "file_bytes": 1, "gzip": null, "max_bytes": null,
            "kickoff": {"types": ["Patient"], "elements": [], "gzip": false, "single": false, "url": ""},
            "units": [{"resource_type": "Patient", "shards": [1], "numbers": {"first": 1, "step": 1}}],
        });
        for (name, value) in changes {
            part[*name] = value.clone();
        }
        format!("SELECT bulk_export_part('{part}')")
    };
    let mut worker = shared().on_worker(0, &database);
    for (changes, state, piece) in [
        (vec![], "55000", "draft"),
        (vec![("location", json!("file:///var/tmp"))], "55000", "elsewhere"),
        (vec![("folder", json!("../../../../../../tmp"))], "22023", "folder"),
        (vec![("owner", json!("../0123456789"))], "22023", "owner"),
        (vec![("id", json!(folder))], "22023", "id"),
        (
            vec![("units", json!([{"resource_type": "../x", "shards": [1], "numbers": {"first": 1, "step": 1}}]))],
            "22023",
            "../x",
        ),
        (vec![("units", json!("x"))], "22023", "part of an export"),
    ] {
        assert_error(&fails(&mut worker, &part(&changes)), state, &[piece]);
    }
    assert_eq!(files(&database), before);
    let nobody = database.role("nobody");
    let mut nobody = shared().workers[0].connect(&nobody, database.name());
    assert_error(&fails(&mut nobody, &part(&[])), "42501", &["bulk_export_part"]);
}

#[test]
fn no_shard_is_read_while_it_runs_code_of_another_role() {
    let (database, mut client) = spread();
    let evil = database.role("evil");
    let mut worker = shared().on_worker(1, &database);
    // All shards of a type are looked at together.
    let last = "SELECT max(c.oid)::regclass FROM pg_class c WHERE c.relname ~ '^patient_\\d+$' AND c.relkind = 'r'";
    let shard = value(&mut worker, last);
    run(
        &mut worker,
        &format!(
            "SET citus.enable_ddl_propagation = off; SET citus.enable_manual_changes_to_shards = on;
             CREATE FUNCTION fixed(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
               $$ BEGIN RAISE LOG 'fixed has run'; RETURN $1; END $$;
             CREATE INDEX evil ON {shard} (fixed('index')); ALTER FUNCTION fixed OWNER TO {evil}"
        ),
    );
    let begun = shared().workers[1].log().matches("fixed has run").count();
    let id = export(&mut client, &json!({}));
    wait_for("the node to find it", || {
        shared().workers[1]
            .log()
            .contains("reading Patient would now run code of another role: it uses function public.fixed(text)")
    });
    assert_eq!(shared().workers[1].log().matches("fixed has run").count(), begun);
    run(&mut worker, "DROP INDEX evil");
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    assert_is_dump(&mut client, &status, "Patient");
}

#[test]
fn a_node_with_another_folder_is_named() {
    let (database, mut client) = spread();
    let mut worker = shared().on_worker(1, &database);
    run(
        &mut worker,
        &format!(
            "SET citus.enable_ddl_propagation = off;
             ALTER DATABASE {} SET fhir_bulk.export_location = 'file:///var/tmp/elsewhere'",
            database.name()
        ),
    );
    let id = export(&mut client, &json!({}));
    let error = finish(&mut client, &id)["error"].as_str().unwrap().to_owned();
    let port = shared().workers[1].port();
    assert!(error.contains(&format!("node 127.0.0.1:{port}")) && error.contains("elsewhere"), "{error}");
    wait_for("the files to be removed", || files(&database).is_empty());
}

#[test]
fn a_cancel_ends_the_parts_and_removes_the_files() {
    let (database, mut client) = spread();
    // The parts of one node wait for its workers, which have something else to do.
    let mut busy = keep_busy(shared(), &database);
    let id = export(&mut client, &json!({}));
    wait_for("the other node to have written its files", || {
        parts(shared(), &database)[0] > 0 && status(&mut client, &id)["status"] == "processing"
    });
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    assert_eq!(value(&mut busy, "SELECT bulk_import_cancel('busy')"), "t");
    wait_for("the files to be removed", || {
        status(&mut client, &id);
        files(&database).is_empty()
    });
    let active = "SELECT count(*) FROM bulk_jobs WHERE status = 'active'";
    for number in 0..2 {
        assert_eq!(count(&mut shared().on_worker(number, &database), active), 0);
    }
}

#[test]
fn a_coordinator_that_ends_while_it_waits_for_a_node_has_not_failed_the_export() {
    let nodes = fragile();
    let (database, _) = fragile_place(&nodes);
    let mut client = set(&database, "fhir_bulk.use_nodes = files");
    load(&mut client, &database.file("all", patients(1..=1000)), "'Patient'");
    let mut busy = keep_busy(&nodes, &database);
    let id = export(&mut client, &json!({"_type": "Patient"}));
    wait_for("the other node to have written its files", || parts(&nodes, &database)[0] > 0);
    // Its worker is told by Citus, which raises an error.
    nodes.coordinator.kill_postmaster();
    nodes.coordinator.start_server();
    let mut client = database.connect();
    assert_eq!(value(&mut busy, "SELECT bulk_import_cancel('busy')"), "t");
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(ids(&mut client, &status, "Patient").len(), 1000);
}

#[test]
fn exports_beside_moves_have_every_resource_once() {
    let (database, mut client) = spread();
    let expected = count(&mut client, "SELECT count(*) FROM patient WHERE status <> 'deleted'");
    let [first, second] = shared().workers.map(|worker| worker.port());
    let mut mover = database.connect();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = fhir_bulk_tests::SetAtEnd(&over);
        scope.spawn(|| {
            while !over.0.load(std::sync::atomic::Ordering::Relaxed) {
                let shard = rows(
                    &mut mover,
                    "SELECT shardid, nodeport FROM citus_shards WHERE table_name = 'patient'::regclass ORDER BY random() LIMIT 1",
                );
                let (shard, from) = shard[0].split_once('|').unwrap();
                let to = if from == first.to_string() { second } else { first };
                run(
                    &mut mover,
                    &format!("SELECT citus_move_shard_placement({shard}, '127.0.0.1', {from}, '127.0.0.1', {to}, 'block_writes')"),
                );
            }
        });
        for _ in 0..3 {
            let found = done_ids(&mut client, &json!({"_type": "Patient"}));
            assert_eq!(found.len() as i64, expected);
            assert!(found.windows(2).all(|pair| pair[0] != pair[1]));
        }
    });
}

#[test]
fn kills_of_each_server_at_random_moments_leave_a_whole_export_and_no_other_files() {
    let mut random = Random::from_environment();
    let kills = kills::number();
    let nodes = fragile();
    let (database, _) = fragile_place(&nodes);
    let mut client = set(&database, "fhir_bulk.use_nodes = files");
    load(&mut client, &database.file("all", patients(1..=60_000)), "'Patient'");
    let mut killed = 0;
    while killed < kills {
        let id = export(&mut client, &json!({"_type": "Patient", "contentEncoding": "gzip"}));
        killed = kill_while(&nodes, &database, (killed, kills), &mut random, 600, &mut client, |client| {
            ["pending", "processing"].iter().any(|now| status(client, &id)["status"] == *now)
        });
        let ended = finish(&mut client, &id);
        assert_eq!(ended["status"], "completed", "after {killed} kills: {ended}");
        let found = ids(&mut client, &ended, "Patient");
        assert_eq!(found.len(), 60_000, "after {killed} kills");
        assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "after {killed} kills");
    }
}
