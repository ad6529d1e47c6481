//! Draws the table of a FHIR version from HL7's StructureDefinitions: the elements of each structure with their types.
//! `scripts/redraw-definitions.sh` runs it over HL7's packages.
//!
//! Each line of the table is a structure: its path, then its elements in the definition's order, as `name=Type`,
//! `name=Path` (a backbone or a content reference) or `name[x]=Type,Type,…`. `name*` is a list. The names of primitive types
//! start with a small letter. A structure without elements of its own is left out: it has only extensions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

fn main() -> io::Result<()> {
    let source = std::env::args().nth(1).expect("a folder of StructureDefinition-*.json, or an *.ndjson.gz");
    print!("{}", draw(&read(Path::new(&source))?));
    Ok(())
}

/// All StructureDefinitions of a package folder or of an NDJSON file.
pub fn read(source: &Path) -> io::Result<Vec<Value>> {
    let json = |text: &[u8]| serde_json::from_slice(text).map_err(io::Error::from);
    if source.is_dir() {
        let mut found = Vec::new();
        for entry in fs::read_dir(source)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("StructureDefinition-") && name.ends_with(".json") {
                let mut text = Vec::new();
                File::open(&path)?.read_to_end(&mut text)?;
                found.push(json(&text)?);
            }
        }
        return Ok(found);
    }
    BufReader::new(MultiGzDecoder::new(File::open(source)?)).lines().map(|line| json(line?.as_bytes())).collect()
}

/// FHIR's name of a type: ids and urls have types of FHIRPath's own.
fn primitive_of_system(code: String) -> String {
    match code.strip_prefix("http://hl7.org/fhirpath/System.") {
        Some(name) => name[..1].to_lowercase() + &name[1..],
        None => code,
    }
}

/// The table's text.
pub fn draw(definitions: &[Value]) -> String {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    // Profiles constrain a type, and add no elements.
    let of_types: BTreeMap<String, &Value> = definitions
        .iter()
        .filter(|d| d["resourceType"] == "StructureDefinition" && d["derivation"] != "constraint")
        .map(|d| (text(d, "type"), d))
        .collect();
    let resources: BTreeSet<&str> =
        of_types.iter().filter(|(_, d)| d["kind"] == "resource").map(|(name, _)| name.as_str()).collect();

    let mut structures: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, definition) in &of_types {
        if definition["kind"] == "primitive-type" || definition["kind"] == "logical" {
            continue;
        }
        for element in definition["snapshot"]["element"].as_array().into_iter().flatten() {
            let path = text(element, "path");
            let Some((parent, field)) = path.rsplit_once('.') else {
                structures.entry(name.clone()).or_default();
                continue;
            };
            if matches!(field, "extension" | "modifierExtension") {
                continue;
            }
            let codes: Vec<String> = element["type"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|t| primitive_of_system(text(t, "code")))
                .collect();
            let target = match (codes.as_slice(), element["contentReference"].as_str()) {
                (_, Some(reference)) => reference.rsplit_once('#').map_or("", |(_, path)| path).to_owned(),
                _ if field.ends_with("[x]") => codes.join(","),
                ([code], _) if matches!(code.as_str(), "BackboneElement" | "Element") => path.clone(),
                ([code], _) if resources.contains(code.as_str()) => "Resource".to_owned(),
                ([code], _) => code.clone(),
                _ => continue,
            };
            // Of an element, not of one path to it: a profile's slices have other cardinalities.
            let list = if element["base"]["max"].as_str().or(element["max"].as_str()) == Some("1") { "" } else { "*" };
            structures.entry(parent.to_owned()).or_default().push(format!("{field}{list}={target}"));
        }
    }
    let mut table = String::new();
    for (path, fields) in structures {
        let is_resource = resources.contains(path.as_str());
        if !fields.is_empty() {
            let mark = if is_resource { "!" } else { "" };
            table.push_str(&format!("{mark}{path} {}\n", fields.join(" ")));
        }
    }
    table
}
