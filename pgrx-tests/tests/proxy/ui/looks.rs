//! How the page looks, and that it is for everybody: by keyboard, with a screen reader, in the dark, on a phone.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fhir_bulk_tests::browser::{Browser, Page};
use fhir_bulk_tests::http::Server;
use fhir_bulk_tests::proxy::Request;
use serde_json::json;

use super::{SCREEN, folder, gate, go, signed_in, start_import, with_page};
use crate::support::PASSWORD;

const PHONE: (u32, u32) = (390, 800);
const PARTS: [&str; 5] = ["jobs", "import", "export", "types", "rejects"];

/// What axe-core finds wrong with what is shown.
fn faults(page: &Page<'_>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/axe-core/node_modules/axe-core/axe.min.js");
    let script =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("scripts/setup.sh --tests installs {path:?}: {error}"));
    if page.value("typeof axe") == "undefined" {
        page.value(&format!("{script}; 0"));
    }
    let run = "axe.run(document).then((found) => JSON.stringify(found.violations.map((fault) =>
        [fault.id, fault.help, fault.nodes.map((node) => node.html + ' ' + node.failureSummary)])))";
    page.value(run).as_str().unwrap().to_owned()
}

/// Each part with something in it, in each light and width: no fault by axe-core's rules, which are WCAG's at AA and more, and
/// nothing that one has to scroll sideways for.
#[test]
fn every_part_has_names_roles_and_contrast_in_each_light_and_width() {
    let (service, browser) = (with_page(), Browser::start());
    let bad = Request::post("/Patient/$load?on_error=skip", "application/ndjson", "{\"\u{1b}\n");
    assert_eq!(service.send(bad).status, 200);
    let page = browser.open(&format!("{}/ui", service.proxy.url()), SCREEN);
    page.wait("document.querySelector('#sign-in-part').checkVisibility()");
    assert_eq!(faults(&page), "[]");
    super::sign_in(&page, &service.client);
    let _held = gate(&service, "encounter");
    start_import(&page, &folder(&service), "synthea");
    page.wait_for_text(".job tbody", "12,000");
    for (dark, size) in [(false, SCREEN), (true, SCREEN), (false, PHONE), (true, PHONE)] {
        page.dark(dark);
        page.size(size);
        for part in PARTS {
            go(&page, part);
            let filled = [
                ("jobs", ".job tbody tr"),
                ("export", "#export-types input"),
                ("types", "#type-rows tr"),
                ("rejects", ".reject"),
            ];
            if let Some((_, what)) = filled.iter().find(|(name, _)| *name == part) {
                page.wait(&format!("document.querySelector('{what}') !== null"));
            }
            assert_eq!(faults(&page), "[]", "{part} dark: {dark} {size:?}");
            let width = page.value("document.documentElement.scrollWidth");
            assert!(width.as_u64().unwrap() <= u64::from(size.0), "{part} {size:?}: {width}");
        }
    }
}

#[test]
fn everything_can_be_done_by_keyboard() {
    let (service, browser) = (with_page(), Browser::start());
    let page = browser.open(&format!("{}/ui", service.proxy.url()), SCREEN);
    page.wait("document.querySelector('#sign-in-part').checkVisibility()");
    // Presses Tab until an element has the focus, which must be seen.
    let tab_to = |selector: &str| {
        let is_there = format!("document.activeElement.matches({})", json!(selector));
        for _ in 0..60 {
            page.press("Tab");
            if page.value(&is_there) == true {
                let outline = page.value("getComputedStyle(document.activeElement).outlineStyle");
                assert_ne!(outline, "none", "{selector} does not show the focus");
                return;
            }
        }
        panic!("Tab does not lead to {selector}");
    };
    let write = |text: &str| page.call("Input.insertText", json!({"text": text}));
    tab_to("#user");
    write(&service.client);
    tab_to("#secret");
    write(PASSWORD);
    page.press("Enter");
    page.wait_for_text("#role", &service.client);
    tab_to("#nav a[href='#import']");
    page.press("Enter");
    page.wait("document.activeElement.id === 'import-title'");
    tab_to("#urls");
    write(&folder(&service));
    let _held = gate(&service, "encounter");
    tab_to("#import-form button.main");
    page.press("Enter");
    page.wait_for_text(".job tbody", "12,000");
    tab_to(".job .name");
    page.press("Enter");
    page.wait("document.querySelector('.job .name').getAttribute('aria-expanded') === 'false'");
    tab_to(".job .end");
    page.press("Enter");
    page.wait("document.querySelector('#sure').open");
    page.press("Escape");
    page.wait("!document.querySelector('#sure').open && document.activeElement.matches('.job .end')");
    page.press("Enter");
    tab_to("#sure-yes");
    page.press("Enter");
    page.wait_for_text(".job .badge", "cancelled");
}

