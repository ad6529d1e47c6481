//! Requests that are refused, and whose submissions they are about.

use super::{BASE, Source, add, allowed, complete, finish, request, sql, status, submit, submitter, wait_until};
use crate::job::set;
use crate::support::{assert_error, count, fails, patient, patients, rows, run, value};
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

#[test]
fn submitting_is_granted_and_a_status_is_for_everyone() {
    let (_database, mut client) = allowed();
    let granted = "SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid), provolatile, prosecdef,
                     has_function_privilege('public', oid, 'EXECUTE'), obj_description(oid, 'pg_proc') <> ''
                   FROM pg_proc WHERE proname ~ '^bulk_submit' ORDER BY 1";
    assert_eq!(
        rows(&mut client, granted),
        [
            "bulk_submit|request jsonb|jsonb|v|f|f|t",
            "bulk_submit_outcomes|url text|SETOF bytea|s|f|t|t",
            "bulk_submit_status|request jsonb|jsonb|s|f|t|t",
            "bulk_submit_status_cancel|id text|boolean|v|f|f|t"
        ]
    );
}

#[test]
fn a_request_that_is_wrong_is_refused_and_changes_nothing() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", &patients(1..=2));
    let manifest = |more: Value| {
        let mut all = json!({"manifestUrl": url, "fhirBaseUrl": BASE});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let header =
        |name: &str, value: &str| manifest(json!({"fileRequestHeader": [{"headerName": name, "headerValue": value}]}));
    let cases = [
        (json!({}), "22023", "neither"),
        (json!({"manifestUrl": url}), "22023", "fhirBaseUrl"),
        (json!({"submitter": null}), "22023", "submitter"),
        (json!({"submitter": {"system": "s"}}), "22023", "submitter.value"),
        (json!({"submissionId": ""}), "22023", "submissionId"),
        (json!({"submissionStatus": "entered-in-error"}), "22023", "submissionStatus"),
        (json!({"submissionStatus": {"system": "x", "code": "completed"}}), "22023", "event-status"),
        (json!({"submissionStatus": "completed"}), "P0002", "there is no submission"),
        (json!({"submissionStatus": "stopped"}), "P0002", "there is no submission"),
        (json!({"replacesManifestUrl": url}), "P0002", "there is no submission"),
        (manifest(json!({"submissionStatus": "stopped"})), "22023", "manifestUrl"),
        (manifest(json!({"manifestUrl": "m.json"})), "22023", "manifestUrl"),
        (manifest(json!({"manifestUrl": "file:///etc/passwd"})), "22023", "manifestUrl"),
        (manifest(json!({"manifestUrl": "s3://bucket/key"})), "22023", "manifestUrl"),
        (manifest(json!({"manifestUrl": "http://user:secret@127.0.0.1/"})), "22023", "manifestUrl"),
        (manifest(json!({"manifestUrl": 7})), "22023", "manifestUrl"),
        (manifest(json!({"fhirBaseUrl": "base"})), "22023", "fhirBaseUrl"),
        (manifest(json!({"outputFormat": "text/csv"})), "22023", "outputFormat"),
        (manifest(json!({"outputFormat": "application/fhir+ndjson;fhirVersion=5.0"})), "22023", "fhirVersion"),
        (manifest(json!({"unknown": 1})), "22023", "unknown member \"unknown\""),
        (manifest(json!({"import": [{"parameterUrl": "u"}]})), "22023", "import.parameterValue"),
        (manifest(json!({"import": {"parameterUrl": "u", "parameterValue": "v"}})), "22023", "import"),
        (manifest(json!({"import": [{"parameterUrl": "urn:u", "parameterValue": "v"}]})), "0A000", "urn:u"),
        (manifest(json!({"metadata": ["x"]})), "22023", "metadata"),
        (manifest(json!({"oauthMetadataUrl": [url]})), "42704", "\"oauthMetadataUrl\""),
        (manifest(json!({"oauthMetadataUrl": ["file:///etc/passwd"]})), "22023", "\"oauthMetadataUrl\""),
        (manifest(json!({"fileEncryptionKey": {"value": "k"}})), "0A000", "fileEncryptionKey"),
        (manifest(json!({"fileRequestHeader": {}})), "22023", "fileRequestHeader"),
        (manifest(json!({"fileRequestHeader": [{"headerName": "x"}]})), "22023", "fileRequestHeader"),
        (header("Host", "h"), "22023", "fileRequestHeader"),
        (header("Proxy-Authorization", "h"), "22023", "fileRequestHeader"),
        (header("x-key", "a\r\nHost: h"), "22023", "fileRequestHeader"),
        (header("x key", "a"), "22023", "fileRequestHeader"),
        (manifest(json!({"allowedSources": ["https://other.example/"]})), "42501", "permission denied"),
        (manifest(json!({"allowedSources": ["127.0.0.1"]})), "22023", "allowedSources"),
        (manifest(json!({"lenient": 1})), "22023", "lenient"),
    ];
    for (more, state, piece) in cases {
        let error = fails(&mut client, &sql("s", more.clone()));
        assert_error(&error, state, &[piece]);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    for (sql, piece) in [
        ("SELECT bulk_submit('[]')", "not a JSON object"),
        ("SELECT bulk_submit('{\"resourceType\": \"Patient\"}')", "Parameters"),
        ("SELECT bulk_submit('{\"resourceType\": \"Parameters\", \"parameter\": [{\"valueString\": \"x\"}]}')", "name"),
        ("SELECT bulk_submit('{\"resourceType\": \"Parameters\", \"parameter\": [{\"name\": \"x\"}]}')", "one value"),
        (
            "SELECT bulk_submit('{\"resourceType\": \"Parameters\", \"parameter\": [{\"name\": \"lenient\", \"valueBoolean\": true}]}')",
            "lenient",
        ),
    ] {
        assert_error(&fails(&mut client, sql), "22023", &[piece]);
    }
    assert_error(&fails(&mut client, "SELECT bulk_submit(NULL)"), "22004", &["request"]);
    assert_error(&fails(&mut client, "BEGIN READ ONLY; SELECT bulk_submit('{}')"), "25006", &["bulk_submit"]);
    run(&mut client, "ROLLBACK");
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_jobs"), [""; 0]);
    // A lenient request ignores what it may.
    let lenient = submit(
        &mut client,
        "s",
        manifest(json!({"unknown": 1, "import": [{"parameterUrl": "u", "parameterValue": "v"}],
        "lenient": true})),
    );
    assert_eq!(lenient["ignored"], json!(["unknown", "import"]));
    let twice = fails(&mut client, &sql("s", manifest(json!({}))));
    assert_error(&twice, "42710", &["manifestUrl"]);
    let other = json!({"replacesManifestUrl": source.url("/other")});
    assert_error(&fails(&mut client, &sql("s", other)), "22023", &["replacesManifestUrl"]);
    assert_eq!(status(&mut client, "s")["manifests"], 1);
}

#[test]
fn a_submission_that_is_over_takes_no_request() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", &patients(1..=2));
    let requests = || {
        [
            json!({"manifestUrl": source.url("/other"), "fhirBaseUrl": BASE}),
            json!({"submissionStatus": "in-progress"}),
            json!({"submissionStatus": "completed"}),
            json!({"submissionStatus": "stopped"}),
            json!({"replacesManifestUrl": url}),
        ]
    };
    add(&mut client, "completed", &url);
    complete(&mut client, "completed");
    for again in requests() {
        assert_error(&fails(&mut client, &sql("completed", again)), "55000", &["is completed"]);
    }
    wait_until(&mut client, "completed", "is applied", |status| status["status"] == "completed");
    for again in requests() {
        assert_error(&fails(&mut client, &sql("completed", again)), "55000", &["is completed"]);
    }
    add(&mut client, "stopped", &url);
    submit(&mut client, "stopped", json!({"submissionStatus": "stopped"}));
    for again in requests() {
        assert_error(&fails(&mut client, &sql("stopped", again)), "55000", &["was stopped"]);
    }
    // Another submitter's is another submission.
    let other = json!({"submitter": {"value": "payer-7"}, "submissionStatus": "in-progress"});
    assert_eq!(submit(&mut client, "stopped", other)["status"], "in-progress");
}

