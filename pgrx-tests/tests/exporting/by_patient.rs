//! Exports that are organized by patient.

use crate::job::{
    close_gate, done, download, export, export_sql, files, finish, gated, wait_for_no_files, wait_for_readers,
    with_location_on,
};
use crate::levels::{loaded, patient, reference};
use crate::support::{assert_error_with_hint, count, fails, load, run};
use fhir_bulk_tests::{Client, Cluster, gunzip, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Each patient's resources, as `Type/id` in the order of the files. A block that goes on in another file is put together.
type Blocks = Vec<(String, Vec<String>)>;

pub fn by_patient(mut request: Value) -> Value {
    request["organizeOutputBy"] = json!("Patient");
    request["fileSizes"] = json!(true);
    request
}

/// The blocks of an export: they begin with headers, files have as many lines as the manifest says, and a file whose last
/// block goes on names the file that begins with the rest of it.
fn blocks(client: &mut Client, status: &Value) -> Blocks {
    assert_eq!(status["outputOrganizedBy"], "Patient", "{status}");
    let mut rest_in = None;
    let mut blocks = Blocks::new();
    let files = status["output"].as_array().unwrap();
    let mut by_url: BTreeMap<&str, &Value> = files.iter().map(|file| (file["url"].as_str().unwrap(), file)).collect();
    let continued: BTreeSet<&str> = files.iter().filter_map(|file| file["continuesInFile"].as_str()).collect();
    let first = files.iter().map(|file| file["url"].as_str().unwrap()).filter(|url| !continued.contains(url));
    for url in first.collect::<Vec<_>>() {
        let mut next = Some(url);
        while let Some(url) = next {
            let file = by_url.remove(url).expect("a file that is in the manifest, once");
            assert_eq!(file.get("type"), None, "{file}");
            let mut bytes = download(client, &file["url"]);
            assert_eq!(bytes.len() as u64, file["fileSize"], "{file}");
            if bytes.starts_with(b"\x1F\x8B") {
                bytes = gunzip(&bytes);
            }
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.lines().count() as u64, file["count"], "{file}");
            for (number, line) in text.lines().enumerate() {
                let resource: Value = serde_json::from_str(line).unwrap();
                if resource["resourceType"] == "Parameters" {
                    let header = &resource["parameter"][0];
                    assert_eq!(header["name"], "header");
                    let of = header["valueReference"]["reference"].as_str().unwrap().to_owned();
                    if number == 0 && rest_in == Some(url) {
                        assert_eq!(blocks.last().unwrap().0, of, "the rest is of the same patient");
                    } else {
                        blocks.push((of, Vec::new()));
                    }
                } else {
                    assert!(number > 0, "a file begins with a header");
                    let (kind, id) = (resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
                    blocks.last_mut().unwrap().1.push(format!("{kind}/{id}"));
                }
            }
            next = file["continuesInFile"].as_str();
            rest_in = next;
        }
    }
    assert!(by_url.is_empty());
    let patients: BTreeSet<&String> = blocks.iter().map(|(patient, _)| patient).collect();
    assert_eq!(patients.len(), blocks.len(), "each patient has one block");
    blocks.sort();
    blocks
}

fn block(patient: &str, resources: &[&str]) -> (String, Vec<String>) {
    (format!("Patient/{patient}"), resources.iter().map(|name| (*name).to_owned()).collect())
}

/// Patients a and b, what belongs to each, to both, to one who is not there, and to nobody.
fn ward() -> Vec<Value> {
    let observation = |id: &str, subject: &str, performer: &str| {
        json!({"resourceType": "Observation", "id": id, "status": "final", "subject": reference(subject),
            "performer": [reference(performer)]})
    };
    let provenance = |id: &str, target: &str| json!({"resourceType": "Provenance", "id": id, "recorded": "2024-01-01T00:00:00Z", "target": [reference(target)]});
    vec![
        patient("a"),
        patient("b"),
        observation("o1", "Patient/a", "Practitioner/p"),
        observation("o2", "Patient/a", "Patient/a"),
        observation("both", "Patient/a", "Patient/b"),
        observation("gone", "Patient/absent", "Practitioner/p"),
        observation("nobody", "Device/d", "Practitioner/p"),
        json!({"resourceType": "Account", "id": "acc", "subject": [reference("Patient/b")]}),
        provenance("of-both", "Observation/both"),
        provenance("of-b", "Patient/b"),
        provenance("of-nobody", "Observation/nobody"),
        json!({"resourceType": "Organization", "id": "org"}),
        json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/b")}]}),
    ]
}

#[test]
fn a_block_has_its_header_the_patient_and_all_that_belongs_to_it() {
    let (_database, mut client) = loaded(&ward());
    let expected = [
        block("a", &["Patient/a", "Observation/both", "Observation/o1", "Observation/o2", "Provenance/of-both"]),
        block("absent", &["Observation/gone"]),
        block(
            "b",
            &["Patient/b", "Account/acc", "Group/g", "Observation/both", "Provenance/of-b", "Provenance/of-both"],
        ),
    ];
    for request in [json!({}), json!({"level": "patient"}), json!({"contentEncoding": "gzip"})] {
        let status = done(&mut client, &by_patient(request));
        assert_eq!(blocks(&mut client, &status), expected);
        assert_eq!(status["error"], json!([]), "{status}");
    }
    let only_b = [expected[2].clone()];
    let members = done(&mut client, &by_patient(json!({"level": "group", "group": "g"})));
    assert_eq!(blocks(&mut client, &members), only_b);
    let named = done(&mut client, &by_patient(json!({"level": "patient", "patient": "b"})));
    assert_eq!(blocks(&mut client, &named), only_b);
    let request = json!({"_type": "Observation", "_typeFilter": ["Observation?_id=both,gone"]});
    let filtered = done(&mut client, &by_patient(request));
    let expected =
        [block("a", &["Observation/both"]), block("absent", &["Observation/gone"]), block("b", &["Observation/both"])];
    assert_eq!(blocks(&mut client, &filtered), expected);
}

#[test]
fn what_is_refused_is_named_with_the_way_out() {
    let (_database, mut client) = loaded(&ward());
    let error = fails(&mut client, &export_sql(&json!({"organizeOutputBy": "Encounter"})));
    assert_error_with_hint(&error, "0A000", &["organizeOutputBy \"Encounter\" is not known"]);
    let request = json!({"includeAssociatedData": "LatestProvenanceResources"});
    let error = fails(&mut client, &export_sql(&by_patient(request.clone())));
    assert_error_with_hint(&error, "0A000", &["includeAssociatedData does not go with organizeOutputBy"]);
    let mut lenient = by_patient(request);
    lenient["lenient"] = json!(true);
    let status = done(&mut client, &lenient);
    assert_eq!(blocks(&mut client, &status).len(), 3);
    assert_eq!(status["error"][0]["count"], 1);
    let error = fails(&mut client, &export_sql(&by_patient(json!({"_type": "Organization"}))));
    assert_error_with_hint(&error, "0A000", &["belong to no patient: Organization"]);
}

#[test]
fn a_block_is_split_only_if_it_is_larger_than_a_file_and_the_files_are_chained() {
    let mut lines = vec![patient("large"), patient("small"), patient("tiny")];
    for (of, count) in [("large", 400), ("small", 3), ("tiny", 1)] {
        lines.extend((0..count).map(|number| {
            json!({"resourceType": "Observation", "id": format!("{of}-{number:03}"), "status": "final",
                "subject": reference(&format!("Patient/{of}")), "note": [{"text": "x".repeat(300)}]})
        }));
    }
    let (_database, mut client) = loaded(&lines);
    let whole = done(&mut client, &by_patient(json!({})));
    assert_eq!(whole["output"].as_array().unwrap().len(), 1);
    let whole = blocks(&mut client, &whole);
    // 64 kB is the least that a file is full with.
    for (bytes, is_chained) in [(1, true), (100 << 10, true), (1 << 20, false)] {
        let status = done(&mut client, &by_patient(json!({"_maximumFileSize": bytes})));
        let files = status["output"].as_array().unwrap();
        let chained = files.iter().filter(|file| !file["continuesInFile"].is_null()).count();
        assert_eq!(chained > 0, is_chained, "{status}");
        // Only the large one is split: what fits into a file is in one.
        let last = chained + 1;
        assert!(!is_chained || last == files.len(), "{status}");
        assert_eq!(blocks(&mut client, &status), whole);
    }
}

/// A server of its own: what it has among its temporary files and segments is of this test.
fn server(settings: &[&str]) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(settings)))
}

