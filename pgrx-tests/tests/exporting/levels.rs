//! Exports of patients and of the members of Groups.

use crate::job::{done, download, export_sql, ids, with_location};
use crate::support::{assert_error, assert_error_with_hint, fails, load, run};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

/// Resources in FHIR form, loaded as lines of any type.
pub fn loaded(lines: &[Value]) -> (Database, Client) {
    let (database, mut client) = with_location();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let url = database.file("resources", text);
    load(&mut client, &url, "fhir => true");
    (database, client)
}

pub fn patient(id: &str) -> Value {
    json!({"resourceType": "Patient", "id": id})
}

pub fn reference(to: &str) -> Value {
    json!({"reference": to})
}

/// Patients a to d; each with an Observation and an AllergyIntolerance that only recorded; and what belongs to nobody.
fn hospital() -> Vec<Value> {
    let mut lines: Vec<Value> = ["a", "b", "c", "d"].into_iter().map(patient).collect();
    for id in ["a", "b", "c", "d"] {
        lines.push(
            json!({"resourceType": "Observation", "id": format!("o-{id}"), "status": "final", "code": {"text": id},
            "subject": reference(&format!("Patient/{id}"))}),
        );
        lines.push(json!({"resourceType": "AllergyIntolerance", "id": format!("i-{id}"),
            "patient": reference("https://other.example/Patient/x"), "recorder": reference(&format!("Patient/{id}"))}));
    }
    lines.push(
        json!({"resourceType": "Observation", "id": "o-device", "status": "final", "subject": reference("Device/a")}),
    );
    lines.push(json!({"resourceType": "Observation", "id": "o-nobody", "status": "final"}));
    lines.push(json!({"resourceType": "Organization", "id": "org"}));
    lines
}

fn exported(client: &mut Client, request: &Value, types: &[&str]) -> Vec<String> {
    let status = done(client, request);
    assert_eq!(status["error"], json!([]), "{status}");
    let mut found: Vec<String> = types.iter().flat_map(|name| ids(client, &status, name)).collect();
    found.sort();
    found
}

const TYPES: [&str; 4] = ["AllergyIntolerance", "Observation", "Organization", "Patient"];

#[test]
fn an_export_of_patients_has_what_belongs_to_them_by_any_parameter_and_nothing_else() {
    let (_database, mut client) = loaded(&hospital());
    let all = ["a", "b", "c", "d", "i-a", "i-b", "i-c", "i-d", "o-a", "o-b", "o-c", "o-d"];
    assert_eq!(exported(&mut client, &json!({"level": "patient"}), &TYPES), all);
    let request = json!({"level": "patient", "patient": ["a", "Patient/c"]});
    assert_eq!(exported(&mut client, &request, &TYPES), ["a", "c", "i-a", "i-c", "o-a", "o-c"]);
    let request = json!({"level": "patient", "_type": "Observation", "_typeFilter": ["Observation?code:missing=true"]});
    assert_eq!(exported(&mut client, &request, &TYPES), [""; 0]);
    let request = json!({"level": "patient", "patient": "b", "_type": "Observation,Patient", "_typeFilter": ["Observation?status=final"]});
    assert_eq!(exported(&mut client, &request, &TYPES), ["b", "o-b"]);
    assert_eq!(exported(&mut client, &json!({"level": "system"}), &TYPES).len(), 15);
    // A type that belongs to nobody is left out, and it is said.
    let status = done(&mut client, &json!({"level": "patient", "_type": "Patient,Organization"}));
    assert_eq!(ids(&mut client, &status, "Organization"), [""; 0]);
    let error = String::from_utf8(download(&mut client, &status["error"][0]["url"])).unwrap();
    assert!(error.contains("Organization") && error.contains("\"expression\":[\"_type\"]"), "{error}");
}

