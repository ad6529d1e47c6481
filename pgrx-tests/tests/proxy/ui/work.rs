//! What people do with the page: imports, loads of files, exports.

use std::fs;

use fhir_bulk_tests::browser::Browser;
use fhir_bulk_tests::wait_for;
use serde_json::json;

use super::{folder, gate, go, names, signed_in, start_import, with_page};
use crate::support::value;

/// The progress that the first job shows.
const SHARE: &str = "document.querySelector('.job progress').value";

#[test]
fn an_import_of_a_folder_is_watched_to_its_end_and_another_one_is_cancelled() {
    let (service, browser) = (with_page(), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    page.wait("document.querySelector('#no-jobs').checkVisibility()");
    let url = folder(&service);
    let held = gate(&service, "encounter");
    start_import(&page, &url, "synthea");
    page.wait_for_text(".job .badge", "running");
    // Its patients are in, and the encounters wait.
    page.wait_for_text(".job tbody", "12,000");
    page.wait(&format!("{SHARE} > 0.15 && {SHARE} < 0.95"));
    page.wait("document.querySelector('.curve').getAttribute('aria-label').includes('resources a second')");
    drop(held);
    page.wait_for_text(".job .badge", "finished");
    page.wait(&format!("{SHARE} === 1"));
    assert_eq!(page.text(".job .count"), "72,000 resources");
    page.wait_for_text(".job tbody", "60,000");
    page.wait_for_text("#said", "import synthea is finished");
    // One that does not end by itself.
    let held = gate(&service, "encounter");
    start_import(&page, &format!("{url}Encounter.ndjson"), "second");
    page.wait_for_text(".job .badge", "running");
    page.click(".job .end");
    page.wait_for_text("#sure-text", "Cancel import second?");
    page.click("#sure-no");
    page.wait("!document.querySelector('#sure').open");
    assert_eq!(service.connect().query("SELECT FROM bulk_jobs WHERE status = 'active'", &[]).unwrap().len(), 1);
    page.click(".job .end");
    page.click("#sure-yes");
    page.wait_for_text(".job .badge", "cancelled");
    assert_eq!(page.value("document.querySelectorAll('.job').length"), 2);
    page.choose("#state", "finished");
    page.wait("document.querySelectorAll('.job').length === 1");
    page.wait_for_text(".job", "synthea");
    drop(held);
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn an_import_that_is_refused_says_why_where_it_was_asked_for_and_a_failed_input_where_it_is_listed() {
    let (service, browser) = (with_page(), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    go(&page, "import");
    page.fill("#urls", "nonsense");
    page.click("#import-form button.main");
    page.wait_for_text("#import-form .error", "nonsense");
    let patients = service.database.file("Patient.ndjson", "{\"resourceType\":\"Patient\",\"id\":\"p-9\"}\n");
    let broken = service.database.file("Broken.ndjson", "{\"id\": \u{1b}[31m");
    page.fill("#urls", &format!("{patients}\n{broken}\n"));
    page.click("#import-form button.main");
    page.wait_for_text(".job .badge", "finished, 1 failed");
    page.wait_for_text(".job tbody .error", "line 1");
    page.click(".job .failed-only");
    page.wait("document.querySelectorAll('.job tbody tr').length === 1");
    page.wait_for_text(".job tbody", "Broken.ndjson");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn files_that_are_dropped_onto_the_page_are_loaded_and_refused_lines_are_shown() {
    let (service, browser) = (with_page(), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    let lines = "{\"resourceType\":\"Patient\",\"id\":\"d-1\"}\n{\"resourceType\":\"Patient\",\"id\"\n\
                 {\"resourceType\":\"Encounter\",\"id\":\"d-2\"}\n";
    let (mixed, packed) = (service.database.path("mixed.ndjson"), service.database.path("more.ndjson.gz"));
    fs::write(&mixed, lines).unwrap();
    fs::write(&packed, fhir_bulk_tests::gzip(b"{\"resourceType\":\"Patient\",\"id\":\"d-3\"}\n")).unwrap();
    // Anywhere: here onto the list of jobs.
    page.drop_files("#jobs-title", &[&mixed, &packed]);
    page.wait("location.hash === '#import'");
    page.wait_for_text("#uploads", "1 Patient, 1 Encounter; 1 line refused");
    page.wait("document.querySelectorAll('#uploads [data-over]').length === 2");
    let mut client = service.connect();
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient WHERE id LIKE 'd-%'"), "2");
    page.click("#uploads a");
    page.wait_for_text(".reject .head", "Line 2 of");
    assert_eq!(page.text(".reject code"), "{\"resourceType\":\"Patient\",\"id\"");
    // With bad lines refused as a whole, nothing of the file is stored.
    go(&page, "import");
    page.click("#skip-bad");
    fs::write(&mixed, lines.replace("d-1", "d-4")).unwrap();
    page.drop_files("#drop", &[&mixed]);
    page.wait_for_text("#uploads .error", "line 2");
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient WHERE id = 'd-4'"), "0");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn an_export_is_started_its_files_come_down_and_are_removed() {
    let (service, browser) = (with_page(), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    go(&page, "export");
    page.wait_for_text("#export-types", "Patient");
    page.click("#export-types input[value=Patient]");
    page.fill("#filters", "Patient?_id=pt-1,pt-3");
    page.click("#export-form button.main");
    page.wait_for_text(".job .badge", "finished");
    page.wait_for_text(".job .files", "2 lines");
    page.click(".job .files a");
    let down = browser.downloads();
    let is_whole = |name: &String| name.ends_with(".ndjson");
    wait_for("the file", || names(&down).iter().any(is_whole));
    let file = names(&down).into_iter().find(is_whole).unwrap();
    wait_for("its lines", || fs::read_to_string(down.join(&file)).unwrap().lines().count() == 2);
    let text = fs::read_to_string(down.join(&file)).unwrap();
    assert!(text.contains("\"Alice\"") && text.contains("\"Charles\"") && !text.contains("\"Bob\""), "{text}");
    // Of what a Group has, there is nothing.
    go(&page, "export");
    page.choose("#level", "Group");
    page.fill("#group", "none");
    page.click("#export-form button.main");
    page.wait_for_text("#export-form .error", "none");
    page.click("#nav a[href='#jobs']");
    page.click(".job .end");
    page.wait_for_text("#sure-text", "Remove the files of export");
    page.click("#sure-yes");
    page.wait_for_text(".job .badge", "cancelled");
    let status = json!({"jobs": 1});
    assert_eq!(json!({"jobs": page.value("document.querySelectorAll('.job').length")}), status);
    assert_eq!(page.complaints(), [""; 0]);
}
