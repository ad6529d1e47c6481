//! Exports of subjects of SQL on FHIR: views and queries become files, all under one snapshot.

mod refusals;

use crate::job::{
    close_gate, done, download, export, export_sql, finish, patients_and_observations, wait_for_no_files,
    wait_for_readers, with_location,
};
use crate::support::{assert_error, assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::tools::{compare_parquet, python};
use fhir_bulk_tests::{Client, Database, gunzip};
use serde_json::{Value, json};

/// A view of the ids of a type's resources, and of their texts.
fn view(resource: &str) -> Value {
    json!({"resource": resource, "name": resource.to_lowercase() + "s", "select": [{"column": [
        {"name": "id", "path": "id"}, {"name": "text", "path": "text"}]}]})
}

/// A view of ids.
fn ids_of(resource: &str) -> Value {
    json!({"resource": resource, "select": [{"column": [{"name": "id", "path": "id"}]}]})
}

fn of(subjects: Value, more: Value) -> Value {
    let mut request = json!({"subjects": subjects});
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// The files of a subject, each as a text.
fn bodies(client: &mut Client, status: &Value, name: &str) -> Vec<String> {
    let files = status["output"].as_array().unwrap().iter().filter(|file| file["name"] == name);
    let files: Vec<Value> = files.cloned().collect();
    let body = |file: &Value| {
        let bytes = download(client, &file["url"]);
        let bytes = if bytes.starts_with(b"\x1F\x8B") { gunzip(&bytes) } else { bytes };
        String::from_utf8(bytes).unwrap()
    };
    files.iter().map(body).collect()
}

/// The only file of a subject.
#[track_caller]
fn body(client: &mut Client, status: &Value, name: &str) -> String {
    let mut all = bodies(client, status, name);
    assert_eq!(all.len(), 1, "{name}: {status}");
    all.remove(0)
}

/// A text as SQL writes it.
fn literal(text: &Value) -> String {
    format!("'{}'", text.as_str().unwrap())
}

/// A function `passes()` that waits while a file is there.
fn gate(client: &mut Client, database: &Database) -> crate::job::Gate {
    let gate = close_gate(database);
    let path = database.path("gate");
    run(
        client,
        &format!(
            "CREATE FUNCTION passes() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $f$
               BEGIN WHILE (pg_stat_file('{}', true)).size IS NOT NULL LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN true; END $f$",
            path.display()
        ),
    );
    gate
}

#[test]
fn views_and_queries_become_files_with_the_names_of_their_subjects() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 3);
    let subjects = json!([
        {"name": "Wer, wo?", "view": ids_of("Patient")},
        {"name": "named", "query": "SELECT o.id, p.id AS of FROM obs AS o, patient AS p WHERE o.id = p.id AND p.id > :least ORDER BY 1",
            "views": {"obs": ids_of("Observation")}, "parameters": {"least": "1"}},
        {"query": "SELECT 1.50 AS one, true AS yes, ARRAY[1, 2] AS list, NULL AS nothing"},
        {"name": "empty", "query": "SELECT 1 AS x WHERE false"},
        {"view": view("Observation")}
    ]);
    for (format, first, second, third, empty) in [
        ("csv", "id\n1\n2\n3\n", "id,of\n2,2\n3,3\n", "one,yes,list,nothing\n1.50,t,\"{1,2}\",\n", "x\n"),
        (
            "ndjson",
            "{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}\n",
            "{\"id\":\"2\",\"of\":\"2\"}\n{\"id\":\"3\",\"of\":\"3\"}\n",
            "{\"one\":1.50,\"yes\":true,\"list\":[1,2],\"nothing\":null}\n",
            "",
        ),
        (
            "json",
            "[{\"id\":\"1\"}\n,{\"id\":\"2\"}\n,{\"id\":\"3\"}\n]\n",
            "[{\"id\":\"2\",\"of\":\"2\"}\n,{\"id\":\"3\",\"of\":\"3\"}\n]\n",
            "[{\"one\":1.50,\"yes\":true,\"list\":[1,2],\"nothing\":null}\n]\n",
            "[]\n",
        ),
    ] {
        for encoding in ["plain", "gzip"] {
            let status =
                done(&mut client, &of(subjects.clone(), json!({"_outputFormat": format, "contentEncoding": encoding})));
            for (name, wanted) in [("Wer, wo?", first), ("named", second), ("subject_3", third), ("empty", empty)] {
                assert_eq!(body(&mut client, &status, name), wanted, "{format} {encoding} {name}");
            }
            let outputs = status["output"].as_array().unwrap();
            let of_file = |file: &Value| (file["name"].as_str().unwrap().to_owned(), file["count"].as_u64().unwrap());
            let wanted = [("Wer, wo?", 3), ("named", 2), ("subject_3", 1), ("empty", 0), ("observations", 3)];
            assert_eq!(
                outputs.iter().map(of_file).collect::<Vec<_>>(),
                wanted.map(|(name, count)| (name.to_owned(), count))
            );
            let end = if encoding == "gzip" { ".gz?" } else { "?" };
            assert!(
                outputs[0]["url"].as_str().unwrap().contains(&format!("/Wer__wo_.part1.{format}{end}")),
                "{outputs:?}"
            );
            assert!(outputs.iter().all(|file| file.get("type").is_none()), "{outputs:?}");
            assert_eq!(
                (&status["format"], &status["deleted"], &status["error"]),
                (&json!(format), &json!([]), &json!([]))
            );
        }
    }
    // Without a format it is ndjson, and a header may be left out.
    let one = json!([{"name": "p", "view": ids_of("Patient")}]);
    let status = done(&mut client, &of(one.clone(), json!({"clientTrackingId": "mine"})));
    assert_eq!((&status["format"], &status["clientTrackingId"]), (&json!("ndjson"), &json!("mine")));
    let status = done(&mut client, &of(one, json!({"_outputFormat": "text/csv", "header": false})));
    assert_eq!(body(&mut client, &status, "p"), "1\n2\n3\n");
}

