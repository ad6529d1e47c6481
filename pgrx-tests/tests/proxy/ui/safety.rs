//! What the page must not do: show one role what is another's, keep credentials, run what is stored.

use fhir_bulk_tests::browser::Browser;
use fhir_bulk_tests::proxy::Request;
use serde_json::json;

use super::{SCREEN, go, sign_in, signed_in, stranger, with_page};
use crate::support::PASSWORD;

#[test]
fn another_role_sees_none_of_it_after_the_first_has_signed_out() {
    let (service, browser) = (with_page(), Browser::start());
    let bad = Request::post("/Patient/$load?on_error=skip", "application/ndjson", "{\n");
    assert_eq!(service.send(bad).status, 200);
    let import = json!({"id": "secret-job", "inputs": [{"url": "file:///none/secret-url"}]}).to_string();
    assert_eq!(service.send(Request::json("/$import", &import)).status, 200);
    let page = signed_in(&browser, &service, &service.client);
    page.wait_for_text("#job-list", "secret-job");
    page.click(".job .name");
    page.wait_for_text(".job", "secret-url");
    go(&page, "rejects");
    page.wait_for_text("#reject-list", "Line 1");
    go(&page, "types");
    page.wait_for_text("#type-rows", "Appointment");
    page.click("#sign-out");
    page.wait("document.querySelector('#sign-in-part').checkVisibility()");
    let left = page.value("document.documentElement.outerHTML").as_str().unwrap().to_owned();
    for word in ["secret-job", "secret-url", "Line 1", "Appointment", &service.client, PASSWORD] {
        assert!(!left.contains(word), "{word} is left");
    }
    sign_in(&page, &stranger(&service));
    page.wait("document.querySelector('#no-jobs').checkVisibility()");
    go(&page, "rejects");
    page.wait("document.querySelector('#no-rejects').checkVisibility()");
    go(&page, "types");
    page.wait("document.querySelector('#types-part').checkVisibility()");
    assert_eq!(page.text("#type-rows"), "");
    // What it may not start says so.
    go(&page, "import");
    page.fill("#urls", "https://example.org/x.ndjson");
    page.click("#import-form button.main");
    page.wait_for_text("#import-form .error", "permission denied");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn credentials_are_in_memory_only_and_a_wrong_password_is_refused() {
    let (service, browser) = (with_page(), Browser::start());
    let page = browser.open(&format!("{}/ui", service.proxy.url()), SCREEN);
    page.fill("#user", &service.client);
    page.fill("#secret", "wrong");
    page.click("#sign-in-form button");
    page.wait_for_text("#sign-in-error", "unknown role or wrong password");
    sign_in(&page, &service.client);
    let kept = "JSON.stringify([Object.keys(localStorage), Object.keys(sessionStorage), document.cookie])";
    assert_eq!(page.value(kept), "[[],[],\"\"]");
    assert_eq!(page.value("(async () => (await indexedDB.databases()).length + (await caches.keys()).length)()"), 0);
    page.wait("performance.getEntriesByType('resource').some((entry) => entry.name.includes('/jobs?'))");
    let asked =
        page.value("performance.getEntriesByType('resource').map((entry) => entry.name).join(' ') + location.href");
    assert!(asked.as_str().unwrap().contains("/jobs?") && !asked.as_str().unwrap().contains("battery"), "{asked}");
    assert_eq!(page.value("document.querySelector('#secret').value"), "");
    // An API key does, too; and after a reload nobody is signed in.
    page.call("Page.reload", json!({}));
    page.wait("document.readyState === 'complete' && document.querySelector('#sign-in-part')?.checkVisibility()");
    page.choose("#kind", "key");
    page.fill("#secret", "clk_live_abc123");
    page.click("#sign-in-form button");
    page.wait_for_text("#role", &format!("{}_tenant", service.database.name()));
    assert_eq!(page.complaints(), [""; 0]);
}

/// Names and lines that would be markup, colours, or run the other way.
#[test]
fn what_is_stored_is_shown_and_never_run() {
    let (service, browser) = (with_page(), Browser::start());
    let script = "<script>globalThis.ran = 1</script><img src=x onerror='globalThis.ran = 2'>";
    let line = format!("{{\"id\": \"{script}\u{1b}[31m\u{202e}");
    let bad = Request::post("/Patient/$load?on_error=skip", "application/ndjson", line + "\n{\"\u{0}\": \n");
    assert_eq!(service.send(bad).status, 200);
    let bytes = Request::post("/Patient/$load?on_error=skip", "application/ndjson", b"{\"\xff");
    assert_eq!(service.send(bytes).status, 200);
    let import = json!({"id": "hostile", "inputs": [{"url": format!("file:///none/{script}\u{7}")}]}).to_string();
    let started = service.send(Request::json("/$import", &import));
    assert_eq!(started.status, 200, "{}", started.text());
    let page = signed_in(&browser, &service, &service.client);
    page.wait_for_text(".job .name", "hostile");
    page.click(".job .name");
    page.wait_for_text(".job tbody", &format!("{script}\\u{{7}}"));
    go(&page, "rejects");
    page.wait_for_text("#reject-list", &format!("{script}\\u{{1b}}[31m\\u{{202e}}"));
    page.wait_for_text("#reject-list", "{\"\\xff");
    page.wait_for_text("#reject-list", "{\"\\u{0}\":");
    let found = "document.querySelectorAll('body script, img[src=x]').length + ' ' + typeof globalThis.ran";
    assert_eq!(page.value(found), "0 undefined");
    // What would be markup is refused by the browser, too.
    let refused = page.value(
        "(() => { try { document.body.innerHTML = '<b>'; return 'taken'; } catch (error) { return error.name; } })()",
    );
    assert_eq!(refused, "TypeError");
}