/// 4,000 patients with resources of 5 kB, the subject of each by a rule that mixes them: enough for many partitions.
fn crowd(client: &mut Client) {
    run(client, "SELECT bulk_create_table('Patient'), bulk_create_table('Observation'), bulk_create_table('Account')");
    run(
        client,
        "INSERT INTO patient (id, txid, cts, ts, status, resource)
           SELECT 'p' || n, 1, now(), now(), 'created', '{}' FROM generate_series(1, 4000) n;
         INSERT INTO observation (id, txid, cts, ts, status, resource)
           SELECT 'o' || n, 1, now(), now(), 'created', jsonb_build_object('subject',
               jsonb_build_object('id', 'p' || (n * 7919 % 4000 + 1), 'resourceType', 'Patient'),
               'text', (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 150) i))
           FROM generate_series(1, 12000) n;
         INSERT INTO account (id, txid, cts, ts, status, resource)
           SELECT 'a' || n, 1, now(), now(), 'created', jsonb_build_object('subject', jsonb_build_array(
               jsonb_build_object('id', 'p' || (n % 4000 + 1), 'resourceType', 'Patient'),
               jsonb_build_object('id', 'p' || (n * 31 % 4000 + 1), 'resourceType', 'Patient')))
           FROM generate_series(1, 6000) n",
    );
}

