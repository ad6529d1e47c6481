//! The manifest for clients of HL7's Bulk Data Access, and the status of an export into one file.

use crate::job::{
    done, download, dump, export, export_sql, files, finish, ids, lines, patients_and_observations, with_location,
};
use crate::support::{assert_error, assert_error_with_hint, count, fails, run, value};
use fhir_bulk_tests::{Client, gunzip};
use serde_json::{Value, json};

/// The value with what differs from run to run replaced by `…`.
fn masked(mut status: Value) -> Value {
    for name in ["jobId", "createdAt", "completedAt", "transactionTime", "downloadUrl"] {
        if let Some(member) = status.get_mut(name) {
            assert!(member.is_string(), "{name}: {member}");
            *member = "…".into();
        }
    }
    for list in ["output", "deleted"] {
        for file in status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let url = file["url"].as_str().unwrap();
            let name = url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
            file["url"] = name.into();
        }
    }
    status
}

#[test]
fn an_export_has_files_of_each_type_and_the_manifest_that_hl7_describes() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1000);
    run(&mut client, "SELECT bulk_create_table('Device'); SET TimeZone = 'Asia/Tokyo'");
    let request = json!({"_type": "Observation,patient", "_outputFormat": "application/fhir+ndjson", "request": "https://example.org/fhir/$export"});
    let status = done(&mut client, &request);
    assert_eq!(
        masked(status.clone()),
        json!({
            "jobId": "…", "status": "completed", "createdAt": "…", "completedAt": "…",
            "transactionTime": "…",
            "request": "https://example.org/fhir/$export",
            "requiresAccessToken": false,
            "output": [
                {"type": "Observation", "url": "Observation.1.ndjson", "count": 1000},
                {"type": "Patient", "url": "Patient.1.ndjson", "count": 1000}
            ],
            "deleted": [],
            "error": []
        })
    );
    for resource_type in ["Patient", "Observation"] {
        assert_eq!(lines(&mut client, &status, resource_type), dump(&mut client, resource_type));
    }
    let line: Value = serde_json::from_str(&lines(&mut client, &status, "Observation")[0]).unwrap();
    assert_eq!(line["subject"], json!({"reference": "Patient/1"}));
    assert_eq!(line["meta"]["versionId"], "1");
    assert_eq!(line["meta"]["lastUpdated"], "2024-01-01T00:00:00.000000Z");
    assert_eq!(files(&database).len(), 2);
}

#[test]
fn without_types_all_that_the_role_may_read_are_exported_and_empty_ones_have_no_file() {
    let (database, mut admin) = with_location();
    patients_and_observations(&mut admin, 3);
    run(&mut admin, "SELECT bulk_create_table('Device'), bulk_create_table('Individual')");
    run(&mut admin, "INSERT INTO individual (id, txid, status, resource) VALUES ('i', 1, 'created', '{\"a\": 1}')");
    let role = database.role("app");
    run(
        &mut admin,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role}; GRANT SELECT ON patient, device TO {role}"
        ),
    );
    let types = |status: &Value| {
        let output = status["output"].as_array().unwrap();
        output.iter().map(|file| file["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(&done(&mut admin, &json!({}))), ["Individual", "Observation", "Patient"]);
    assert_eq!(types(&done(&mut database.connect_as(&role), &json!({}))), ["Patient"]);
}

#[test]
fn a_request_of_resource_types_makes_one_file_with_all_of_them() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 50);
    run(&mut client, "SELECT bulk_create_table('Encounter')");
    run(
        &mut client,
        "UPDATE patient SET ts = '2025-01-01Z' WHERE id = '7'; UPDATE patient SET ts = '2024-12-31 23:59:59.999999Z' WHERE id = '8'",
    );
    let request = json!({"resourceTypes": ["Patient", "Encounter", "Observation"], "since": "2025-01-01T00:00:00Z"});
    let status = done(&mut client, &request);
    assert_eq!(
        masked(status.clone()),
        json!({"jobId": "…", "status": "completed", "createdAt": "…", "completedAt": "…", "transactionTime": "…", "downloadUrl": "…", "count": 1})
    );
    let text = String::from_utf8(download(&mut client, &status["downloadUrl"])).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["id"], &line["resourceType"]), (&json!("7"), &json!("Patient")));
    let all = done(
        &mut client,
        &json!({"resourceTypes": ["Patient", "Encounter", "Observation"], "contentEncoding": "gzip"}),
    );
    let text = String::from_utf8(gunzip(&download(&mut client, &all["downloadUrl"]))).unwrap();
    let mut expected = dump(&mut client, "Patient");
    expected.extend(dump(&mut client, "Observation"));
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    // Without resources the file is empty.
    let nothing = done(&mut client, &json!({"resourceTypes": ["Encounter"]}));
    assert_eq!((download(&mut client, &nothing["downloadUrl"]), &nothing["count"]), (Vec::new(), &json!(0)));
}

