//! The file of submitters: who may submit, as which role, and from which sources.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::{fmt, fs};

use fhir_bulk_transfer::Policy;
use serde::Deserialize;

use crate::config;
use crate::request::yaml;

/// A submitter's identifier, and the role that submits for it.
type Key = (String, String, String);

/// All submitters, each with the beginnings of the URLs that its manifests and their files may have.
#[derive(Default)]
pub struct Submitters(HashMap<Key, Vec<String>>);

/// A submitter as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    system: String,
    value: String,
    role: String,
    sources: Vec<String>,
}

impl Submitters {
    /// Reads the file: a YAML list.
    ///
    /// # Errors
    /// What is wrong with it, and with which submitter.
    pub fn read(path: &Path) -> Result<Submitters, Box<dyn Error>> {
        let in_file = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| in_file(&error))?;
        let json = yaml::to_json(&text, config::MOST_YAML).map_err(|error| in_file(&error))?;
        let lines: Vec<Line> = serde_json::from_str(&json).map_err(|error| in_file(&error))?;
        let mut submitters = HashMap::new();
        for Line { system, value, role, sources } in lines {
            let of_submitter = |error: &dyn fmt::Display| in_file(&format!("submitter {system:?} {value:?}: {error}"));
            if value.is_empty() {
                return Err(of_submitter(&"value is empty").into());
            }
            if role.is_empty() || role.contains('\0') {
                return Err(of_submitter(&"role is not the name of a role").into());
            }
            if sources.is_empty() {
                return Err(of_submitter(&"sources is empty").into());
            }
            Policy::default().within(&sources).map_err(|error| {
                of_submitter(&format!("sources: {:?} is not scheme://host[:port][/prefix]", error.0))
            })?;
            if submitters.insert((system.clone(), value.clone(), role), sources).is_some() {
                return Err(of_submitter(&"it is there twice with this role").into());
            }
        }
        Ok(Submitters(submitters))
    }

    /// The beginnings of URLs that a submitter's manifests and files may have, if the role may submit for it.
    pub fn sources(&self, system: &str, value: &str, role: &str) -> Option<&[String]> {
        self.0.get(&(system.to_owned(), value.to_owned(), role.to_owned())).map(Vec::as_slice)
    }

    /// Whether nobody may submit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
