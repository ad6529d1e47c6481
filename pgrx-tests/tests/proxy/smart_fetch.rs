//! An independent client of Bulk Data Access: `smart-fetch`, which `scripts/setup.sh --tests` puts into
//! `target/venv-smart-fetch`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use fhir_bulk_tests::proxy::Request;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::support::{PASSWORD, Service, exporting, file};

/// Resources by type and id.
type Resources = BTreeMap<(String, String), Value>;

/// What the client's files hold.
fn fetched(folder: &Path) -> Resources {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(".ndjson") || name.starts_with("log.") {
            continue;
        }
        let mut text = String::new();
        MultiGzDecoder::new(fs::File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let resource: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| resource[name].as_str().unwrap().to_owned();
            let key = (text("resourceType"), text("id"));
            assert!(all.insert(key, resource).is_none(), "twice: {line}");
        }
    }
    all
}

/// Has smart-fetch export into a new folder; what it got, and what it said.
fn fetch(service: &Service, name: &str, options: &[&str]) -> (Resources, String) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv-smart-fetch/bin/smart-fetch");
    assert!(program.exists(), "scripts/setup.sh --tests installs {}", program.display());
    let password = file(&service.database, "password", PASSWORD);
    let folder = service.database.path(name);
    let output = Command::new(&program)
        .args(["bulk", "--fhir-url", &format!("{}/fhir", service.proxy.url())])
        .args(["--basic-user", &service.client, "--basic-passwd", &password])
        .args(options)
        .arg(&folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    (fetched(&folder), told)
}

/// Patients, conditions, encounters and observations. Observations have the categories of a table below in turn.
fn filled() -> Service {
    let service = exporting();
    for (at, resource_type) in TYPES.iter().enumerate().skip(1) {
        let lines: String = (0..100 * at)
            .map(|n| {
                let subject = json!({"reference": format!("Patient/pt-{}", n % 3 + 1)});
                let mut resource = json!({"resourceType": resource_type, "id": format!("x-{n}"), "subject": subject});
                match *resource_type {
                    "Observation" => {
                        let coding = |code: &&str| json!({"coding": [{"system": "http://example.org", "code": code}]});
                        let categories = CATEGORIES[n % CATEGORIES.len()].0;
                        resource["category"] = categories.iter().map(coding).collect();
                    }
                    "Condition" => resource["recordedDate"] = json!(format!("{}-07-01", 2000 + n)),
                    _ => {}
                }
                resource.to_string() + "\n"
            })
            .collect();
        let loaded = service.send(Request::post(&format!("/fhir/{resource_type}/$load"), "application/ndjson", lines));
        assert_eq!(loaded.status, 200, "{}", loaded.text());
    }
    let reader = format!("{}_reader", service.database.name());
    let grant = format!("GRANT SELECT ON condition, encounter, observation TO {reader}");
    service.connect().batch_execute(&grant).unwrap();
    service
}

const TYPES: [&str; 4] = ["Patient", "Condition", "Encounter", "Observation"];

/// Categories of an observation, and whether smart-fetch takes it by default: the nine of US Core.
const CATEGORIES: [(&[&str], bool); 7] = [
    (&["laboratory"], true),
    (&["vital-signs"], true),
    (&["genomics"], false),
    (&[], false),
    (&["genomics", "activity"], true),
    (&["Laboratory"], false),
    (&["laboratory,vital-signs"], false),
];

/// What the database holds, as an export has it.
fn stored(service: &Service) -> Resources {
    let mut client = service.connect();
    let mut stored = BTreeMap::new();
    client.batch_execute("SET TimeZone = 'UTC'; SET fhir_bulk.version_id = 'string'").unwrap();
    for resource_type in TYPES {
        for row in client.query("SELECT bulk_dump($1, fhir => true)", &[&resource_type]).unwrap() {
            let resource: Value = serde_json::from_str(row.get(0)).unwrap();
            stored.insert((resource_type.to_owned(), resource["id"].as_str().unwrap().to_owned()), resource);
        }
    }
    assert_eq!(stored.len(), 603);
    stored
}

#[track_caller]
fn same(fetched: &Resources, expected: &Resources, told: &str) {
    assert!(fetched.keys().eq(expected.keys()), "{:?}, not {:?}\n{told}", fetched.keys(), expected.keys());
    assert_eq!(fetched, expected);
}

/// The number in an id of [`filled`].
fn number(id: &str) -> usize {
    id.strip_prefix("x-").unwrap().parse().unwrap()
}

#[test]
fn smart_fetch_exports_everything_that_the_database_holds() {
    let service = filled();
    let (fetched, told) = fetch(&service, "fetched", &["--no-default-filters"]);
    same(&fetched, &stored(&service), &told);
    // It has cleaned up after itself.
    assert!(service.proxy.log().contains("method=DELETE"), "{}", service.proxy.log());
}

#[test]
fn smart_fetch_with_its_defaults_gets_the_observations_of_the_usual_categories() {
    let service = filled();
    let (fetched, told) = fetch(&service, "fetched", &[]);
    let mut expected = stored(&service);
    expected.retain(|(of, id), _| of != "Observation" || CATEGORIES[number(id) % CATEGORIES.len()].1);
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
    let (fetched, told) = fetch(&service, "fetched", &options);
    let mut expected = stored(&service);
    expected.retain(|(of, id), _| match of.as_str() {
        "Observation" => ["x-0", "x-1"].contains(&id.as_str()) || number(id) % 7 == 6 && number(id).is_multiple_of(3),
        "Condition" => number(id) > 20,
        "Patient" => id == "pt-1",
        _ => true,
    });
    same(&fetched, &expected, &told);
}

#[test]
fn smart_fetch_gets_a_group() {
    let service = filled();
    let group = r#"{"resourceType": "Group", "id": "two", "member": [
        {"entity": {"reference": "Patient/pt-1"}}, {"entity": {"reference": "Patient/pt-3"}}, {"entity": {"reference": "Patient/pt-2"}, "inactive": true}]}"#;
    let line = group.replace('\n', " ");
    let loaded = service.send(Request::post("/fhir/Group/$load", "application/ndjson", line));
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    let reader = format!("{}_reader", service.database.name());
    service.connect().batch_execute(&format!("GRANT SELECT ON \"group\" TO {reader}")).unwrap();
    let types = TYPES.join(",");
    let options = ["--group", "two", "--no-default-filters", "--type", &types];
    let (fetched, told) = fetch(&service, "fetched", &options);
    let mut expected = stored(&service);
    expected.retain(
        |(of, id), resource| {
            if of == "Patient" { id != "pt-2" } else { resource["subject"]["reference"] != "Patient/pt-2" }
        },
    );
    same(&fetched, &expected, &told);
}