#[test]
fn nobody_else_sees_completes_or_stops_a_submission() {
    let (database, mut admin) = allowed();
    let source = Source::new();
    let (one, other) = (submitter(&database, &mut admin, "one"), submitter(&database, &mut admin, "other"));
    let url = source.patients("m", &format!("{}x\n", patients(1..=2)));
    let mut client = database.connect_as(&one);
    let begun = add(&mut client, "s", &url);
    let fetched = super::fetched(&mut client, "s");
    let id = begun["id"].as_str().unwrap();
    let outcomes = fetched["outcome"][0]["url"].as_str().unwrap();
    let unseen = |session: &mut fhir_bulk_tests::Client| {
        let by_key = format!("SELECT bulk_submit_status($json${}$json$)", request("s", json!({})));
        for sql in [
            by_key,
            format!("SELECT bulk_submit_status('{{\"id\": \"{id}\"}}')"),
            format!("SELECT bulk_submit_outcomes('{outcomes}')"),
            sql("s", json!({"submissionStatus": "completed"})),
            sql("s", json!({"submissionStatus": "stopped"})),
            sql("s", json!({"replacesManifestUrl": url})),
        ] {
            assert_error(&fails(session, &sql), "P0002", &["there "]);
        }
        assert_eq!(value(session, &format!("SELECT bulk_submit_status_cancel('{id}')")), "f");
        assert_eq!(rows(session, "SELECT * FROM bulk_jobs"), [""; 0]);
    };
    unseen(&mut database.connect_as(&other));
    let mut with_sub = database.connect_as(&one);
    run(&mut with_sub, "SET request.jwt.claims = '{\"sub\": \"client-2\"}'");
    unseen(&mut with_sub);
    // Its own of the same name is another one.
    let own = source.patients("own", &patient("p-9", 9));
    let mut others = database.connect_as(&other);
    add(&mut others, "s", &own);
    finish(&mut others, "s");
    assert_eq!(rows(&mut admin, "SELECT id FROM patient"), ["p-9"]);
    assert_eq!(status(&mut client, "s")["status"], "in-progress");
    finish(&mut client, "s");
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 3);
    let nobody = database.role("nobody");
    let refused = fails(&mut database.connect_as(&nobody), &sql("s", json!({"submissionStatus": "in-progress"})));
    assert_error(&refused, "42501", &["bulk_submit"]);
}