#[test]
fn members_are_those_of_now_in_groups_of_groups_that_may_be_circles() {
    let mut lines = hospital();
    let member = |id: &str| json!({"entity": reference(&format!("Patient/{id}"))});
    let with = |id: &str, more: Value| {
        let mut found = member(id);
        found.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        found
    };
    let group = |id: &str, members: Value| json!({"resourceType": "Group", "id": id, "type": "person", "actual": true, "member": members});
    let inner = |id: &str| json!({"entity": reference(&format!("Group/{id}"))});
    lines.extend([
        group("plain", json!([member("a"), member("c"), {"entity": reference("Practitioner/a")}, {"entity": {"display": "b"}}])),
        group("left", json!([
            with("a", json!({"inactive": true})), with("b", json!({"inactive": false})),
            with("c", json!({"period": {"end": "2020-05"}})), with("d", json!({"period": {"start": "2020", "end": "9999"}})),
        ])),
        group("coming", json!([with("a", json!({"period": {"start": "9999-01-01"}})), with("b", json!({"period": {}}))])),
        group("outer", json!([inner("plain"), inner("circle"), member("d")])),
        group("circle", json!([inner("outer"), inner("circle"), member("b")])),
        group("empty", json!([])),
        json!({"resourceType": "Group", "id": "bare", "active": false, "type": "person", "actual": true}),
        json!({"resourceType": "Group", "id": "strange", "modifierExtension": [{"url": "urn:x", "valueBoolean": true}], "member": [member("a")]}),
        group("odd", json!([with("a", json!({"modifierExtension": [{"url": "urn:y", "valueBoolean": true}]}))])),
    ]);
    let (_database, mut client) = loaded(&lines);
    for (id, expected) in [
        ("plain", vec!["a", "c"]),
        ("left", vec!["b", "d"]),
        ("coming", vec!["b"]),
        ("outer", vec!["a", "b", "c", "d"]),
        ("circle", vec!["a", "b", "c", "d"]),
        ("empty", vec![]),
        ("bare", vec![]),
    ] {
        let request = json!({"level": "group", "group": id, "_type": "Patient,Observation"});
        let mut all: Vec<String> = expected.iter().flat_map(|id| [(*id).to_owned(), format!("o-{id}")]).collect();
        all.sort();
        assert_eq!(exported(&mut client, &request, &TYPES), all, "{id}");
    }
    let request = json!({"level": "group", "group": "plain", "patient": ["Patient/c"]});
    assert_eq!(exported(&mut client, &request, &TYPES), ["c", "i-c", "o-c"]);
    // The Groups themselves belong to their members.
    let status = done(&mut client, &json!({"level": "group", "group": "coming", "_type": "Group"}));
    assert_eq!(ids(&mut client, &status, "Group"), ["circle", "coming", "left"]);
    for (id, url) in [("strange", "urn:x"), ("odd", "urn:y")] {
        assert_error(&fails(&mut client, &export_sql(&json!({"level": "group", "group": id}))), "0A000", &[id, url]);
    }
    let request = json!({"level": "group", "group": "plain", "patient": ["c", "d"]});
    assert_error(&fails(&mut client, &export_sql(&request)), "22023", &["\"d\"", "member"]);
    let request = export_sql(&json!({"level": "group", "group": "nothing"}));
    assert_error_with_hint(&fails(&mut client, &request), "P0002", &["nothing"]);
    run(&mut client, "UPDATE \"group\" SET status = 'deleted' WHERE id = 'plain'");
    let request = export_sql(&json!({"level": "group", "group": "plain"}));
    assert_error_with_hint(&fails(&mut client, &request), "P0002", &["plain"]);
}

#[test]
fn a_chain_of_groups_ends_at_sixteen() {
    let mut lines: Vec<Value> = (0..30).map(|n| patient(&format!("p{n:02}"))).collect();
    lines.extend((0..30).map(|n| {
        json!({"resourceType": "Group", "id": format!("g{n:02}"), "member": [
            {"entity": reference(&format!("Group/g{:02}", n + 1))}, {"entity": reference(&format!("Patient/p{n:02}"))}]})
    }));
    let (_database, mut client) = loaded(&lines);
    let found = exported(&mut client, &json!({"level": "group", "group": "g00", "_type": "Patient"}), &["Patient"]);
    assert_eq!(found, (0..16).map(|n| format!("p{n:02}")).collect::<Vec<_>>());
}

#[test]
fn who_is_hidden_is_unknown() {
    let mut lines = hospital();
    lines.push(json!({"resourceType": "Group", "id": "open", "member": [{"entity": reference("Patient/a")}, {"entity": reference("Group/secret")}]}));
    lines.push(json!({"resourceType": "Group", "id": "secret", "member": [{"entity": reference("Patient/b")}]}));
    let (database, mut client) = loaded(&lines);
    let role = database.role("nurse");
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; GRANT EXECUTE ON FUNCTION bulk_export TO {role};
             GRANT EXECUTE ON FUNCTION bulk_export_file TO {role};
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON patient USING (id <> 'c');
             ALTER TABLE \"group\" ENABLE ROW LEVEL SECURITY; CREATE POLICY g ON \"group\" USING (id <> 'secret')"
        ),
    );
    let mut nurse = database.connect_as(&role);
    let group = |id: &str| json!({"level": "group", "group": id, "_type": "Patient,Observation"});
    assert_eq!(exported(&mut nurse, &group("open"), &TYPES), ["a", "o-a"]);
    assert_error_with_hint(&fails(&mut nurse, &export_sql(&group("secret"))), "P0002", &["secret"]);
    for id in ["c", "nobody"] {
        let request = json!({"level": "patient", "patient": [id]});
        assert_error_with_hint(&fails(&mut nurse, &export_sql(&request)), "22023", &[&format!("\"{id}\"")]);
    }
    assert_eq!(exported(&mut client, &group("open"), &TYPES), ["a", "b", "o-a", "o-b"]);
}

