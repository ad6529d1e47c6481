//! Drives Chromium over its DevTools protocol, through a pipe: no port, no driver beside it. `scripts/setup.sh --tests`
//! installs it.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::proxy::base64_decoded;
use crate::wait_for;

/// How long an answer of the browser may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, as Debian calls it.
const PROGRAM: &str = "chromium";

/// A browser without a window, with a profile of its own. It ends with its value, and with the process in any case: it does when
/// its pipe is closed.
pub struct Browser {
    process: Child,
    to: RefCell<ChildStdin>,
    from: Receiver<Value>,
    last: Cell<u64>,
    /// What it told that is no answer.
    events: RefCell<Vec<Value>>,
    folder: PathBuf,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Browser {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fhir_bulk_browser_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("downloads")).unwrap();
        // It reads from descriptor 3, and writes to 4. It has no sandbox where tests run as root, and shows only pages of ours.
        let script = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>"$0""#;
        let mut process = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(folder.join("log"))
            .args([PROGRAM, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-extensions"])
            .args(["--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-US", "--password-store=basic"])
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let (to, mut out) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let (sender, from) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while matches!(out.read_until(0, &mut message), Ok(count) if count > 0) {
                let read = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message));
                if read.is_ok_and(|value| sender.send(value).is_err()) {
                    break;
                }
                message.clear();
            }
        });
        let browser = Browser { process, to: to.into(), from, last: Cell::new(0), events: RefCell::default(), folder };
        let downloads = browser.downloads();
        let behavior = json!({"behavior": "allow", "downloadPath": downloads, "eventsEnabled": true});
        browser.call(None, "Browser.setDownloadBehavior", behavior);
        browser
    }

    /// Where it puts what is downloaded.
    pub fn downloads(&self) -> PathBuf {
        self.folder.join("downloads")
    }

    /// Opens a page of a width and height.
    pub fn open(&self, url: &str, size: (u32, u32)) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = self.call(None, "Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        let page = Page { browser: self, session: attached["sessionId"].as_str().unwrap().to_owned() };
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.size(size);
        page.call("Page.navigate", json!({"url": url}));
        page.wait("document.readyState === 'complete'");
        page
    }

    /// Sends a command, and waits for its answer.
    #[track_caller]
    fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let id = self.last.get() + 1;
        self.last.set(id);
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.borrow_mut().write_all(&bytes).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        loop {
            let mut told =
                self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}: {}", self.log()));
            if told["id"] == id {
                assert!(told["error"].is_null(), "{method}: {}", told["error"]);
                return told["result"].take();
            }
            if told["id"].is_null() {
                self.events.borrow_mut().push(told);
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A page of a browser.
pub struct Page<'a> {
    browser: &'a Browser,
    session: String,
}

impl Page<'_> {
    /// Sends a command of the protocol.
    #[track_caller]
    pub fn call(&self, method: &str, parameters: Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters)
    }

    /// The value of an expression of JavaScript. A promise is waited for.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        wait_for(expression, || self.value(expression) == true);
    }

    /// Waits until what is shown has a text.
    #[track_caller]
    pub fn wait_for_text(&self, selector: &str, text: &str) {
        let mut shown = String::new();
        let is_there = || {
            shown = self.text(selector);
            shown.contains(text)
        };
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait_for(text, is_there)));
        assert!(waited.is_ok(), "{selector} has no {text:?}, but {:?}", self.text("body"));
    }

    /// The text that is shown of the first element that a selector finds; nothing if there is none.
    pub fn text(&self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks into the middle of the first element that a selector finds, once it is shown.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let (x, y) = self.middle(selector);
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    #[track_caller]
    fn middle(&self, selector: &str) -> (f64, f64) {
        let found = format!(
            "(() => {{ const at = document.querySelector({}); if (!at || !at.checkVisibility()) return null;
                at.scrollIntoView({{block: 'center', behavior: 'instant'}}); const box = at.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        );
        self.wait(&format!("{found} !== null"));
        let place = self.value(&found);
        (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
    }

    /// Types a text in place of what a field has.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.click(selector);
        self.value(&format!("document.querySelector({}).select()", json!(selector)));
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Chooses an option of a select by its value.
    #[track_caller]
    pub fn choose(&self, selector: &str, value: &str) {
        let set = format!(
            "(() => {{ const at = document.querySelector({}); at.value = {}; at.dispatchEvent(new Event('change', {{bubbles: true}})); return at.value; }})()",
            json!(selector),
            json!(value)
        );
        assert_eq!(self.value(&set), value, "{selector}");
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`.
    pub fn press(&self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            _ => panic!("{key}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if !text.is_empty() && kind == "keyDown" {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Drags files from outside into the middle of an element, and drops them there.
    #[track_caller]
    pub fn drop_files(&self, selector: &str, files: &[&Path]) {
        let (x, y) = self.middle(selector);
        let data = json!({"items": [], "files": files, "dragOperationsMask": 1});
        for kind in ["dragEnter", "dragOver", "drop"] {
            self.call("Input.dispatchDragEvent", json!({"type": kind, "x": x, "y": y, "data": data}));
        }
    }

    /// Gives it a width and height.
    pub fn size(&self, (width, height): (u32, u32)) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Makes it dark, or light.
    pub fn dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// Lets it live in a time zone.
    pub fn zone(&self, name: &str) {
        self.call("Emulation.setTimezoneOverride", json!({"timezoneId": name}));
    }

    /// Takes a picture of what is shown, as PNG.
    pub fn picture(&self, path: &Path) {
        let taken = self.call("Page.captureScreenshot", json!({"format": "png"}));
        fs::write(path, base64_decoded(taken["data"].as_str().unwrap())).unwrap();
    }

    /// What the browser complains about so far: errors of scripts, and what its policy has refused; not that a server does not
    /// answer.
    pub fn complaints(&self) -> Vec<String> {
        self.value("1");
        let events = self.browser.events.borrow();
        let own = events.iter().filter(|event| event["sessionId"] == self.session.as_str());
        own.filter_map(|event| match event["method"].as_str()? {
            "Runtime.exceptionThrown" => Some(event["params"]["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if event["params"]["type"] == "error" => {
                Some(event["params"]["args"].to_string())
            }
            "Log.entryAdded" => {
                let entry = &event["params"]["entry"];
                (entry["level"] == "error" && entry["source"] != "network").then(|| entry.to_string())
            }
            _ => None,
        })
        .collect()
    }
}
