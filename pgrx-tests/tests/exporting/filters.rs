//! `_typeFilter`: which resources of a type are exported.

use crate::job::{done, download, export, export_sql, files, finish, ids, lines, with_location};
use crate::support::{assert_error, count, fails, rows, run};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

/// 60 Observations with a code and a day each, and 10 Patients.
fn observations() -> (Database, Client) {
    let (database, mut client) = with_location();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); SELECT bulk_create_table('Observation');
         INSERT INTO patient (id, txid, status, resource) SELECT 'p' || n, n, 'created',
             jsonb_build_object('gender', CASE n % 2 WHEN 0 THEN 'male' ELSE 'female' END, 'birthDate', 1950 + n || '-05')
             FROM generate_series(1, 10) n;
         INSERT INTO observation (id, txid, status, resource) SELECT 'o' || n, n, 'created', jsonb_build_object(
             'code', jsonb_build_object('coding', jsonb_build_array(jsonb_build_object('code', ('{a,\"b,c\",d}'::text[])[n % 3 + 1]))),
             'effective', jsonb_build_object('dateTime', make_date(2024, n % 12 + 1, 1)))
             FROM generate_series(1, 60) n",
    );
    (database, client)
}

fn exported(client: &mut Client, request: &Value) -> (Vec<String>, Vec<String>, Value) {
    let status = done(client, request);
    (ids(client, &status, "Patient"), ids(client, &status, "Observation"), status)
}

fn expected(client: &mut Client, table: &str, condition: &str) -> Vec<String> {
    rows(client, &format!("SELECT id FROM {table} WHERE {condition} ORDER BY id COLLATE \"C\""))
}

