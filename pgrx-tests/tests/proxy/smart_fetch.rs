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

use crate::support::{PASSWORD, exporting, file};

/// Resources by type and id, of all the client's files of resources.
fn fetched(folder: &Path) -> BTreeMap<(String, String), Value> {
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

#[test]
fn smart_fetch_exports_everything_that_the_database_holds() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv-smart-fetch/bin/smart-fetch");
    assert!(program.exists(), "scripts/setup.sh --tests installs {}", program.display());
    let service = exporting();
    let mut client = service.connect();
    let types = ["Patient", "Condition", "Encounter", "Observation"];
    for (at, resource_type) in types.iter().enumerate().skip(1) {
        let lines: String = (0..100 * at)
            .map(|n| {
                let subject = json!({"reference": format!("Patient/pt-{}", n % 3 + 1)});
                json!({"resourceType": resource_type, "id": format!("x-{n}"), "subject": subject}).to_string() + "\n"
            })
            .collect();
        let loaded = service.send(Request::post(&format!("/fhir/{resource_type}/$load"), "application/ndjson", lines));
        assert_eq!(loaded.status, 200, "{}", loaded.text());
    }
    let reader = format!("{}_reader", service.database.name());
    client.batch_execute(&format!("GRANT SELECT ON condition, encounter, observation TO {reader}")).unwrap();
    let password = file(&service.database, "password", PASSWORD);
    let folder = service.database.path("fetched");
    let output = Command::new(&program)
        .args(["bulk", "--fhir-url", &format!("{}/fhir", service.proxy.url())])
        .args(["--basic-user", &service.client, "--basic-passwd", &password, "--no-default-filters"])
        .arg(&folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let mut stored = BTreeMap::new();
    client.batch_execute("SET TimeZone = 'UTC'; SET fhir_bulk.version_id = 'string'").unwrap();
    for resource_type in types {
        for row in client.query("SELECT bulk_dump($1, fhir => true)", &[&resource_type]).unwrap() {
            let resource: Value = serde_json::from_str(row.get(0)).unwrap();
            stored.insert((resource_type.to_owned(), resource["id"].as_str().unwrap().to_owned()), resource);
        }
    }
    assert_eq!(stored.len(), 603);
    assert_eq!(fetched(&folder), stored, "{told}");
    // It has cleaned up after itself.
    assert!(service.proxy.log().contains("method=DELETE"), "{}", service.proxy.log());
}
