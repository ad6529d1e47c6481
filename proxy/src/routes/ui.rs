//! The page for people: files that are part of the program. They need no credentials and have no data; what the page shows it
//! asks of the other routes, with the credentials that its reader has given it.

use std::sync::{Arc, LazyLock};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};

use super::files::is_known;
use crate::app::App;
use crate::config::Switch;
use crate::error::{Problem, Result};

/// A file of the page.
struct File {
    name: &'static str,
    media_type: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file below `proxy/ui`, as it is when the program is built.
macro_rules! file {
    ($name:literal, $media_type:expr) => {
        File { name: $name, media_type: $media_type, content: include_str!(concat!("../../ui/", $name)) }
    };
}

/// The first one is the page itself, which names the others.
static FILES: [File; 10] = [
    file!("index.html", HTML),
    file!("style.css", CSS),
    file!("icon.svg", "image/svg+xml"),
    file!("main.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("show.js", SCRIPT),
    file!("jobs.js", SCRIPT),
    file!("curve.js", SCRIPT),
    file!("start.js", SCRIPT),
    file!("data.js", SCRIPT),
];

/// Their tags, in the same order.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |file: &File| {
        let bytes = digest(&SHA256, file.content.as_bytes());
        let digits: String = bytes.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\"{digits}\"")
    };
    FILES.iter().map(tag).collect()
});

/// What the page may load and do: its own files, and requests to where it is from. Nothing within them, nothing of others, and
/// no text becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Returns the page.
pub async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response> {
    sent(&app, &headers, 0)
}

/// Returns a file that the page names.
pub async fn file(State(app): State<Arc<App>>, Path(name): Path<String>, headers: HeaderMap) -> Result<Response> {
    let at = FILES.iter().skip(1).position(|file| file.name == name).ok_or_else(nothing)?;
    sent(&app, &headers, at + 1)
}

fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address")
}

fn sent(app: &App, headers: &HeaderMap, at: usize) -> Result<Response> {
    if app.config.ui == Switch::Off {
        return Err(nothing());
    }
    let (file, tag) = (&FILES[at], TAGS[at].as_str());
    let said = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // For browsers that do not know frame-ancestors.
        (header::X_FRAME_OPTIONS, "DENY"),
        // A newer program may have others.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, tag),
    ];
    if is_known(headers, tag) {
        return Ok((StatusCode::NOT_MODIFIED, said).into_response());
    }
    Ok((said, [(header::CONTENT_TYPE, file.media_type)], file.content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes of all files together: 60 kB, of 1000 bytes.
    const MOST: usize = 60_000;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes <= MOST, "{bytes}");
    }

    #[test]
    fn the_files_are_those_that_the_page_and_its_scripts_name() {
        for file in &FILES[1..] {
            let name = format!("/{}\"", file.name);
            let named = FILES.iter().any(|other| other.content.contains(&name));
            assert!(named, "nothing names {}", file.name);
        }
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/ui")).unwrap();
        for entry in folder {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(FILES.iter().any(|file| file.name == name), "{name} is not served");
        }
    }

    /// The browser refuses most of this, too; here it is found before somebody's browser does.
    #[test]
    fn no_file_makes_markup_of_text_keeps_credentials_or_asks_others() {
        for file in &FILES {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "localStorage",
                "sessionStorage",
                "indexedDB",
                "document.cookie",
                "style=\"",
                "<style",
                "<script>",
                "javascript:",
                "onclick=",
                "https://",
                "//cdn",
            ] {
                assert!(!file.content.contains(word), "{} has {word}", file.name);
            }
        }
    }
}