#[test]
fn levels_that_do_not_go_together_with_the_rest_are_refused() {
    let (_database, mut client) = loaded(&hospital());
    for (request, state, piece) in [
        (json!({"level": "planet"}), "22023", "planet"),
        (json!({"level": "group"}), "22023", "\"group\""),
        (json!({"group": "g"}), "22023", "\"group\""),
        (json!({"level": "patient", "group": "g"}), "22023", "\"group\""),
        (json!({"patient": ["a"]}), "22023", "\"patient\""),
        (json!({"level": "system", "patient": ["a"]}), "22023", "\"patient\""),
        (json!({"level": "patient", "patient": []}), "22023", "no patient"),
        (json!({"level": "patient", "patient": ["Group/a"]}), "22023", "Group/a"),
        (json!({"level": "patient", "patient": [""]}), "22023", "reference"),
        (json!({"level": "patient", "patient": [1]}), "22023", "\"patient\""),
        (json!({"level": "patient", "_type": "Organization"}), "0A000", "Organization"),
        (json!({"level": "patient", "resourceTypes": ["Patient"]}), "22023", "level"),
    ] {
        assert_error(&fails(&mut client, &export_sql(&request)), state, &[piece]);
    }
}

/// The urls of an export's deletions.
pub fn deletions(client: &mut Client, request: &Value) -> Vec<String> {
    let status = done(client, request);
    let mut urls = Vec::new();
    for file in status["deleted"].as_array().unwrap() {
        let text = String::from_utf8(download(client, &file["url"])).unwrap();
        for line in text.lines() {
            let bundle: Value = serde_json::from_str(line).unwrap();
            let entries = bundle["entry"].as_array().unwrap().iter();
            urls.extend(entries.map(|entry| entry["request"]["url"].as_str().unwrap().to_owned()));
        }
    }
    urls.sort();
    urls
}

