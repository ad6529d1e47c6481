//! Queries made of the values that resources have.

use super::Stored;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::resource::write_value;
use fhir_bulk_paths::compile::compile;
use fhir_bulk_paths::item::{Item, Value as Found};
use fhir_bulk_paths::model::Model;
use fhir_bulk_paths::program::Scope;
use fhir_bulk_paths::search::{Definition, Kind, all_parameters};
use serde_json::Value;
use std::ops::ControlFlow::Continue;

/// Deterministic random numbers.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The parameters of a type that compile and are no composites.
pub fn parameters(version: Version, resource_type: &str) -> Vec<Definition> {
    let model = Model::of(version);
    let is_base = |name: &String| name == resource_type || matches!(name.as_str(), "Resource" | "DomainResource");
    let is_usable = |definition: &Definition| {
        definition.base.iter().any(is_base)
            && !matches!(definition.kind, Kind::Composite | Kind::Special)
            && definition.code != "_in"
            && !definition.expression.is_empty()
            && matches!(compile(model, resource_type, &definition.expression), Ok(Some(_)))
    };
    all_parameters(version).filter(is_usable).collect()
}

/// Values, as they stand in a query, of which the resource has to be found by each.
pub fn values(version: Version, definition: &Definition, stored: &Stored) -> Vec<String> {
    let model = Model::of(version);
    let program = compile(model, &stored.resource_type, &definition.expression).unwrap().unwrap().program;
    let mut found = Vec::new();
    let resource = stored.resource();
    let _ = program.run(&Scope::new(resource, &[]), resource.item(), &mut |item| {
        found.extend(of_item(version, definition.kind, &item));
        Continue(())
    });
    found.retain(|value| !value.is_empty());
    found
}

fn of_item(version: Version, kind: Kind, item: &Item<'_>) -> Vec<String> {
    let type_name = Model::of(version).name(item.type_id);
    let json = match item.value {
        Found::Text(text) => Value::from(text),
        Found::Boolean(value) => Value::from(value),
        Found::Json(value) => {
            let mut out = Vec::new();
            write_value(version, type_name, value, &mut out);
            serde_json::from_slice(&out).unwrap()
        }
        _ => return Vec::new(),
    };
    match kind {
        Kind::Token => token(type_name, &json),
        Kind::Reference => reference(type_name, &json),
        Kind::Date => date(type_name, &json),
        Kind::String => text(&json),
        Kind::Uri => json.as_str().map(escaped).into_iter().collect(),
        Kind::Number | Kind::Quantity => quantity(kind, &json),
        Kind::Composite | Kind::Special => Vec::new(),
    }
}

fn token(type_name: &str, json: &Value) -> Vec<String> {
    let coded = |of: &Value, code: &str| {
        let text = |name: &str| of[name].as_str().filter(|text| !text.is_empty()).map(escaped);
        let (system, code) = (text("system"), text(code));
        match (system, code) {
            (Some(system), Some(code)) => vec![format!("{system}|{code}"), format!("{system}|"), code],
            (None, Some(code)) => vec![format!("|{code}"), code],
            _ => Vec::new(),
        }
    };
    match (type_name, json) {
        (_, Value::String(text)) => vec![escaped(text), format!("s|{}", escaped(text))],
        (_, Value::Bool(value)) => vec![value.to_string()],
        ("CodeableConcept", of) => {
            of["coding"].as_array().into_iter().flatten().flat_map(|of| coded(of, "code")).collect()
        }
        ("Coding", of) => coded(of, "code"),
        ("Identifier" | "ContactPoint", of) => coded(of, "value"),
        _ => Vec::new(),
    }
}

fn reference(type_name: &str, json: &Value) -> Vec<String> {
    let of = if type_name == "CodeableReference" { &json["reference"] } else { json };
    match of {
        Value::String(url) if url.split('|').count() == 2 => {
            vec![escaped(url), escaped(url.split('|').next().unwrap())]
        }
        Value::String(url) => vec![escaped(url)],
        // A Bundle's resource is no reference.
        of if of["resourceType"].is_string() => Vec::new(),
        // A local reference names nothing that a query could name. Some of HL7's examples have an id only, which is no url.
        of => {
            let is_url = |url: &&str| !url.starts_with('#') && url.contains(['/', ':']);
            of["reference"].as_str().filter(is_url).map(escaped).into_iter().collect()
        }
    }
}

fn date(type_name: &str, json: &Value) -> Vec<String> {
    let text = |of: &Value| of.as_str().filter(|text| text.len() >= 4).map(escaped);
    match type_name {
        "date" | "dateTime" | "instant" => text(json).into_iter().collect(),
        "Period" => {
            let (start, end) = (text(&json["start"]), text(&json["end"]));
            let start =
                start.into_iter().flat_map(|start| ["ge", "ne1000,gt"].map(|prefix| format!("{prefix}{start}")));
            start.take(1).chain(end.map(|end| format!("le{end}"))).collect()
        }
        _ => Vec::new(),
    }
}

fn text(json: &Value) -> Vec<String> {
    let parts = ["family", "city", "text"].map(|name| json[name].as_str());
    let texts = parts.into_iter().chain([json.as_str()]).flatten();
    let start = |text: &str| escaped(&text.chars().take(5).collect::<String>());
    texts.filter(|text| !text.is_empty()).map(|text| start(&text.to_uppercase())).collect()
}

fn quantity(kind: Kind, json: &Value) -> Vec<String> {
    let value = if json.is_number() { json } else { &json["value"] };
    let number = value.to_string();
    // Exponents and many digits are for other tests.
    if !value.is_number() || number.len() > 20 || number.contains(['e', 'E', '+']) {
        return Vec::new();
    }
    let code = json["code"].as_str().or_else(|| json["unit"].as_str()).map(escaped);
    let with_unit = code.filter(|_| kind == Kind::Quantity).map(|code| format!("{number}||{code}"));
    [number.clone(), format!("ge{number}"), format!("le{number}")].into_iter().chain(with_unit).collect()
}

/// A text in a query: escaped for search, then for a url.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b',' | b'|' | b'$' | b'\\' => out.push_str(&format!("%5C%{byte:02X}")),
            b'%' | b'&' | b'=' | b'+' | b'#' => out.push_str(&format!("%{byte:02X}")),
            byte if byte.is_ascii_graphic() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
