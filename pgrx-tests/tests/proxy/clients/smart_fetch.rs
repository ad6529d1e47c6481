//! A client of Bulk Data Access: `smart-fetch`.

use std::path::Path;

use serde_json::json;

use super::{
    Resources, TYPES, command, fetched, filled, installed, is_of_group, is_usual, lines, load, load_group, number, run,
    same, stored,
};
use crate::support::{PASSWORD, Service, file, value};

/// Runs a command of smart-fetch on a folder, with a password; what it says.
#[track_caller]
fn smart_fetch(service: &Service, name: &str, options: &[&str], folder: &Path) -> String {
    let password = file(&service.database, "password", PASSWORD);
    let mut command = command(&installed("venv-smart-fetch/bin/smart-fetch"));
    command.args([name, "--verbose", "--fhir-url", &format!("{}/fhir", service.proxy.url())]);
    command.args(["--basic-user", &service.client, "--basic-passwd", &password]).args(options).arg(folder);
    run(&mut command)
}

/// Exports into a new folder; what came, and what was said.
#[track_caller]
fn fetch(service: &Service, options: &[&str]) -> (Resources, String) {
    let folder = service.database.path("fetched");
    let told = smart_fetch(service, "bulk", options, &folder);
    (fetched(&folder), told)
}

#[test]
fn smart_fetch_exports_everything_that_the_database_holds() {
    let service = filled();
    let (fetched, told) = fetch(&service, &["--no-default-filters"]);
    let stored = stored(&service, &TYPES);
    assert_eq!(stored.len(), 603);
    same(&fetched, &stored, &told);
    // It has cleaned up after itself.
    assert!(service.proxy.log().contains("method=DELETE"), "{}", service.proxy.log());
}

#[test]
fn smart_fetch_with_its_defaults_gets_the_observations_of_the_usual_categories() {
    let service = filled();
    let (fetched, told) = fetch(&service, &[]);
    let mut expected = stored(&service, &TYPES);
    expected.retain(|(of, id), _| of != "Observation" || is_usual(id));
    assert_eq!(expected.keys().filter(|(of, _)| of == "Observation").count(), 129);
    same(&fetched, &expected, &told);
}

#[test]
fn smart_fetch_gets_what_filters_of_the_users_own_say() {
    let service = filled();
    let filters = [
        "Observation?category=laboratory,vital-signs&_id=x-0,x-1,x-2,x-9",
        r"Observation?category=laboratory\,vital-signs&subject=Patient/pt-1",
        "Condition?recorded-date=gt2020-07-02T10:00:00+10:00",
        "Patient?name=al",
    ];
    let options: Vec<&str> = filters.iter().flat_map(|filter| ["--type-filter", filter]).collect();
    let (fetched, told) = fetch(&service, &options);
    let mut expected = stored(&service, &TYPES);
    expected.retain(|(of, id), _| match of.as_str() {
        "Observation" => ["x-0", "x-1"].contains(&id.as_str()) || number(id) % 7 == 6 && number(id).is_multiple_of(3),
        "Condition" => number(id) > 20,
        "Patient" => id == "pt-1",
        _ => true,
    });
    same(&fetched, &expected, &told);
}

#[test]
fn smart_fetch_gets_a_group_with_its_default_filters() {
    let service = filled();
    load_group(&service);
    let (fetched, told) = fetch(&service, &["--group", "two"]);
    let mut expected = stored(&service, &TYPES);
    expected.retain(|(of, id), resource| is_of_group(of, id, resource) && (of != "Observation" || is_usual(id)));
    same(&fetched, &expected, &told);
}

