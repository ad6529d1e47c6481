//! Draws the table of a FHIR version's search parameters from HL7's SearchParameters. `scripts/redraw-definitions.sh` runs it
//! over HL7's packages.
//!
//! Each line is a parameter, its fields separated by tabs: the last part of its url, its code, its type, the types that it
//! searches, the types that its references may have, its expression, and the components of a composite, each as the last
//! part of the url of its definition, `=` and its expression, in a field of its own. Parameters without an expression have
//! an empty field; examples and those without a base are left out.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io;

const URL: &str = "http://hl7.org/fhir/SearchParameter/";

fn main() -> io::Result<()> {
    let package = std::env::args().nth(1).expect("a folder of SearchParameter-*.json");
    let mut lines = BTreeSet::new();
    for entry in fs::read_dir(package)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("SearchParameter-") && name.ends_with(".json") {
            lines.extend(line(&serde_json::from_slice(&fs::read(&path)?)?));
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn line(parameter: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",");
    let short = |url: &str| url.trim_start_matches(URL).to_owned();
    let id = short(parameter["url"].as_str()?);
    if id.starts_with("example") || id.contains("://") || !parameter["base"].is_array() {
        return None;
    }
    let fields = [
        id,
        text(&parameter["code"]),
        text(&parameter["type"]),
        list(&parameter["base"]),
        list(&parameter["target"]),
        text(&parameter["expression"]),
    ];
    let components = parameter["component"].as_array().into_iter().flatten();
    let components = components.map(|part| {
        format!("{}={}", short(part["definition"].as_str().unwrap_or_default()), text(&part["expression"]))
    });
    Some(fields.into_iter().chain(components).collect::<Vec<_>>().join("\t"))
}