/// OperationOutcomes, as code and diagnostics.
fn outcomes(client: &mut Client, status: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in status["error"].as_array().unwrap() {
        let text = String::from_utf8(download(client, &file["url"])).unwrap();
        for line in text.lines() {
            let issue = &serde_json::from_str::<Value>(line).unwrap()["issue"][0];
            assert_eq!(issue["expression"], json!(["_typeFilter"]), "{issue}");
            found.push((issue["code"].as_str().unwrap().to_owned(), issue["diagnostics"].as_str().unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn queries_of_a_type_are_joined_by_or_and_other_types_are_whole() {
    let (_database, mut client) = observations();
    let code = |code: &str| format!("resource #>> '{{code,coding,0,code}}' = '{code}'");
    let month = "extract(month FROM (resource #>> '{effective,dateTime}')::date)";
    for (filters, condition) in [
        (json!(["Observation?code=a"]), code("a")),
        (json!("Observation?code=a"), code("a")),
        (json!(["Observation?code=a", "Observation?code=d"]), format!("{} OR {}", code("a"), code("d"))),
        (json!(["Observation?code=a,Observation?code=d"]), format!("{} OR {}", code("a"), code("d"))),
        (json!(["Observation?code=a,d"]), format!("{} OR {}", code("a"), code("d"))),
        (json!(["Observation?code=a%2Cd"]), format!("{} OR {}", code("a"), code("d"))),
        (json!([r"Observation?code=b\,c"]), code("b,c")),
        (json!([r"Observation?code=b%5C%2Cc"]), code("b,c")),
        (json!(["Observation?code=a&date=ge2024-10"]), format!("{} AND {month} >= 10", code("a"))),
        (
            json!(["Observation?code=a&date=ge2024-10,Observation?date=2024-01"]),
            format!("{} AND {month} >= 10 OR {month} = 1", code("a")),
        ),
        (json!(["Observation?"]), "true".to_owned()),
    ] {
        let (patients, observations, status) =
            exported(&mut client, &json!({"_type": "Patient,Observation", "_typeFilter": filters}));
        assert_eq!(patients.len(), 10, "{filters}");
        assert_eq!(observations, expected(&mut client, "observation", &condition), "{filters}");
        assert_eq!(status["error"], json!([]));
    }
    // Without _type, a filter is for one of all types.
    let (patients, observations, _) =
        exported(&mut client, &json!({"_typeFilter": ["Patient?gender=male&birthdate=lt1955"]}));
    assert_eq!(patients, ["p2", "p4"]);
    assert_eq!(observations.len(), 60);
    // A type of which nothing is left has no file.
    let status = done(&mut client, &json!({"_typeFilter": ["Patient?gender=other"], "_type": "Patient"}));
    assert_eq!(status["output"], json!([]));
}

#[test]
fn a_query_that_is_refused_is_an_error_or_is_left_out_of_a_lenient_export() {
    let (database, mut client) = observations();
    let many = format!("Observation?code={}", vec!["x"; 10_000].join(","));
    let long = format!("Observation?code={}", "x".repeat(1 << 20));
    for (filter, state, piece, code) in [
        ("Observation?nothing=1", "0A000", "\"nothing\"", "not-supported"),
        ("Observation?date=yesterday", "22023", "\"date\"", "invalid"),
        ("Observation?code", "22023", "\"code\"", "invalid"),
        ("Observation?_count=1", "0A000", "\"_count\"", "not-supported"),
        ("Observation", "22023", "Observation", "invalid"),
        ("Observation&code=a", "22023", "Observation&code", "invalid"),
        ("", "22023", "\"\" is not a query", "invalid"),
        (" ", "22023", "\"\" is not a query", "invalid"),
        ("Device?status=active", "22023", "Device", "invalid"),
        (&many, "22023", "10000 values", "invalid"),
        (&long, "22023", "bytes", "invalid"),
    ] {
        let request = json!({"_type": "Patient,Observation", "_typeFilter": [filter, "Patient?gender=male"]});
        let error = fails(&mut client, &export_sql(&request));
        assert_error(&error, state, &[piece]);
        assert!(error.detail().is_some_and(|detail| detail.contains("_typeFilter") && detail.len() < 300), "{error:?}");
        let mut lenient = request;
        lenient["lenient"] = true.into();
        let (patients, observations, status) = exported(&mut client, &lenient);
        assert_eq!((patients.len(), observations.len()), (5, 60), "{piece}");
        let outcomes = outcomes(&mut client, &status);
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        assert_eq!(outcomes[0].0, code);
        assert!(outcomes[0].1.contains(piece) && outcomes[0].1.len() < 500, "{outcomes:?}");
    }
    // Of several queries for a type the others still count.
    let request = json!({"_type": "Observation", "_typeFilter": ["Observation?nothing=1", "Observation?code=a&date="], "lenient": true});
    let (_, observations, status) = exported(&mut client, &request);
    assert_eq!(observations.len(), 20);
    let codes: Vec<String> = outcomes(&mut client, &status).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["not-supported", "informational"]);
    for (request, piece) in [
        (json!({"resourceTypes": ["Patient"], "_typeFilter": ["Patient?gender=male"]}), "_typeFilter"),
        (json!({"_typeFilter": 1}), "_typeFilter"),
        (json!({"_typeFilter": [1]}), "_typeFilter"),
        (json!({"_typeFilter": vec!["Patient?gender=male"; 101]}), "101 queries"),
        (json!({"lenient": "yes"}), "lenient"),
    ] {
        assert_error(&fails(&mut client, &export_sql(&request)), "22023", &[piece]);
    }
    // What was refused wrote nothing.
    let id = export(&mut client, &json!({"_type": "Patient"}));
    finish(&mut client, &id);
    let before = files(&database);
    fails(&mut client, &export_sql(&json!({"_typeFilter": ["Patient?nothing=1"]})));
    assert_eq!(files(&database), before);
}

#[test]
fn a_large_table_is_filtered_in_parts_or_read_by_its_index() {
    let (database, mut client) = with_location();
    run(
        &mut client,
        "SELECT bulk_create_table('Observation');
         INSERT INTO observation (id, txid, status, resource) SELECT 'o' || n, n, 'created', jsonb_build_object(
             'text', repeat(md5(n::text), 30),
             'code', jsonb_build_object('coding', jsonb_build_array(jsonb_build_object('code', n % 1000))),
             'status', CASE n % 2 WHEN 0 THEN 'final' ELSE 'amended' END)
             FROM generate_series(1, 30000) n;
         UPDATE observation SET resource = jsonb_set(resource, '{code,coding,0,code}', to_jsonb(resource #>> '{code,coding,0,code}'))",
    );
    run(&mut client, "VACUUM ANALYZE observation");
    // By two processes, in several files.
    let status = done(&mut client, &json!({"_type": "Observation", "_typeFilter": ["Observation?status=final"]}));
    assert!(status["output"].as_array().unwrap().len() > 1, "{status}");
    let found = lines(&mut client, &status, "Observation");
    assert_eq!(found.len(), 15_000);
    let status = done(&mut client, &json!({"_type": "Observation", "_typeFilter": ["Observation?code=7"]}));
    let without = ids(&mut client, &status, "Observation");
    assert_eq!(without.len(), 30);
    run(&mut client, "CREATE INDEX found ON observation USING gin (resource jsonb_path_ops)");
    let status = done(&mut client, &json!({"_type": "Observation", "_typeFilter": ["Observation?code=7"]}));
    assert_eq!(status["output"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(ids(&mut client, &status, "Observation"), without);
    let scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'found'";
    fhir_bulk_tests::wait_for("the index to have been used", || count(&mut database.connect(), scans) > 0);
}

#[test]
fn a_parameter_that_goes_after_the_request_fails_the_export() {
    let (database, mut client) = observations();
    run(
        &mut client,
        r#"INSERT INTO bulk_search_parameter VALUES ('urn:x', '{"resourceType": "SearchParameter", "url": "urn:x", "code": "x",
            "type": "token", "base": ["Observation"], "expression": "Observation.code"}')"#,
    );
    run(&mut client, "BEGIN");
    let id = export(&mut client, &json!({"_type": "Observation", "_typeFilter": ["Observation?x=a"]}));
    run(&mut client, "DELETE FROM bulk_search_parameter; COMMIT");
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().unwrap().contains("\"x\""), "{status}");
    assert_eq!(files(&database), [""; 0]);
}