#[test]
fn files_are_split_at_their_size_between_two_resources() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 3000);
    let large = "INSERT INTO patient (id, txid, status, resource) SELECT 'large', 1, 'created', jsonb_build_object('text', repeat('x', 100000))";
    run(&mut client, large);
    run(&mut client, "SET fhir_bulk.export_file_size = '64kB'");
    for gzip in [false, true] {
        let encoding = if gzip { "gzip" } else { "plain" };
        let status = done(&mut client, &json!({"_type": ["Patient"], "contentEncoding": encoding}));
        assert_eq!(lines(&mut client, &status, "Patient"), dump(&mut client, "Patient"));
        let output = status["output"].as_array().unwrap();
        let ending = if gzip { ".ndjson.gz?" } else { ".ndjson?" };
        for (at, file) in output.iter().enumerate() {
            assert!(file["url"].as_str().unwrap().contains(&format!("/Patient.{}{ending}", at + 1)), "{file}");
        }
        let sizes: Vec<usize> = output.iter().map(|file| download(&mut client, &file["url"]).len()).collect();
        let (last, full) = sizes.split_last().unwrap();
        assert!(full.len() >= if gzip { 1 } else { 5 }, "{sizes:?}");
        assert!(full.iter().all(|size| (64 << 10..320 << 10).contains(size)), "{sizes:?}");
        assert!(*last > 0);
    }
    assert!(files(&database).iter().all(|file| file.contains("/Patient.")));
}

#[test]
fn elements_are_selected_by_type_and_resources_marked_as_parts() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let first = |client: &mut Client, elements: Value, resource_type: &str| {
        let status = done(client, &json!({"_elements": elements}));
        serde_json::from_str::<Value>(&lines(client, &status, resource_type)[0]).unwrap()
    };
    let patient = first(&mut client, json!("Patient.subject, text"), "Patient");
    assert_eq!(patient["subject"]["id"], "1");
    assert!(patient["text"].is_string());
    assert_eq!(patient["meta"]["tag"][0]["code"], "SUBSETTED");
    let observation = first(&mut client, json!(["Patient.subject", "text"]), "Observation");
    assert_eq!(observation.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "meta", "resourceType", "text"]);
    // Nothing is said of observations here.
    let whole = first(&mut client, json!("Patient.text"), "Observation");
    assert!(whole["subject"].is_object() && whole["meta"].get("tag").is_none(), "{whole}");
}