#[test]
fn deletions_are_those_of_what_the_export_would_have_had() {
    let mut lines = hospital();
    lines.push(json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/a")}, {"entity": reference("Patient/b")}]}));
    let (_database, mut client) = loaded(&lines);
    run(
        &mut client,
        "UPDATE observation SET status = 'deleted', ts = '2024-06-01Z' WHERE id IN ('o-a', 'o-d', 'o-nobody');
         -- Deleted out of the table: the history has the row, without its content, and the version before.
         INSERT INTO observation_history SELECT id, txid + n, cts, '2024-06-01Z', resource_type,
             CASE n WHEN 2 THEN 'deleted' ELSE 'created' END::resource_status, CASE n WHEN 2 THEN '{}' ELSE resource END
             FROM observation, generate_series(1, 2) n WHERE id IN ('o-b', 'o-c');
         DELETE FROM observation WHERE id IN ('o-b', 'o-c')",
    );
    let since = "2024-05-01T00:00:00Z";
    let observation = |id: &str| format!("Observation/{id}");
    let request = json!({"_since": since, "_type": "Observation"});
    let all = ["o-a", "o-b", "o-c", "o-d", "o-nobody"].map(observation);
    assert_eq!(deletions(&mut client, &request), all);
    let request = json!({"_since": since, "level": "patient"});
    assert_eq!(deletions(&mut client, &request), ["o-a", "o-b", "o-c", "o-d"].map(observation));
    let request = json!({"_since": since, "level": "patient", "patient": ["c", "d"]});
    assert_eq!(deletions(&mut client, &request), ["o-c", "o-d"].map(observation));
    let request = json!({"_since": since, "level": "group", "group": "g"});
    assert_eq!(deletions(&mut client, &request), ["o-a", "o-b"].map(observation));
    let request = json!({"_since": since, "_type": "Observation", "_typeFilter": ["Observation?subject=Patient/b", "Observation?subject:missing=true"]});
    assert_eq!(deletions(&mut client, &request), ["o-b", "o-nobody"].map(observation));
}

#[test]
fn provenance_comes_with_what_it_is_of() {
    let mut lines = hospital();
    let of = |id: &str, targets: &[&str]| {
        let targets: Vec<Value> = targets.iter().map(|to| reference(to)).collect();
        json!({"resourceType": "Provenance", "id": id, "target": targets, "recorded": "2024-01-01T00:00:00Z"})
    };
    lines.extend([
        of("v-patient", &["Patient/a"]),
        of("v-observation", &["Organization/org", "Observation/o-a"]),
        of("v-other", &["Observation/o-b", "AllergyIntolerance/i-c"]),
        of("v-nobody", &["Observation/o-nobody", "Organization/org", "Thing/x", "Observation/none"]),
        of("v-version", &["Observation/o-a/_history/1"]),
    ]);
    // More than are decided at a time.
    lines.extend(
        (0..2500).map(|n| {
            of(&format!("w-{n:04}"), &[["Observation/o-a", "Observation/o-d", "Observation/o-device"][n % 3]])
        }),
    );
    lines.push(json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/a")}]}));
    let (_database, mut client) = loaded(&lines);
    let provenance = |client: &mut Client, request: &Value| {
        let status = done(client, request);
        let found = ids(client, &status, "Provenance");
        let (many, few): (Vec<_>, Vec<_>) = found.into_iter().partition(|id| id.starts_with('w'));
        (few.join(" "), many.len())
    };
    let group = json!({"level": "group", "group": "g"});
    assert_eq!(provenance(&mut client, &group), ("v-observation v-patient".to_owned(), 834));
    let mut only = group.clone();
    only["_type"] = "Provenance".into();
    assert_eq!(provenance(&mut client, &only), ("v-observation v-patient".to_owned(), 834));
    only["_type"] = "Observation".into();
    assert_eq!(provenance(&mut client, &only), (String::new(), 0));
    only["_type"] = "Provenance".into();
    only["_typeFilter"] = json!(["Provenance?target=Observation/o-a"]);
    assert_eq!(provenance(&mut client, &only), ("v-observation".to_owned(), 834));
    let all = "v-observation v-other v-patient".to_owned();
    assert_eq!(provenance(&mut client, &json!({"level": "patient"})), (all, 1667));
    assert_eq!(provenance(&mut client, &json!({"_type": "Provenance"})).1, 2500);
}

#[test]
fn files_are_as_large_as_the_request_allows() {
    let (_database, mut client) = with_location();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient');
         INSERT INTO patient (id, txid, status, resource)
             SELECT 'p' || n, n, 'created', jsonb_build_object('x', repeat(md5(n::text), 100)) FROM generate_series(1, 100) n",
    );
    let counts = |client: &mut Client, request: Value| {
        let status = done(client, &request);
        status["output"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut client, json!({})), [100]);
    let limited = counts(&mut client, json!({"_maximumFileSize": 65_536, "_minimumFileSize": 1}));
    assert!(limited.len() > 4 && limited.iter().sum::<u64>() == 100, "{limited:?}");
    assert_eq!(counts(&mut client, json!({"_maximumFileSize": 1_000_000_000})), [100]);
    for (name, value) in
        [("_maximumFileSize", json!(0)), ("_minimumFileSize", json!("1")), ("_maximumFileSize", json!(-1))]
    {
        assert_error(&fails(&mut client, &export_sql(&json!({name: value}))), "22023", &[name]);
    }
}

#[test]
fn deletions_of_provenance_are_told_by_its_targets_and_of_what_has_no_content_by_its_id() {
    let mut lines = hospital();
    for (id, target) in
        [("v-patient", "Patient/a"), ("v-observation", "Observation/o-a"), ("v-nobody", "Observation/o-nobody")]
    {
        lines.push(json!({"resourceType": "Provenance", "id": id, "target": [reference(target)]}));
    }
    lines.push(json!({"resourceType": "Condition", "id": "c", "subject": reference("Patient/a")}));
    let (_database, mut client) = loaded(&lines);
    run(
        &mut client,
        "UPDATE provenance SET status = 'deleted', ts = '2024-06-01Z';
         UPDATE condition SET status = 'deleted', ts = '2024-06-01Z', resource = '{}';
         INSERT INTO patient (id, txid, status, ts, resource) VALUES ('gone', 1, 'deleted', '2024-06-01Z', '{}')",
    );
    let request = json!({"_since": "2024-05-01", "level": "patient"});
    assert_eq!(deletions(&mut client, &request), ["Patient/gone", "Provenance/v-observation", "Provenance/v-patient"]);
    let status = done(&mut client, &request);
    let error = String::from_utf8(download(&mut client, &status["error"][0]["url"])).unwrap();
    assert!(error.contains("Of 1 deleted resources no content is kept"), "{error}");
}
