//! Imports that the nodes do (`fhir_bulk.use_nodes`).

use super::faults::{fragile, place};
use super::importing::assert_patients;
use super::kills::{assert_versions, kill_while};
use crate::job::{finish, import, import_with, inputs, set, status, wait_for_status, wait_for_total, writer};
use crate::nodes::{database, distributed, shared, wait_for_recovery};
use crate::support::{count, load, patients, rows, run, value};
use fhir_bulk_tests::citus::Nodes;
use fhir_bulk_tests::http::{Server, ok};
use fhir_bulk_tests::kills::{self, Random};
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::json;
use std::sync::OnceLock;

/// A database with distributed patients, whose sessions have the nodes do imports.
fn spread() -> (Database, Client) {
    let database = database();
    let _ = distributed(&database, "Patient");
    let client = set(&database, "fhir_bulk.use_nodes = files");
    (database, client)
}

/// What the workers' own imports have stored, by worker.
fn stored(nodes: &Nodes, database: &Database) -> Vec<i64> {
    let stored = "SELECT COALESCE(sum(resources), 0)::bigint FROM bulk_jobs WHERE kind = 'import'";
    (0..2).map(|number| count(&mut nodes.on_worker(number, database), stored)).collect()
}

#[test]
fn each_node_imports_the_lines_of_its_shards_and_all_arrive_once() {
    let (database, mut client) = spread();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1500");
    let first = database.file("first", patients(1..=8000));
    // The id is elsewhere, twice, escaped.
    let second: String = (8001..=12_000)
        .map(|n| match n % 4 {
            0 => format!(r#"{{"multipleBirthInteger":{n},"x":{{"id":"y"}},"resourceType":"Patient","id":"p-{n}"}}"#),
            1 => format!(r#"{{"id":"other-{n}","resourceType":"Patient","multipleBirthInteger":{n},"id":"p-{n}"}}"#),
            2 => format!(r#"{{"id":"p\u002d{n}","resourceType":"Patient","multipleBirthInteger":{n}}}"#),
            _ => format!(r#" {{ "resourceType" : "Patient" , "\u0069d" : "p-{n}" , "multipleBirthInteger":{n}}}"#),
        } + "\n")
        .collect();
    let second = database.file("second", second);
    let mixed = patients(12_001..=14_000) + &patients(1..=3000).replace("\"Patient\"", "\"Device\"");
    let mixed = database.file("mixed", mixed);
    import(&mut client, "job", &[("Patient", &first), ("Patient", &second)]);
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 8000", "finished 4000"]);
    value(&mut client, &format!(r#"SELECT bulk_import('{{"id": "mixed", "inputs": [{{"url": "{mixed}"}}]}}')"#));
    assert_eq!(inputs(&finish(&mut client, "mixed")), ["finished 5000"]);
    assert_patients(&mut client, 14_000);
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT id) FROM device"), "3000|3000");
    let stored = stored(shared(), &database);
    assert_eq!(stored.iter().sum::<i64>(), 17_000);
    assert!(stored.iter().all(|of_node| *of_node > 5000), "{stored:?}");
    // They took their numbers from the coordinator: none was taken twice.
    let twice = "SELECT count(*) FROM (SELECT txid FROM patient GROUP BY txid HAVING count(DISTINCT ts) > 1) AS t";
    assert_eq!(value(&mut client, twice), "0");
    // Where Citus looks for a row, there it is.
    for number in [1, 77, 8001, 9003, 13_999] {
        assert_eq!(value(&mut client, &format!("SELECT count(*) FROM patient WHERE id = 'p-{number}'")), "1");
    }
    let progress =
        rows(&mut client, "SELECT read_bytes, all_bytes FROM bulk_job_inputs WHERE id = 'job' ORDER BY number");
    for line in progress {
        let (read, all) = line.split_once('|').unwrap();
        assert_eq!(read, all);
    }
}

#[test]
fn a_worker_may_have_the_job_and_does_its_part_of_it_beside() {
    let (database, mut client) = spread();
    let urls: Vec<_> =
        (0..5).map(|at| database.file(&format!("{at}"), patients(at * 1000 + 1..=at * 1000 + 1000))).collect();
    let urls: Vec<_> = urls.iter().map(|url| ("Patient", url.as_str())).collect();
    let mut worker = shared().on_worker(0, &database);
    import(&mut worker, "job", &urls);
    assert_eq!(inputs(&finish(&mut worker, "job")), ["finished 1000"; 5]);
    assert_patients(&mut client, 5000);
    // Five of its own, and its parts of them.
    assert_eq!(value(&mut worker, "SELECT count(*), sum(inputs_ended) FROM bulk_jobs"), "6|10");
    assert_eq!(count(&mut shared().on_worker(1, &database), "SELECT count(*) FROM bulk_jobs"), 5);
}

#[test]
fn known_resources_are_replaced_kept_left_or_refused_as_on_one_server() {
    let (database, mut client) = spread();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 700");
    let url = database.file("patients", patients(1..=5000));
    let changed = database.file("changed", patients(1..=2000).replace("\"1970", "\"1980") + &patients(2001..=5000));
    import(&mut client, "first", &[("Patient", &url)]);
    finish(&mut client, "first");
    import_with(&mut client, "second", &[("Patient", &url)], json!({"update": true}));
    assert_eq!(inputs(&finish(&mut client, "second")), ["finished 5000"]);
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT id) FROM patient_history"), "5000|5000");
    import_with(&mut client, "third", &[("Patient", &changed)], json!({"update": true, "skipUnchanged": true}));
    let ended = finish(&mut client, "third");
    assert_eq!((inputs(&ended), &ended["unchanged"]), (vec!["finished 5000".to_owned()], &json!(3000)), "{ended}");
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT (id, txid)) FROM patient_history"), "7000|7000");
    let more = database.file("more", patients(4990..=6000));
    import_with(&mut client, "fourth", &[("Patient", &more)], json!({"onConflict": "error"}));
    let ended = finish(&mut client, "fourth");
    assert_eq!(ended["status"], "failed");
    let error = ended["inputs"][0]["error"].as_str().unwrap();
    assert!(error.contains("node 127.0.0.1:") && error.contains("already"), "{error}");
    assert_eq!(stored(shared(), &database).iter().filter(|of_node| **of_node > 0).count(), 2);
}

#[test]
fn an_input_that_one_node_refuses_fails_and_names_line_and_node() {
    let (database, mut client) = spread();
    let url = database.file("bad", patients(1..=5000) + "{\"resourceType\":\"Patient\",\"id\":\"p-x\",}\n");
    import(&mut client, "job", &[("Patient", &url)]);
    let ended = finish(&mut client, "job");
    let error = ended["inputs"][0]["error"].as_str().unwrap();
    assert!(error.contains("line 5001") && error.contains("node 127.0.0.1:"), "{error}");
    // What else the nodes had of it has ended, too.
    wait_for("the parts to be over", || {
        let active = "SELECT count(*) FROM bulk_jobs WHERE status = 'active'";
        (0..2).all(|number| count(&mut shared().on_worker(number, &database), active) == 0)
    });
}

#[test]
fn policies_and_single_transactions_are_not_for_the_nodes() {
    let (database, mut client) = spread();
    let url = database.file("patients", patients(1..=3000));
    import_with(&mut client, "whole", &[("Patient", &url)], json!({"mode": "transaction"}));
    assert_eq!(inputs(&finish(&mut client, "whole")), ["finished 3000"]);
    let role = writer(&database, &mut client, "narrow", "bulk_import(jsonb, boolean)");
    for change in [
        &format!("GRANT pg_read_server_files TO {role}"),
        "ALTER TABLE patient ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON patient USING (true) WITH CHECK (id <> 'p-2999')",
    ] {
        run(&mut client, change);
    }
    let mut narrow = database.connect_as(&role);
    import(&mut narrow, "narrow", &[("Patient", &url)]);
    let ended = finish(&mut narrow, "narrow");
    assert!(ended["inputs"][0]["error"].as_str().unwrap().contains("row-level security"), "{ended}");
    assert_eq!(stored(shared(), &database), [0, 0]);
    assert_patients(&mut client, 3000);
}

#[test]
fn a_node_that_lacks_a_right_or_forbids_the_source_is_named() {
    let (database, mut client) = spread();
    let role = writer(&database, &mut client, "importer", "bulk_import(jsonb, boolean)");
    let body = patients(1..=2000);
    let server = Server::answering(ok(&body));
    let url = server.url("/patients");
    run(&mut client, &format!("ALTER DATABASE {} SET fhir_bulk.allowed_sources = '127.0.0.1'", database.name()));
    // What the coordinator allows is not what the second worker does.
    let [mut first, mut second] = [0, 1].map(|number| shared().on_worker(number, &database));
    run(
        &mut second,
        &format!(
            "SET citus.enable_ddl_propagation = off; ALTER DATABASE {} SET fhir_bulk.allowed_sources = 'https://example.org'",
            database.name()
        ),
    );
    let mut importer = database.connect_as(&role);
    let failed = |importer: &mut Client, id: &str| {
        import(importer, id, &[("Patient", &url)]);
        let ended = finish(importer, id);
        assert_eq!(ended["status"], "failed", "{ended}");
        ended["inputs"][0]["error"].as_str().unwrap().to_owned()
    };
    let error = failed(&mut importer, "no-right");
    assert!(
        error.contains("node 127.0.0.1:") && error.contains("permission denied for function bulk_import"),
        "{error}"
    );
    let grant = format!("GRANT EXECUTE ON FUNCTION bulk_import, bulk_import_cancel TO {role}");
    for node in [&mut first, &mut second] {
        run(node, &grant);
    }
    let error = failed(&mut importer, "forbidden");
    let port = shared().workers[1].port();
    assert!(error.contains(&format!("node 127.0.0.1:{port}")) && error.contains("allowed sources"), "{error}");
    run(&mut second, &format!("ALTER DATABASE {} SET fhir_bulk.allowed_sources = '127.0.0.1'", database.name()));
    import(&mut importer, "good", &[("Patient", &url)]);
    assert_eq!(inputs(&finish(&mut importer, "good")), ["finished 2000"]);
    // The nodes' own jobs are the role's, not the superuser's.
    let owner = format!("SELECT count(*) FROM bulk_jobs WHERE role <> '{role}'");
    assert_eq!([count(&mut first, &owner), count(&mut second, &owner)], [0, 0]);
    assert_patients(&mut client, 2000);
}

/// A superuser's session on a worker that has the rows of some patients: imports of its node wait for them.
fn hold_all(client: &mut Client, database: &Database, nodes: &Nodes, number: usize) -> Client {
    load(client, &database.file("held", patients(1..=50)), "'Patient'");
    let mut holder = nodes.on_worker(number, database);
    run(&mut holder, "SET citus.enable_manual_changes_to_shards = on");
    let shards = rows(
        &mut holder,
        "SELECT c.oid::regclass FROM pg_class c WHERE c.relname ~ '^patient_\\d+$' AND c.relkind = 'r'",
    );
    run(&mut holder, "BEGIN");
    for shard in shards {
        run(&mut holder, &format!("SELECT id FROM {shard} FOR UPDATE"));
    }
    holder
}

#[test]
fn a_cancel_ends_the_work_of_the_nodes() {
    let (database, mut client) = spread();
    let holder = hold_all(&mut client, &database, shared(), 1);
    let url = database.file("patients", patients(1..=20_000));
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    import(&mut client, "job", &[("Patient", &url)]);
    wait_for_total(&mut client, "job", 2000);
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('job')"), "t");
    let before = count(&mut client, "SELECT count(*) FROM patient");
    drop(holder);
    let ended = finish(&mut client, "job");
    assert_eq!(ended["status"], "cancelled");
    for number in 0..2 {
        let left = "SELECT count(*) FROM bulk_jobs WHERE status NOT IN ('cancelled', 'finished')";
        assert_eq!(count(&mut shared().on_worker(number, &database), left), 0);
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), before, "nothing more is committed");
}

#[test]
fn shards_that_move_meanwhile_lose_and_double_nothing() {
    let (database, mut client) = spread();
    let holder = hold_all(&mut client, &database, shared(), 1);
    let url = database.file("patients", patients(1..=20_000));
    run(&mut client, "SET fhir_bulk.import_commit_rows = 500");
    import_with(&mut client, "job", &[("Patient", &url)], json!({"update": true}));
    // The first worker is far when the second has stored nothing. Then all shards change places.
    wait_for_total(&mut client, "job", 5000);
    let [first, second] = shared().workers.map(|worker| worker.port());
    drop(holder);
    let shards = rows(
        &mut client,
        "SELECT shardid, nodeport FROM citus_shards WHERE table_name = 'patient'::regclass ORDER BY shardid",
    );
    for shard in shards {
        let (id, from) = shard.split_once('|').unwrap();
        let to = if from == first.to_string() { second } else { first };
        let mode = if id.ends_with('0') { "force_logical" } else { "block_writes" };
        run(
            &mut client,
            &format!("SELECT citus_move_shard_placement({id}, '127.0.0.1', {from}, '127.0.0.1', {to}, '{mode}')"),
        );
    }
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 20000"]);
    assert_patients(&mut client, 20_000);
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT id) FROM patient_history"), "50|50");
}

#[test]
fn an_import_waits_for_a_node_that_is_down_and_goes_on() {
    let nodes = fragile();
    let (database, _) = place(&nodes);
    let mut client = set(&database, "fhir_bulk.use_nodes = files");
    let url = database.file("patients", patients(1..=5000));
    nodes.workers[1].stop_server("immediate");
    import(&mut client, "job", &[("Patient", &url)]);
    let port = nodes.workers[1].port().to_string();
    let waits = |line: &str| line.contains("goes on") && line.contains(&port);
    wait_for("the import to wait", || nodes.coordinator.log().lines().any(waits));
    assert_eq!(status(&mut client, "job")["status"], "active");
    nodes.workers[1].start_server();
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 5000"]);
    assert_patients(&mut client, 5000);
}

/// Has the second worker begin nothing: an import `busy` of its own keeps all that could. Returns a session there.
pub fn keep_busy(nodes: &Nodes, database: &Database) -> Client {
    static HANGING: OnceLock<Server> = OnceLock::new();
    let hanging = HANGING.get_or_init(|| Server::new(|_, stream| fhir_bulk_tests::http::hold(stream)));
    let allow = format!("ALTER DATABASE {} SET fhir_bulk.allowed_sources = '127.0.0.1'", database.name());
    run(&mut nodes.on_worker(1, database), &format!("SET citus.enable_ddl_propagation = off; {allow}"));
    let mut second = nodes.on_worker(1, database);
    run(&mut second, "SET fhir_bulk.use_nodes = off");
    import(&mut second, "busy", &[("Patient", &hanging.url("/one")), ("Patient", &hanging.url("/two"))]);
    wait_for_status(&mut second, "busy", "has begun", |status| {
        status["inputs"].as_array().unwrap().iter().all(|input| input["status"] == "active")
    });
    second
}

#[test]
fn a_node_that_is_removed_meanwhile_is_named_and_one_that_is_added_has_its_part() {
    let nodes = fragile();
    let (database, _) = place(&nodes);
    let mut client = set(&database, "fhir_bulk.use_nodes = files");
    let mut second = keep_busy(&nodes, &database);
    let url = database.file("patients", patients(1..=5000));
    import(&mut client, "job", &[("Patient", &url)]);
    wait_for_total(&mut client, "job", 1000);
    let [first, port] = nodes.workers.map(|worker| worker.port());
    let shards = format!(
        "SELECT citus_move_shard_placement(shardid, '127.0.0.1', {port}, '127.0.0.1', {first}, 'block_writes')
         FROM citus_shards WHERE table_name = 'patient'::regclass AND nodeport = {port}"
    );
    run(&mut client, &shards);
    run(&mut client, &format!("SELECT citus_remove_node('127.0.0.1', {port})"));
    let ended = finish(&mut client, "job");
    let error = ended["inputs"][0]["error"].as_str().unwrap();
    assert!(error.contains(&port.to_string()) && error.contains("no longer a node"), "{error}");
    assert_eq!(value(&mut second, "SELECT bulk_import_cancel('busy')"), "t");

    // Without it one node has all shards; again with it, it has its part.
    import(&mut client, "one", &[("Patient", &url)]);
    assert_eq!(inputs(&finish(&mut client, "one")), ["finished 5000"]);
    assert_patients(&mut client, 5000);
    run(&mut client, &format!("SELECT citus_add_node('127.0.0.1', {port})"));
    run(
        &mut client,
        &shards.replace(&format!("nodeport = {port}"), &format!("nodeport = {first} AND shardid % 2 = 0")).replace(
            &format!("'127.0.0.1', {port}, '127.0.0.1', {first}"),
            &format!("'127.0.0.1', {first}, '127.0.0.1', {port}"),
        ),
    );
    let more = database.file("more", patients(5001..=9000));
    import(&mut client, "two", &[("Patient", &more)]);
    assert_eq!(inputs(&finish(&mut client, "two")), ["finished 4000"]);
    assert_patients(&mut client, 9000);
    assert!(stored(&nodes, &database)[1] > 1000);
}

#[test]
fn kills_of_each_server_at_random_moments_lose_and_double_nothing() {
    let mut random = Random::from_environment();
    let kills = kills::number();
    const NUMBER: usize = 30_000;
    let nodes = fragile();
    let (database, _) = place(&nodes);
    let mut client = set(&database, "fhir_bulk.use_nodes = files");
    let urls = [patients(1..=NUMBER / 2), patients(NUMBER / 2 + 1..=NUMBER)];
    let urls: Vec<_> = urls.iter().enumerate().map(|(at, lines)| database.file(&format!("{at}"), lines)).collect();
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        run(&mut client, "SET fhir_bulk.import_commit_rows = 300");
        // The first round creates, later ones replace and keep what they replace.
        rounds += 1;
        let id = format!("job-{rounds}");
        let both: Vec<_> = urls.iter().map(|url| ("Patient", url.as_str())).collect();
        import_with(&mut client, &id, &both, json!({"update": true}));
        killed = kill_while(&nodes, &database, (killed, kills), &mut random, 1500, &mut client, |client| {
            status(client, &id)["status"] == "active"
        });
        let ended = finish(&mut client, &id);
        let half = format!("finished {}", NUMBER / 2);
        assert_eq!(inputs(&ended), [half.clone(), half], "after {killed} kills: {ended}");
        wait_for_recovery(&nodes, &database);
        assert_versions(&mut client, NUMBER, rounds, killed);
    }
    // Some kills came while the nodes were at work.
    assert!(stored(&nodes, &database).iter().all(|of_node| *of_node > 0));
}
