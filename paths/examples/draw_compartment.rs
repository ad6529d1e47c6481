//! Draws the table of a FHIR version's Patient compartment from HL7's CompartmentDefinition. `scripts/redraw-definitions.sh`
//! runs it over HL7's packages.
//!
//! Each line is a type of the compartment with the search parameters, one of which refers to the patient, separated by
//! commas. A parameter in braces is no search parameter: `{def}` is the resource itself.

use serde_json::Value;
use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let package = std::env::args().nth(1).expect("a folder of CompartmentDefinition-*.json");
    let text = fs::read(Path::new(&package).join("CompartmentDefinition-patient.json"))?;
    let definition: Value = serde_json::from_slice(&text)?;
    for resource in definition["resource"].as_array().into_iter().flatten() {
        let parameters: Vec<&str> =
            resource["param"].as_array().into_iter().flatten().filter_map(|parameter| parameter.as_str()).collect();
        if !parameters.is_empty() {
            println!("{}\t{}", resource["code"].as_str().unwrap_or_default(), parameters.join(","));
        }
    }
    Ok(())
}