#[test]
fn since_includes_its_instant_and_until_does_not() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 4);
    run(&mut client, "UPDATE patient SET ts = '2024-06-01Z'::timestamptz + (id::int - 2) * interval '1 microsecond'");
    for (request, expected) in [
        (json!({"_since": "2024-06-01T00:00:00Z"}), &["2", "3", "4"][..]),
        (json!({"_since": "2024-06-01T03:00:00.000001+03:00"}), &["3", "4"]),
        (json!({"_until": "2024-06-01T00:00:00Z"}), &["1"]),
        (json!({"_since": "2024-06-01T00:00:00Z", "_until": "2024-06-01T00:00:00.000002Z"}), &["2", "3"]),
        (json!({"_since": "2024-06-01"}), &["2", "3", "4"]),
    ] {
        run(&mut client, "SET TimeZone = 'UTC'");
        let mut request = request;
        request["_type"] = "Patient".into();
        let status = done(&mut client, &request);
        assert_eq!(ids(&mut client, &status, "Patient"), expected, "{request}");
    }
    // A date means midnight in the caller's time zone.
    run(&mut client, "SET TimeZone = 'Europe/Berlin'");
    let status = done(&mut client, &json!({"_type": "Patient", "_until": "2024-06-01"}));
    assert_eq!(ids(&mut client, &status, "Patient"), [""; 0]);
    run(&mut client, "SET TimeZone = 'America/New_York'");
    let status = done(&mut client, &json!({"_type": "Patient", "_until": "2024-06-01"}));
    assert_eq!(ids(&mut client, &status, "Patient").len(), 4);
}

#[test]
fn what_was_deleted_since_is_listed_unless_it_is_there_again() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 6);
    run(
        &mut client,
        "INSERT INTO patient_history SELECT id, txid + 10, cts, '2024-06-02Z', resource_type, 'deleted', resource FROM patient WHERE id IN ('1', '2', '3');
         DELETE FROM patient WHERE id IN ('1', '2');
         UPDATE patient_history SET ts = '2024-05-31Z' WHERE id = '2';
         UPDATE patient SET status = 'recreated' WHERE id = '3';
         UPDATE patient SET status = 'deleted', ts = '2024-06-01Z' WHERE id = '4';
         UPDATE patient SET status = 'deleted', ts = '2024-07-01Z' WHERE id = '5';
         INSERT INTO observation_history SELECT 'gone-' || n, n, NULL, '2024-06-01Z', 'Observation', 'deleted', '{}' FROM generate_series(1, 2500) n",
    );
    let deleted = |client: &mut Client, request: Value| {
        let status = done(client, &request);
        let mut urls = Vec::new();
        let mut bundles = 0;
        for file in status["deleted"].as_array().unwrap() {
            assert_eq!(file["type"], "Bundle");
            let text = String::from_utf8(download(client, &file["url"])).unwrap();
            assert_eq!(text.lines().count() as u64, file["count"]);
            for line in text.lines() {
                let bundle: Value = serde_json::from_str(line).unwrap();
                assert_eq!((&bundle["resourceType"], &bundle["type"]), (&json!("Bundle"), &json!("transaction")));
                for entry in bundle["entry"].as_array().unwrap() {
                    assert_eq!(entry["request"]["method"], "DELETE");
                    urls.push(entry["request"]["url"].as_str().unwrap().to_owned());
                }
                bundles += 1;
            }
        }
        urls.sort();
        (urls, bundles)
    };
    let since = "2024-06-01T00:00:00Z";
    let (urls, bundles) = deleted(&mut client, json!({"_type": "Patient", "_since": since}));
    assert_eq!((urls.join(" ").as_str(), bundles), ("Patient/1 Patient/4 Patient/5", 1));
    let (urls, _) =
        deleted(&mut client, json!({"_type": "Patient", "_since": since, "_until": "2024-06-30T00:00:00Z"}));
    assert_eq!(urls.join(" "), "Patient/1 Patient/4");
    let (urls, bundles) = deleted(&mut client, json!({"_since": since}));
    assert_eq!((urls.len(), bundles), (2503, 3));
    assert_eq!(deleted(&mut client, json!({})).1, 0);
    // Without a history only rows with status deleted are known.
    run(&mut client, "DROP TABLE patient_history");
    let (urls, _) = deleted(&mut client, json!({"_type": "Patient", "_since": since}));
    assert_eq!(urls.join(" "), "Patient/4 Patient/5");
}