#[test]
fn times_are_in_the_readers_zone_and_numbers_are_grouped() {
    let (service, browser) = (with_page(), Browser::start());
    let mut client = service.connect();
    client.batch_execute("INSERT INTO patient (id, txid, status, resource) SELECT 'g-' || n, n, 'created', '{}' FROM generate_series(1, 12345) n").unwrap();
    let page = browser.open(&format!("{}/ui", service.proxy.url()), SCREEN);
    page.zone("Asia/Kolkata");
    page.call("Page.reload", json!({}));
    page.wait("Intl.DateTimeFormat().resolvedOptions().timeZone.startsWith('Asia/')");
    super::sign_in(&page, &service.client);
    go(&page, "types");
    page.wait_for_text("#type-rows", "Patient");
    page.click("#type-rows [aria-label='Count Patient']");
    page.wait_for_text("#type-rows", "12,348");
    start_import(&page, "file:///none/x.ndjson", "late");
    page.wait_for_text(".job .badge", "failed");
    page.wait("document.querySelector('.job time') !== null");
    let expected = "(() => { const at = document.querySelector('.job time'); const zone = new Intl.DateTimeFormat(undefined,
        {dateStyle: 'medium', timeStyle: 'medium', timeZone: 'Asia/Kolkata'}); return zone.format(new Date(at.dateTime)) === at.textContent; })()";
    assert_eq!(page.value(expected), true, "{}", page.text(".job time"));
}

/// A source of encounters that sends some thousands a second.
fn trickling() -> Server {
    Server::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 18000000\r\n\r\n");
        for n in 0..90_000_u32 {
            let line = format!("{{\"resourceType\":\"Encounter\",\"id\":\"n-{n:05}\",\"language\":\"");
            let padding = "x".repeat(200 - 3 - line.len());
            if stream.write_all(format!("{line}{padding}\"}}\n").as_bytes()).is_err() {
                return;
            }
            // Now faster, now slower.
            if n % (40 + n / 1000 % 30) == 0 {
                thread::sleep(Duration::from_millis(10));
            }
        }
    })
}

/// The pictures of `docs/ui.md`: with `FHIR_BULK_PICTURES` they go there, otherwise they are only taken.
#[test]
fn it_has_its_picture_taken() {
    let (mut service, browser) = (with_page(), Browser::start());
    let folder_of = service.database.path("pictures");
    fs::create_dir_all(&folder_of).unwrap();
    let in_docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    let to = if std::env::var_os("FHIR_BULK_PICTURES").is_some() { in_docs.as_path() } else { folder_of.as_path() };
    let page = signed_in(&browser, &service, &service.client);
    go(&page, "export");
    page.wait_for_text("#export-types", "Patient");
    page.click("#export-types input[value=Patient]");
    page.click("#export-form button.main");
    page.wait_for_text(".job .badge", "finished");
    // One that runs for a while, at some thousands a second.
    let source = trickling();
    let allow = format!("ALTER DATABASE {} SET fhir_bulk.allowed_sources = '127.0.0.1'", service.database.name());
    service.database.connect().batch_execute(&allow).unwrap();
    service.proxy = service.proxy_again();
    page.call("Page.navigate", json!({"url": format!("{}/ui", service.proxy.url())}));
    page.wait("document.readyState === 'complete' && document.querySelector('#sign-in-part')?.checkVisibility()");
    super::sign_in(&page, &service.client);
    start_import(&page, &(folder(&service) + "Patient.ndjson\n" + &source.url("/Encounter.ndjson")), "synthea");
    page.wait_for_text(".job tbody", "12,000");
    let polled = "(async () => { while (document.querySelector('.curve polyline').getAttribute('points').split(' ').length < 30) {
        document.dispatchEvent(new Event('visibilitychange')); await new Promise((done) => setTimeout(done, 200)); } return true; })()";
    page.wait(polled);
    let bad =
        "{\"resourceType\": \"Patient\", \"id\": \"\u{1b}[31mred\", \"name\": [{\"family\": \"<script>\u{202e}\"}\n";
    let refused = Request::post("/Patient/$load?on_error=skip", "application/ndjson", bad);
    assert_eq!(service.send(refused).status, 200);
    // From here on it is not polled, and the folder and the role have the names that documents give them.
    page.value("Object.defineProperty(document, 'visibilityState', {value: 'hidden'}); 0");
    let renamed = format!(
        "(() => {{ const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (texts.nextNode()) {{
                const text = texts.currentNode;
                text.data = text.data.replace({}, '/srv/fhir').replace({}, 'https://fhir.example.org').replace({}, 'client');
            }} }})()",
        json!(service.database.path("in")),
        json!(source.url("")),
        json!(service.client)
    );
    let mut taken = Vec::new();
    let mut take = |name: &str, size: (u32, u32)| {
        let path = to.join(name);
        page.size(size);
        page.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))");
        page.value(&renamed);
        page.picture(&path);
        taken.push(path);
    };
    take("ui-light.png", (1120, 560));
    page.dark(true);
    take("ui-dark.png", (1120, 560));
    page.dark(false);
    take("ui-phone.png", (390, 640));
    page.size(SCREEN);
    go(&page, "rejects");
    page.wait_for_text("#reject-list", "Line 1");
    take("ui-rejects.png", (1120, 320));
    for path in taken {
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() < 120_000, "{path:?}: {}", bytes.len());
    }
}