#[test]
fn a_submission_is_applied_with_its_owners_rights_or_not_at_all() {
    let (database, mut admin) = allowed();
    let source = Source::new();
    let role = submitter(&database, &mut admin, "one");
    run(
        &mut admin,
        "SELECT bulk_create_table('Group'); ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON patient USING (true) WITH CHECK (resource ->> 'gender' IS DISTINCT FROM 'other'
                 AND current_setting('request.jwt.claims', true)::json ->> 'tenant' = '7')",
    );
    let mut client = database.connect_as(&role);
    run(&mut client, "SET request.jwt.claims = '{\"tenant\": \"7\"}'");
    let patients_url = source.patients("m", &patients(1..=5));
    let group = source.file("/group", "{\"resourceType\":\"Group\",\"id\":\"g\"}\n");
    let group = source.manifest("/group.json", &stu3_of(&group));
    add(&mut client, "a", &patients_url);
    finish(&mut client, "a");
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 5);
    // Without the right to write Groups, nor Patients come.
    let more = source.patients("more", &patients(6..=9));
    add(&mut client, "b", &more);
    add(&mut client, "b", &group);
    complete(&mut client, "b");
    let failed = wait_until(&mut client, "b", "fails", |status| status["status"] == "failed");
    assert!(failed["error"].as_str().unwrap().contains("permission denied for table group"), "{failed}");
    let other = source.patients("other", "{\"resourceType\":\"Patient\",\"id\":\"x\",\"gender\":\"other\"}\n");
    add(&mut client, "c", &other);
    complete(&mut client, "c");
    let failed = wait_until(&mut client, "c", "fails", |status| status["status"] == "failed");
    assert!(failed["error"].as_str().unwrap().contains("row-level security"), "{failed}");
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 5);
    assert_eq!(super::kept(&mut admin), [0, 0, 0]);
    wait_for("the jobs to end", || {
        rows(&mut client, "SELECT status FROM bulk_jobs ORDER BY created_at") == ["finished", "failed", "failed"]
    });
    let again = fails(&mut client, &sql("b", json!({"submissionStatus": "in-progress"})));
    assert_error(&again, "55000", &["has failed"]);
}

