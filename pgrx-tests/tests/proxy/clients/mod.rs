//! Clients of FHIR and of Bulk Data Access that others have written. `scripts/setup.sh --tests` installs them below `target/`.

mod bulk_data_client;
mod page;
mod smart_fetch;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use fhir_bulk_tests::proxy::{Proxy, Request, program};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::support::{Service, exporting, file};

/// Resources by type and id.
type Resources = BTreeMap<(String, String), Value>;

/// Something that the setup has installed.
fn installed(path: &str) -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(path);
    assert!(found.exists(), "scripts/setup.sh --tests installs {}", found.display());
    found.canonicalize().unwrap()
}

/// A command that is ended when it hangs: clients retry for many minutes.
fn command(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program);
    command
}

/// Runs a command that must succeed; what it says.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{told}", output.status);
    told
}

/// What the NDJSON files in a folder hold, plain or gzipped.
#[track_caller]
fn fetched(folder: &Path) -> Resources {
    let mut all = BTreeMap::new();
    for path in files(folder) {
        for resource in lines(&path) {
            let text = |name: &str| resource[name].as_str().unwrap().to_owned();
            let key = (text("resourceType"), text("id"));
            assert!(all.insert(key, resource).is_none(), "twice in {}", path.display());
        }
    }
    all
}

/// The NDJSON files in a folder; the clients' logs are none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.contains(".ndjson") && !name.starts_with("log.")
    });
    paths.sort();
    paths
}

/// The lines of a file, plain or gzipped.
fn lines(path: &Path) -> Vec<Value> {
    let mut bytes = fs::read(path).unwrap();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
        bytes = plain;
    }
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
                        resource["issued"] = json!(format!("{}-07-01T12:00:00Z", 2000 + n % 30));
                    }
                    "Condition" => resource["recordedDate"] = json!(format!("{}-07-01", 2000 + n)),
                    _ => {}
                }
                resource.to_string() + "\n"
            })
            .collect();
        load(&service, resource_type, &lines);
    }
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

/// Whether smart-fetch takes an observation of [`filled`] by default.
fn is_usual(id: &str) -> bool {
    CATEGORIES[number(id) % CATEGORIES.len()].1
}

/// The number in an id of [`filled`].
fn number(id: &str) -> usize {
    id.strip_prefix("x-").unwrap().parse().unwrap()
}

/// The same with a proxy that knows its own address, and has a file of clients, who have none of its keys yet.
fn with_login() -> Service {
    let mut service = filled();
    let clients = file(&service.database, "clients.yaml", "[]");
    // Free until somebody else takes it; the server's ports are chosen in the same way.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let url = format!("http://{listen}");
    service.flags.extend(["--clients-file", &clients, "--public-url", &url].map(str::to_owned));
    service.proxy = Proxy::spawn(Command::new(program(false)).args(["--listen", &listen]).args(&service.flags));
    let grant = format!("GRANT {} TO {}_authenticator", service.client, service.database.name());
    service.database.connect().batch_execute(&grant).unwrap();
    service
}

/// Loads resources of a type, and lets clients that have not logged in see it in the metadata.
fn load(service: &Service, resource_type: &str, lines: &str) {
    let path = format!("/fhir/{resource_type}/$load");
    let loaded = service.send(Request::post(&path, "application/ndjson", lines));
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    let (table, name) = (resource_type.to_lowercase(), service.database.name());
    service.connect().batch_execute(&format!("GRANT SELECT ON \"{table}\" TO {name}_reader")).unwrap();
}

/// A Group of two patients, and of one that has left it.
fn load_group(service: &Service) {
    let member = |patient: &str| json!({"entity": {"reference": patient}});
    let mut members = vec![member("Patient/pt-1"), member("Patient/pt-3"), member("Patient/pt-2")];
    members[2]["inactive"] = json!(true);
    load(service, "Group", &json!({"resourceType": "Group", "id": "two", "member": members}).to_string());
}

/// Whether a resource of [`filled`] belongs to that Group.
fn is_of_group(of: &str, id: &str, resource: &Value) -> bool {
    if of == "Patient" { id != "pt-2" } else { resource["subject"]["reference"] != "Patient/pt-2" }
}

/// What the database holds, as an export has it.
fn stored(service: &Service, types: &[&str]) -> Resources {
    let mut client = service.connect();
    let mut stored = BTreeMap::new();
    client.batch_execute("SET TimeZone = 'UTC'; SET fhir_bulk.version_id = 'string'").unwrap();
    for resource_type in types {
        for row in client.query("SELECT bulk_dump($1, fhir => true)", &[resource_type]).unwrap() {
            let resource: Value = serde_json::from_str(row.get(0)).unwrap();
            stored.insert(((*resource_type).to_owned(), resource["id"].as_str().unwrap().to_owned()), resource);
        }
    }
    stored
}

#[track_caller]
fn same(fetched: &Resources, expected: &Resources, told: &str) {
    assert!(fetched.keys().eq(expected.keys()), "{:?}, not {:?}\n{told}", fetched.keys(), expected.keys());
    assert_eq!(fetched, expected);
}