#[test]
fn smart_fetch_gets_what_has_changed_since_a_time_and_what_was_deleted() {
    let service = filled();
    let mut client = service.connect();
    let since = value(&mut client, r#"to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#);
    load(
        &service,
        "Condition",
        r#"{"resourceType": "Condition", "id": "x-7", "subject": {"reference": "Patient/pt-2"}}"#,
    );
    let deleted = "UPDATE encounter SET status = 'deleted', ts = now(), txid = nextval('transaction_id_seq')
                   WHERE id IN ('x-3', 'x-4')";
    client.batch_execute(deleted).unwrap();
    let (fetched, told) = fetch(&service, &["--since", &since]);
    let mut expected = stored(&service, &TYPES);
    expected.retain(|(of, id), _| (of.as_str(), id.as_str()) == ("Condition", "x-7"));
    same(&fetched, &expected, &told);
    let bundles = lines(&service.database.path("fetched/deleted/Bundle.001.ndjson.gz"));
    let mut gone: Vec<_> = bundles.iter().flat_map(|bundle| bundle["entry"].as_array().unwrap()).collect();
    gone.sort_by_key(|entry| entry["request"]["url"].to_string());
    let gone: Vec<_> = gone.into_iter().map(|entry| &entry["request"]).collect();
    let delete = |id: &str| json!({"method": "DELETE", "url": format!("Encounter/{id}")});
    assert_eq!(gone, [&delete("x-3"), &delete("x-4")]);
}

#[test]
fn smart_fetch_gets_what_was_created_since_a_time() {
    let service = filled();
    // For servers without lastUpdated: it filters by the dates of the resources themselves, where they have one.
    let (fetched, told) = fetch(&service, &["--since", "2010-01-01", "--since-mode", "created"]);
    let mut expected = stored(&service, &TYPES);
    expected.retain(|(of, id), _| match of.as_str() {
        "Observation" => is_usual(id) && number(id) % 30 >= 10,
        "Condition" => number(id) >= 10,
        _ => true,
    });
    same(&fetched, &expected, &told);
}

#[test]
fn smart_fetch_keeps_a_folder_for_each_run_and_knows_when_the_last_one_was() {
    let service = filled();
    let folder = service.database.path("kept");
    let options = ["--type", "Patient,Condition", "--hydration-tasks", "none", "--nickname"];
    let export = |more: &[&str]| smart_fetch(&service, "export", &[&options, more].concat(), &folder);
    let told = export(&["all"]);
    same(&fetched(&folder.join("001.all")), &stored(&service, &["Patient", "Condition"]), &told);
    load(
        &service,
        "Condition",
        r#"{"resourceType": "Condition", "id": "new", "subject": {"reference": "Patient/pt-1"}}"#,
    );
    let told = export(&["changes", "--since", "auto"]);
    let mut expected = stored(&service, &["Condition"]);
    expected.retain(|(_, id), _| id == "new");
    same(&fetched(&folder.join("002.changes")), &expected, &told);
}

#[test]
fn smart_fetch_inlines_the_content_of_documents() {
    let service = filled();
    let document = json!({"resourceType": "DocumentReference", "id": "d", "subject": {"reference": "Patient/pt-1"},
        "content": [{"attachment": {"contentType": "text/plain", "url": "Binary/note"}}]});
    load(&service, "DocumentReference", &document.to_string());
    let note = r#"{"resourceType": "Binary", "id": "note", "contentType": "text/plain", "data": "SGVsbG8K"}"#;
    load(&service, "Binary", note);
    let folder = service.database.path("fetched");
    smart_fetch(&service, "bulk", &["--type", "DocumentReference"], &folder);
    let told = smart_fetch(&service, "hydrate", &["--tasks", "inline"], &folder);
    let inlined = fetched(&folder).into_values().next().unwrap();
    assert_eq!(inlined["content"][0]["attachment"]["data"], "SGVsbG8K", "{told}");
}

#[test]
fn smart_fetch_hydrates_what_resources_refer_to() {
    let service = filled();
    let request = |n: usize| {
        json!({"resourceType": "MedicationRequest", "id": format!("m-{n}"),
            "subject": {"reference": "Patient/pt-1"}, "requester": {"reference": "Practitioner/p"},
            "medicationReference": {"reference": format!("Medication/d-{n}")}})
    };
    load(&service, "MedicationRequest", &format!("{}\n{}", request(1), request(2)));
    load(&service, "Medication", r#"{"resourceType": "Medication", "id": "d-1", "status": "active"}"#);
    load(&service, "Practitioner", r#"{"resourceType": "Practitioner", "id": "p", "name": [{"family": "Watson"}]}"#);
    let folder = service.database.path("fetched");
    smart_fetch(&service, "bulk", &["--type", "MedicationRequest"], &folder);
    let told = smart_fetch(&service, "hydrate", &[], &folder);
    same(&fetched(&folder), &stored(&service, &["MedicationRequest", "Medication", "Practitioner"]), &told);
    // Neither a resource that is not there nor a search is a reason to stop.
    assert!(told.contains("there is no such resource") && told.contains("Done"), "{told}");
    assert!(service.proxy.log().contains("path=\"/fhir/PractitionerRole\""), "{}", service.proxy.log());
}
