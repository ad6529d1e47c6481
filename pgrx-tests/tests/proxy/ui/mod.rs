//! The page at `/ui`, as somebody uses it in a browser: Chromium, which `scripts/setup.sh --tests` installs. Without it these
//! tests are left out (`needs.txt`).

mod looks;
mod reading;
mod safety;
mod work;

use std::fs;
use std::path::Path;

use fhir_bulk_tests::Client;
use fhir_bulk_tests::browser::{Browser, Page};

use crate::support::{PASSWORD, Service, exporting_with, role};

/// A width and height that many screens have.
const SCREEN: (u32, u32) = (1200, 800);

/// Patients, a place for exports, and a proxy with the page.
fn with_page() -> Service {
    exporting_with(&["--ui"])
}

/// Opens the page, and signs in as a role.
fn signed_in<'a>(browser: &'a Browser, service: &Service, role: &str) -> Page<'a> {
    let page = browser.open(&format!("{}/ui", service.proxy.url()), SCREEN);
    sign_in(&page, role);
    page
}

fn sign_in(page: &Page<'_>, role: &str) {
    page.fill("#user", role);
    page.fill("#secret", PASSWORD);
    page.click("#sign-in-form button");
    page.wait_for_text("#role", role);
    page.wait("document.querySelector('#jobs-part').checkVisibility()");
}

/// Another role, which has nothing here.
fn stranger(service: &Service) -> String {
    role(&service.database, "stranger")
}

/// Goes to a part of the page.
fn go(page: &Page<'_>, part: &str) {
    page.click(&format!("#nav a[href='#{part}']"));
    page.wait(&format!("document.querySelector('#{part}-part').checkVisibility()"));
}

/// A folder of the server with a file of patients, and one of encounters that no buffer holds as a whole.
fn folder(service: &Service) -> String {
    let path = service.database.path("in");
    fs::create_dir_all(&path).unwrap();
    let lines = |kind: &str, count: usize| {
        let line =
            |n| format!("{{\"resourceType\":\"{kind}\",\"id\":\"n-{n}\",\"language\":\"{}\"}}\n", "x".repeat(200));
        (0..count).map(line).collect::<String>()
    };
    fs::write(path.join("Patient.ndjson"), lines("Patient", 12_000)).unwrap();
    fs::write(path.join("Encounter.ndjson"), lines("Encounter", 60_000)).unwrap();
    format!("file://{}/", path.display())
}

/// A session that keeps others from writing a table until it ends.
fn gate(service: &Service, resource_type: &str) -> Client {
    let mut client = service.connect();
    client.batch_execute(&format!("SELECT bulk_create_table('{resource_type}')")).unwrap();
    client.batch_execute(&format!("BEGIN; LOCK TABLE {resource_type} IN SHARE MODE")).unwrap();
    client
}

/// Starts an import by its form.
fn start_import(page: &Page<'_>, urls: &str, id: &str) {
    go(page, "import");
    page.fill("#urls", urls);
    page.fill("#import-id", id);
    page.click("#import-form button.main");
    page.wait("location.hash === '#jobs'");
    page.wait_for_text("#job-list", id);
}

/// The names of files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