#[test]
fn a_table_that_is_larger_than_a_file_goes_on_in_others_that_are_whole_too() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 6000);
    let query = "SELECT id, resource FROM patient";
    let subjects = json!([{"name": "view", "view": view("Patient")}, {"name": "query", "query": query}]);
    let lines = |client: &mut Client, call: &str| rows(client, &format!("SELECT {call}"));
    let view_sql = view("Patient").to_string();
    for format in ["csv", "ndjson", "json"] {
        let request =
            of(subjects.clone(), json!({"_outputFormat": format, "_maximumFileSize": 65536, "fileSizes": true}));
        let status = done(&mut client, &request);
        let whole = [
            ("view", lines(&mut client, &format!("dump_view('{view_sql}', 'csv')"))),
            ("query", lines(&mut client, &format!("dump_sql('{query}', 'csv')"))),
        ];
        for (name, whole) in whole {
            let parts = bodies(&mut client, &status, name);
            assert!(parts.len() > 2, "{name}: {}", parts.len());
            let files: Vec<&Value> =
                status["output"].as_array().unwrap().iter().filter(|file| file["name"] == name).collect();
            let (mut count, mut found) = (0, Vec::new());
            for (number, (part, file)) in parts.iter().zip(&files).enumerate() {
                assert!(file["url"].as_str().unwrap().contains(&format!("/{name}.part{}.{format}", number + 1)));
                assert_eq!(part.len() as u64, file["fileSize"]);
                assert!(number + 1 == parts.len() || part.len() >= 65536 && part.len() < 66000, "{}", part.len());
                let rows = match format {
                    "csv" => {
                        let mut lines = part.lines().map(str::to_owned);
                        assert!(lines.next().unwrap().starts_with("id,"), "{part}");
                        let lines: Vec<String> = lines.collect();
                        found.extend(lines.iter().cloned());
                        lines.len()
                    }
                    "ndjson" => {
                        let row = |line| serde_json::from_str::<Value>(line).unwrap();
                        part.lines().map(row).collect::<Vec<_>>().len()
                    }
                    _ => serde_json::from_str::<Vec<Value>>(part).unwrap().len(),
                };
                assert_eq!(rows as u64, file["count"]);
                assert!(rows > 0);
                count += rows;
            }
            assert_eq!(count, 6000, "{name} {format}");
            if format == "csv" {
                assert!(found == whole, "{name}");
            }
        }
    }
}

