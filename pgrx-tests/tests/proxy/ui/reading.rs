//! A page that stays open: what it costs, and what goes away and comes back meanwhile.

use std::process::Command;

use fhir_bulk_tests::browser::{Browser, Page};
use fhir_bulk_tests::proxy::{Proxy, program};
use serde_json::json;

use super::{folder, gate, go, signed_in, start_import, with_page};
use crate::support::Service;

/// Has the page poll so many times at once, as it does when somebody comes back to it, and counts its requests: the most at the
/// same time, and all.
fn poll(page: &Page<'_>, times: u32) -> (u64, u64) {
    let script = "(async () => {
        const own = globalThis.fetch; let now = 0, most = 0, all = 0;
        globalThis.fetch = async (...asked) => {
            all += 1; now += 1; most = Math.max(most, now);
            try { return await own(...asked); } finally { now -= 1; }
        };
        for (let n = 0; n < TIMES; n += 1) {
            const before = all;
            document.dispatchEvent(new Event('visibilitychange'));
            document.dispatchEvent(new Event('visibilitychange'));
            while (all === before || now > 0) await new Promise((done) => setTimeout(done, 1));
        }
        globalThis.fetch = own;
        return [most, all];
    })()";
    let told = page.value(&script.replace("TIMES", &times.to_string()));
    (told[0].as_u64().unwrap(), told[1].as_u64().unwrap())
}

/// How many nodes a page has, those too that are not shown, and how many bytes its scripts hold.
fn size(page: &Page<'_>) -> (u64, f64) {
    page.call("HeapProfiler.collectGarbage", json!({}));
    let nodes = page.call("Memory.getDOMCounters", json!({}))["nodes"].as_u64().unwrap();
    (nodes, page.call("Runtime.getHeapUsage", json!({}))["usedSize"].as_f64().unwrap())
}

#[test]
fn a_page_that_is_left_open_asks_for_one_thing_at_a_time_and_does_not_grow() {
    let (service, browser) = (with_page(), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    let _held = gate(&service, "encounter");
    start_import(&page, &folder(&service), "long");
    page.wait_for_text(".job tbody", "12,000");
    // More than its curve has points.
    let (most, all) = poll(&page, 150);
    assert!(most == 1 && all >= 150, "{most} {all}");
    let before = size(&page);
    poll(&page, 300);
    let after = size(&page);
    assert!(after.0 <= before.0 + 200, "{before:?} {after:?}");
    assert!(after.1 < before.1 + 300_000.0, "{before:?} {after:?}");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn nothing_moves_while_numbers_run() {
    let (service, browser) = (with_page(), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    let held = gate(&service, "encounter");
    start_import(&page, &folder(&service), "long");
    page.wait_for_text(".job tbody", "12,000");
    page.wait("document.querySelector('.curve').getAttribute('aria-label').includes('resources a second')");
    poll(&page, 3);
    let watch = "globalThis.moved = []; new PerformanceObserver((list) => moved.push(...list.getEntries()))
        .observe({type: 'layout-shift', buffered: false}); 0";
    page.value(watch);
    drop(held);
    page.wait_for_text(".job .badge", "finished");
    poll(&page, 10);
    let moved = page.value("moved.reduce((sum, entry) => sum + entry.value, 0)");
    assert!(moved.as_f64().unwrap() < 0.01, "{moved}");
}

#[test]
fn a_database_that_restarts_is_said_to_be_away_and_the_page_goes_on_when_it_is_back() {
    let (service, browser) = (Service::alone(|_| vec!["--ui".to_owned()]), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    let held = gate(&service, "encounter");
    start_import(&page, &folder(&service), "through");
    page.wait_for_text(".job tbody", "12,000");
    service.database.cluster().stop_server("immediate");
    page.wait("document.querySelector('#away').checkVisibility()");
    page.wait_for_text("#away", "This page tries again");
    assert_eq!(page.text("#health"), "away");
    // What was there is still shown, and nobody has to sign in again.
    page.wait_for_text(".job", "through");
    drop(held);
    service.database.cluster().start_server();
    page.wait("!document.querySelector('#away').checkVisibility()");
    assert_eq!(page.text("#health"), "answers");
    // A session takes up what a server without the library preloaded has left.
    page.wait_for_text(".job .badge", "finished");
    assert_eq!(page.text(".job .count"), "72,000 resources");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn a_proxy_that_restarts_is_said_to_be_away_and_the_page_goes_on_when_it_is_back() {
    let (mut service, browser) = (with_page(), Browser::start());
    let page = signed_in(&browser, &service, &service.client);
    let address = service.proxy.address().to_owned();
    service.proxy.terminate();
    page.value("document.dispatchEvent(new Event('visibilitychange')); 0");
    page.wait("document.querySelector('#away').checkVisibility()");
    page.wait_for_text("#away", "The proxy does not answer");
    fhir_bulk_tests::wait_for("the proxy to end", || service.proxy.ended().is_some());
    service.proxy = Proxy::spawn(Command::new(program(false)).args(["--listen", &address]).args(&service.flags));
    page.wait("!document.querySelector('#away').checkVisibility()");
    page.wait_for_text("#said", "answers again");
    go(&page, "types");
    page.wait_for_text("#type-rows", "Patient");
    assert_eq!(page.complaints(), [""; 0]);
}

/// A password that is changed meanwhile: the page asks for it instead of showing errors.
#[test]
fn whoever_may_no_longer_log_in_is_asked_to_sign_in() {
    let service = crate::support::exporting_with(&["--ui", "--connection-age", "1ms"]);
    let browser = Browser::start();
    let page = signed_in(&browser, &service, &service.client);
    let change = format!("ALTER ROLE {} PASSWORD 'another one'", service.client);
    service.database.connect().batch_execute(&change).unwrap();
    page.value("document.dispatchEvent(new Event('visibilitychange')); 0");
    page.wait("document.querySelector('#sign-in-part').checkVisibility()");
    page.wait_for_text("#sign-in-error", "no longer");
}