/// What `crowd` makes of each patient, as SQL says it.
fn crowd_by_sql(client: &mut Client) -> Blocks {
    let sql = "WITH edges AS (
            SELECT id AS patient, 'Patient/' || id AS resource, 0 AS rank FROM patient
            UNION SELECT resource -> 'subject' ->> 'id', 'Observation/' || id, 2 FROM observation
            UNION SELECT s ->> 'id', 'Account/' || id, 1 FROM account, jsonb_array_elements(resource -> 'subject') s)
        SELECT 'Patient/' || patient, array_agg(resource ORDER BY rank, resource COLLATE \"C\") FROM edges
        GROUP BY patient ORDER BY patient COLLATE \"C\"";
    client.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn temporary_files(client: &mut Client) -> i64 {
    count(client, "SELECT count(*) FROM pg_ls_dir('base/pgsql_tmp', true, false) f WHERE f ~ 'pgsql_tmp'")
}

#[test]
fn many_processes_and_partitions_lose_and_repeat_nothing_and_leave_no_temporary_files() {
    let server = server(&["max_worker_processes = 16", "max_parallel_workers = 8"]);
    let (_database, mut client) = with_location_on(server.database("crowd"));
    crowd(&mut client);
    let expected = crowd_by_sql(&mut client);
    assert_eq!(expected.len(), 4000);
    for workers in [1, 2, 4] {
        run(&mut client, &format!("SET fhir_bulk.export_workers = {workers}"));
        let status = done(&mut client, &by_patient(json!({})));
        assert!(blocks(&mut client, &status) == expected, "with {workers} workers");
        assert_eq!(temporary_files(&mut client), 0);
    }
    // Blocks that fit into small files are whole, however many are written at once.
    let status = done(&mut client, &by_patient(json!({"_maximumFileSize": 100 << 10})));
    assert!(blocks(&mut client, &status) == expected);
    let files = status["output"].as_array().unwrap();
    assert!(files.len() > 400 && files.iter().all(|file| file["continuesInFile"].is_null()), "{} files", files.len());
    // Resources, not lines: a resource of two patients counts once, and a header not at all.
    assert_eq!(count(&mut client, "SELECT sum(resources)::int8 FROM bulk_jobs"), 4 * (4000 + 12_000 + 6000));
    // All files together count, whoever writes them.
    run(&mut client, "SET fhir_bulk.export_max_bytes = '4MB'");
    let id = export(&mut client, &by_patient(json!({})));
    let ended = finish(&mut client, &id);
    assert!(ended["error"].as_str().unwrap_or_default().contains("more than 4194304 bytes"), "{ended}");
    assert_eq!(temporary_files(&mut client), 0);
    run(&mut client, "RESET fhir_bulk.export_max_bytes");
    // Policies allow no other process to read, but the files are shared all the same.
    run(
        &mut client,
        "CREATE ROLE reader; GRANT USAGE ON SCHEMA public TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
         GRANT EXECUTE ON FUNCTION bulk_export(jsonb) TO reader;
         ALTER TABLE account ENABLE ROW LEVEL SECURITY; CREATE POLICY all_of_it ON account USING (true)",
    );
    run(&mut client, "SET ROLE reader");
    let status = done(&mut client, &by_patient(json!({})));
    run(&mut client, "RESET ROLE");
    assert!(blocks(&mut client, &status) == expected);
}

#[test]
fn a_server_without_room_for_temporary_files_says_so_and_keeps_nothing() {
    let server = server(&["temp_file_limit = '2MB'"]);
    let (database, mut client) = with_location_on(server.database("narrow"));
    crowd(&mut client);
    let id = export(&mut client, &by_patient(json!({})));
    let ended = finish(&mut client, &id);
    assert_eq!(ended["status"], "failed");
    assert!(ended["error"].as_str().unwrap().contains("temp_file_limit"), "{ended}");
    wait_for_no_files(&database);
    wait_for("temporary files to be gone", || temporary_files(&mut client) == 0);
}

#[test]
fn a_cancelled_or_killed_export_leaves_no_temporary_files_and_a_killed_one_begins_anew() {
    let server = server(&["shared_preload_libraries = 'fhir_bulk'"]);
    let (database, mut client) = with_location_on(server.database("ended"));
    crowd(&mut client);
    let expected = crowd_by_sql(&mut client);
    for kill in [false, true] {
        // The smallest table waits, when the larger ones are on disk already.
        let gate = if kill { close_gate(&database) } else { gated(&mut client, &database, "Account") };
        let id = export(&mut client, &by_patient(json!({"_type": "Account,Observation,Patient"})));
        wait_for_readers(&mut client, 1);
        assert!(temporary_files(&mut client) > 0);
        if kill {
            database.cluster().kill_server();
            gate.open();
            database.cluster().start_server();
            client = database.connect();
            let ended = finish(&mut client, &id);
            assert_eq!(ended["status"], "completed", "{ended}");
            assert!(blocks(&mut client, &ended) == expected);
        } else {
            run(&mut client, &format!("SELECT bulk_export_cancel('{id}')"));
            wait_for_no_files(&database);
            gate.open();
        }
        wait_for("temporary files to be gone", || temporary_files(&mut client) == 0);
    }
    assert!(!files(&database).is_empty());
    // What is loaded now is in the next export.
    let more = database.file("more", format!("{}\n", patient("late")));
    load(&mut client, &more, "fhir => true");
    let ended = done(&mut client, &by_patient(json!({"_type": "Patient"})));
    assert_eq!(blocks(&mut client, &ended).len(), 4001);
}
