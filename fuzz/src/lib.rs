//! Checks that must hold for any bytes: each target's `check` takes bytes, and panics when a promise is broken. What is right is
//! said by somebody else wherever there is somebody: `serde_json`, `flate2`, a plain implementation of the definition
//! ([`reference`]), the inverse, or the same in other pieces.
//!
//! `tests/corpora.rs` runs the small corpora of the tree through the checks; the programs of `src/bin`, built by
//! `scripts/fuzz.sh`, search for other inputs with libFuzzer. An input is text where that is possible, after a byte or two of
//! options.

#[cfg(feature = "all")]
pub mod arithmetic;
pub mod csv;
pub mod encode;
pub mod fhir;
pub mod flat;
pub mod gzip;
#[cfg(feature = "all")]
pub mod http;
pub mod instant;
pub mod lines;
pub mod numeric;
pub mod reference;
#[cfg(feature = "all")]
pub mod request;
#[cfg(feature = "all")]
pub mod search;
#[cfg(feature = "all")]
pub mod signed;
#[cfg(feature = "all")]
pub mod source;
#[cfg(feature = "all")]
pub mod token;
#[cfg(feature = "all")]
pub mod view;
pub mod walk;
#[cfg(feature = "all")]
pub mod yaml;

/// A target: its name, and its check.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, as `targets.txt` lists them with what libFuzzer is told about them.
pub const TARGETS: &[Target] = &[
    #[cfg(feature = "all")]
    ("arithmetic", arithmetic::check),
    ("csv", csv::check),
    ("encode", encode::check),
    ("fhir", fhir::check),
    ("flat", flat::check),
    ("gzip", gzip::check),
    #[cfg(feature = "all")]
    ("http", http::check),
    ("instant", instant::check),
    ("lines", lines::check),
    ("numeric", numeric::check),
    #[cfg(feature = "all")]
    ("request", request::check),
    #[cfg(feature = "all")]
    ("search", search::check),
    #[cfg(feature = "all")]
    ("signed", signed::check),
    #[cfg(feature = "all")]
    ("source", source::check),
    #[cfg(feature = "all")]
    ("token", token::check),
    #[cfg(feature = "all")]
    ("view", view::check),
    #[cfg(feature = "all")]
    ("yaml", yaml::check),
];