#[test]
fn a_bad_request_is_refused_before_there_is_a_job() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    for (request, state, piece) in [
        (json!([]), "22023", "object"),
        (json!({"_type": 5}), "22023", "\"_type\""),
        (json!({"_type": []}), "22023", "names no type"),
        (json!({"_type": ""}), "22023", "names no type"),
        (json!({"_type": "Patient,Nobody"}), "42P01", "Nobody"),
        (json!({"_type": "Patient;DROP"}), "42P01", "Patient;DROP"),
        (json!({"_type": "patient_history"}), "42P01", "patient_history"),
        (json!({"_outputFormat": "csv"}), "22023", "csv"),
        (json!({"contentEncoding": "br"}), "22023", "br"),
        (json!({"_since": "yesterday"}), "22007", "yesterday"),
        (json!({"_since": "2024-02-30"}), "22007", "2024-02-30"),
        (json!({"_since": "2024-01-01T00:00:00"}), "22007", "2024-01-01T00:00:00"),
        (json!({"_until": "infinity"}), "22007", "_until"),
        (json!({"_nothing": "Patient"}), "22023", "_nothing"),
        (json!({"resourceTypes": []}), "22023", "resourceTypes"),
        (json!({"resourceTypes": "Patient"}), "22023", "resourceTypes"),
        (json!({"since": "2025-01-01T00:00:00Z"}), "22023", "resourceTypes"),
        (json!({"resourceTypes": ["Patient"], "since": "soon"}), "22007", "soon"),
        (json!({"resourceTypes": ["Patient"], "_type": "Patient"}), "22023", "_type"),
    ] {
        assert_error(&fails(&mut client, &export_sql(&request)), state, &[piece]);
    }
    assert_error(&fails(&mut client, "SELECT bulk_export(NULL)"), "22004", &["request"]);
    for function in ["status", "cancel"] {
        assert_error(&fails(&mut client, &format!("SELECT bulk_export_{function}(NULL)")), "22004", &["id"]);
    }
    let error = fails(&mut client, "SELECT bulk_export_status('no such')");
    assert_error_with_hint(&error, "P0002", &["no such"]);
    assert_eq!(value(&mut client, "SELECT bulk_export_cancel('no such')"), "f");
    run(&mut client, "BEGIN READ ONLY");
    assert_error(&fails(&mut client, &export_sql(&json!({}))), "25006", &["bulk_export"]);
    run(&mut client, "ROLLBACK; SET fhir_bulk.export_location = ''");
    assert_error_with_hint(&fails(&mut client, &export_sql(&json!({}))), "55000", &["export_location is not set"]);
    for url in ["/srv", "file://srv", "ftp://host/x"] {
        run(&mut client, &format!("SET fhir_bulk.export_location = '{url}'"));
        assert_error_with_hint(&fails(&mut client, &export_sql(&json!({}))), "22023", &[url]);
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_jobs"), 0);
    assert_eq!(files(&database), [""; 0]);
}

#[test]
fn an_export_that_was_rolled_back_was_never_asked_for() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    run(&mut client, "BEGIN");
    let id = export(&mut client, &json!({}));
    run(&mut client, "ROLLBACK");
    assert_error(&fails(&mut client, &format!("SELECT bulk_export_status('{id}')")), "P0002", &[&id]);
    done(&mut client, &json!({}));
    assert!(files(&database).iter().all(|file| !file.contains(&id)));
}

#[test]
fn a_place_that_cannot_be_written_fails_the_job_with_the_reason() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 1);
    let path = database.path("absent/folder");
    run(&mut client, &format!("SET fhir_bulk.export_location = 'file://{}'", path.display()));
    let id = export(&mut client, &json!({}));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed");
    // The caller gets the reason; only the server's log has the path.
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("No such file or directory") && !error.contains("absent"), "{status}");
    assert!(database.cluster().log().contains("absent/folder"));
}