fn stu3_of(url: &str) -> Value {
    super::stu3(&[("Group", url)])
}

#[test]
fn a_role_has_so_many_unfinished_submissions_and_no_more() {
    let (database, _) = allowed();
    let mut client = set(&database, "fhir_bulk.max_submissions_per_role = 2");
    let begin = json!({"submissionStatus": "in-progress"});
    submit(&mut client, "1", begin.clone());
    submit(&mut client, "2", begin.clone());
    // A known one is no new one.
    submit(&mut client, "2", begin.clone());
    let refused = fails(&mut client, &sql("3", begin.clone()));
    assert_error(&refused, "53400", &["2 unfinished submissions"]);
    submit(&mut client, "1", json!({"submissionStatus": "stopped"}));
    submit(&mut client, "3", begin);
}

#[test]
fn a_submission_that_nobody_completes_expires_with_all_that_was_fetched() {
    let (database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", &patients(1..=5));
    add(&mut client, "s", &url);
    let id = super::fetched(&mut client, "s")["id"].as_str().unwrap().to_owned();
    assert_eq!(super::kept(&mut client), [0, 1, 0]);
    let mut client = set(&database, "fhir_bulk.job_retention = 0");
    let by_id = format!("SELECT bulk_submit_status('{{\"id\": \"{id}\"}}')");
    assert_error(&fails(&mut client, &by_id), "P0002", &["there is no status"]);
    let completed = fails(&mut client, &sql("s", json!({"submissionStatus": "completed"})));
    assert_error(&completed, "P0002", &["there is no submission"]);
    // A worker that comes by removes it.
    let jobs = "SELECT count(*) FROM fhir_bulk_internal.bulk_job";
    run(
        &mut client,
        "SELECT bulk_import('{\"id\": \"other\", \"inputs\": [{\"resourceType\": \"Patient\", \"url\": \"file:///gone\"}]}')",
    );
    wait_for("it to be removed", || count(&mut client, jobs) == 0);
    assert_eq!(super::kept(&mut client), [0, 0, 0]);
    assert!(!super::has_patients(&mut client));
}

#[test]
fn a_status_that_is_deleted_is_not_found_and_the_submission_goes_on() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let url = source.patients("m", "x\n");
    add(&mut client, "s", &url);
    let first = super::fetched(&mut client, "s");
    let of = |status: &Value| status["id"].as_str().unwrap().to_owned();
    let by_id = |id: &str| format!("SELECT bulk_submit_status('{{\"id\": \"{id}\"}}') ->> 'status'");
    assert_eq!(value(&mut client, &by_id(&of(&first))), "in-progress");
    let cancel = format!("SELECT bulk_submit_status_cancel('{}')", of(&first));
    assert_eq!((value(&mut client, &cancel), value(&mut client, &cancel)), ("t".to_owned(), "f".to_owned()));
    assert_error(&fails(&mut client, &by_id(&of(&first))), "P0002", &["there is no status"]);
    let outcomes = format!("SELECT bulk_submit_outcomes('{}')", first["outcome"][0]["url"].as_str().unwrap());
    assert_error(&fails(&mut client, &outcomes), "P0002", &["there is no status"]);
    let second = finish(&mut client, "s");
    assert_ne!(of(&first), of(&second));
    assert_eq!(value(&mut client, &by_id(&of(&second))), "completed");
    assert_eq!(super::outcomes(&mut client, &second)[&url].len(), 1);
    for other in ["", "x", "x.0", "..", &format!("{}x", of(&second)), &of(&second).replace('.', ".-")] {
        assert_error(&fails(&mut client, &by_id(other)), if other.is_empty() { "22023" } else { "P0002" }, &[""]);
        assert_eq!(value(&mut client, &format!("SELECT bulk_submit_status_cancel('{other}')")), "f");
    }
    for other in ["", "x", "1.ndjson", "x.0/1.ndjson", &format!("{}/x.ndjson", of(&second))] {
        assert_error(&fails(&mut client, &format!("SELECT bulk_submit_outcomes('{other}')")), "P0002", &["there "]);
    }
    assert_eq!(rows(&mut client, &format!("SELECT bulk_submit_outcomes('{}/99.ndjson')", of(&second))), [""; 0]);
}