#[test]
fn tables_of_parquet_are_read_back_by_pyarrow_and_duckdb() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 3);
    let typed = json!({"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"},
        {"name": "number", "path": "id", "tag": [{"name": "ansi/type", "value": "INTEGER"}]},
        {"name": "at", "path": "meta.lastUpdated", "type": "instant"}]}]});
    let subjects = json!([
        {"name": "view", "view": typed},
        {"name": "query", "query": "SELECT id, id::int AS number, id::numeric(5, 2) AS exact FROM p ORDER BY 1", "views": {"p": ids_of("Patient")}},
        {"name": "empty", "view": {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}], "where": [{"path": "false"}]}}
    ]);
    for format in ["parquet", "application/vnd.apache.parquet"] {
        let status = done(&mut client, &of(subjects.clone(), json!({"_outputFormat": format})));
        assert_eq!(status["format"], "parquet");
        let outputs = status["output"].as_array().unwrap().clone();
        let counts: Vec<u64> = outputs.iter().map(|file| file["count"].as_u64().unwrap()).collect();
        assert_eq!(counts, [3, 3, 0]);
        let at = "1704067200000000";
        for (file, columns, rows) in [
            (
                &outputs[0],
                json!([["id", "text"], ["number", "text"], ["at", "micros"]]),
                (1..=3).map(|n| json!([n.to_string(), n.to_string(), at])).collect::<Vec<_>>(),
            ),
            (
                &outputs[1],
                json!([["id", "text"], ["number", "text"], ["exact", "decimal"]]),
                (1..=3).map(|n| json!([n.to_string(), n.to_string(), format!("{n}.00")])).collect(),
            ),
            (&outputs[2], json!([["id", "text"]]), Vec::new()),
        ] {
            assert!(file["url"].as_str().unwrap().contains(".part1.parquet?"), "{file}");
            let path = database.path("read.parquet");
            std::fs::write(&path, download(&mut client, &file["url"])).unwrap();
            compare_parquet(&path, columns.as_array().unwrap(), &rows);
        }
    }
    let gzip = of(subjects, json!({"_outputFormat": "parquet", "contentEncoding": "gzip"}));
    assert_error_with_hint(&fails(&mut client, &export_sql(&gzip)), "22023", &["contentEncoding is not for parquet"]);
}

#[test]
fn a_large_table_of_parquet_is_in_files_that_are_whole_each() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    // What nothing compresses, so that groups of rows are large.
    let resource = "SELECT string_agg(md5((n * 1000 + i)::text), '') FROM generate_series(1, 300) i";
    run(
        &mut client,
        &format!(
            "TRUNCATE patient; INSERT INTO patient (id, txid, status, resource)
             SELECT n, 1, 'created', jsonb_build_object('text', ({resource})) FROM generate_series(1, 4000) n"
        ),
    );
    let query = "SELECT id, resource->>'text' AS text FROM patient";
    let subjects = json!([{"name": "view", "view": view("Patient")}, {"name": "query", "query": query}]);
    let request = of(subjects, json!({"_outputFormat": "parquet", "_maximumFileSize": 65536}));
    let status = done(&mut client, &request);
    for name in ["view", "query"] {
        let outputs = status["output"].as_array().unwrap().iter().filter(|file| file["name"] == name);
        let outputs: Vec<Value> = outputs.cloned().collect();
        assert!(outputs.len() > 1, "{name}: {}", outputs.len());
        let (mut all, mut count) = (0, 0);
        for file in &outputs {
            let path = database.path("part.parquet");
            std::fs::write(&path, download(&mut client, &file["url"])).unwrap();
            let script = "import sys, pyarrow.parquet as pq; t = pq.read_table(sys.argv[1]); \
                print(t.num_rows, len(set(t['id'].to_pylist())), t.column_names == ['id', 'text'])";
            let rows = file["count"].as_u64().unwrap();
            assert_eq!(python(script, &[&path]).trim(), format!("{rows} {rows} True"));
            (all, count) = (all + rows, count + 1);
        }
        assert_eq!((all, count), (4000, outputs.len()), "{name}");
    }
}

#[test]
fn a_file_that_the_last_row_fills_is_the_last_one() {
    let (_database, mut client) = with_location();
    // Each row makes a file full.
    let rows = "SELECT repeat('x', 70000) AS x FROM generate_series(1, 2)";
    for (format, first) in [("csv", "x\nxxx"), ("ndjson", "{\"x\":\"xxx"), ("json", "[{\"x\":\"xxx")] {
        let request =
            of(json!([{"name": "q", "query": rows}]), json!({"_outputFormat": format, "_maximumFileSize": 65536}));
        let status = done(&mut client, &request);
        let parts = bodies(&mut client, &status, "q");
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|part| part.starts_with(first) && part.ends_with('\n')), "{format}");
        assert_eq!(parts.iter().filter(|part| part.ends_with("]\n")).count(), if format == "json" { 2 } else { 0 });
    }
}

#[test]
fn all_subjects_are_of_one_moment() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 3);
    let gate = gate(&mut client, &database);
    let subjects = json!([
        {"name": "first", "query": "SELECT passes() AS passed"},
        {"name": "view", "view": ids_of("Patient")},
        {"name": "query", "query": "SELECT id FROM observation ORDER BY 1"},
        {"name": "joined", "query": "SELECT count(*) FROM p JOIN patient USING (id)", "views": {"p": ids_of("Patient")}}
    ]);
    let id = export(&mut client, &of(subjects, json!({"_outputFormat": "csv"})));
    wait_for_readers(&mut client, 1);
    for table in ["patient", "observation"] {
        run(
            &mut client,
            &format!(
                "DELETE FROM {table} WHERE id = '1'; INSERT INTO {table} (id, txid, status, resource) VALUES ('late', 1, 'created', '{{}}')"
            ),
        );
    }
    // What a query reads is locked, so that it is not rewritten before its turn.
    let error = fails(&mut client, "SET lock_timeout = '50ms'; TRUNCATE observation");
    assert_error(&error, "55P03", &[]);
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!(body(&mut client, &status, "view"), "id\n1\n2\n3\n");
    assert_eq!(body(&mut client, &status, "query"), "id\n1\n2\n3\n");
    assert_eq!(body(&mut client, &status, "joined"), "count\n3\n");
}

#[test]
fn a_table_that_only_a_function_knows_and_that_is_emptied_meanwhile_has_the_export_begin_anew() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let gate = gate(&mut client, &database);
    run(
        &mut client,
        "CREATE TABLE hidden AS SELECT generate_series(1, 5);
         CREATE FUNCTION hidden_rows() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM hidden); END'",
    );
    let subjects = json!([{"name": "gate", "query": "SELECT passes()"}, {"name": "hidden", "query": "SELECT hidden_rows() AS n"},
        {"name": "p", "view": ids_of("Patient")}]);
    let id = export(&mut client, &of(subjects, json!({"_outputFormat": "csv"})));
    wait_for_readers(&mut client, 1);
    run(
        &mut client,
        "BEGIN; TRUNCATE hidden; INSERT INTO hidden VALUES (7);
         INSERT INTO patient (id, txid, status, resource) VALUES ('late', 1, 'created', '{}'); COMMIT",
    );
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!(body(&mut client, &status, "hidden"), "n\n1\n", "{status}");
    assert_eq!(body(&mut client, &status, "p"), "id\n1\nlate\n");
}

#[test]
fn patients_groups_and_since_narrow_what_views_are_made_of() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 4);
    run(
        &mut client,
        r#"SELECT bulk_create_table('Group');
        INSERT INTO "group" (id, txid, status, resource) VALUES ('g', 1, 'created',
          '{"type": "person", "member": [{"entity": {"id": "2", "resourceType": "Patient"}}, {"entity": {"id": "3", "resourceType": "Patient"}}]}');
        UPDATE observation SET ts = '2025-01-01Z' WHERE id = '3'"#,
    );
    let subjects = json!([{"name": "p", "view": ids_of("Patient")},
        {"name": "o", "query": "SELECT id FROM o ORDER BY 1", "views": {"o": ids_of("Observation")}}]);
    for (more, patients, observations) in [
        (json!({"patient": ["Patient/1", "2"]}), "1\n2\n", "1\n2\n"),
        (json!({"patient": "Patient/4"}), "4\n", "4\n"),
        (json!({"group": ["g"]}), "2\n3\n", "2\n3\n"),
        (json!({"group": ["Group/g"], "patient": ["3", "4"]}), "3\n", "3\n"),
        (json!({"_since": "2024-06-01T00:00:00Z"}), "", "3\n"),
    ] {
        let mut request = of(subjects.clone(), more.clone());
        (request["_outputFormat"], request["header"]) = ("csv".into(), false.into());
        let status = done(&mut client, &request);
        assert_eq!(body(&mut client, &status, "p"), patients, "{more}");
        assert_eq!(body(&mut client, &status, "o"), observations, "{more}");
        assert_eq!(status["deleted"], json!([]));
    }
}

#[test]
fn its_bytes_count_and_its_urls_are_valid_for_a_day() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 100);
    let request = of(json!([{"name": "p", "view": view("Patient")}]), json!({}));
    let status = done(&mut client, &request);
    let url = status["output"][0]["url"].as_str().unwrap();
    let expires: i64 = url.split("expires=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
    let now: i64 = value(&mut client, "SELECT extract(epoch FROM clock_timestamp())::bigint").parse().unwrap();
    assert!((86_300..=86_400).contains(&(expires - now)), "{}", expires - now);
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel({})", literal(&status["jobId"]))), "t");
    run(&mut client, "SET fhir_bulk.export_max_bytes = 1000");
    let id = export(&mut client, &request);
    let status = finish(&mut client, &id);
    assert!(status["error"].as_str().unwrap().contains("more than 1000 bytes"), "{status}");
    wait_for_no_files(&database);
}
