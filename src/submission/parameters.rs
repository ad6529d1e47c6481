//! Reads FHIR's Parameters as the plain object that requests are.

use fhir_bulk_pg::error::{Error, Result};
use serde_json::{Map, Value};

/// Parameters that may be repeated: each is an element of an array.
const REPEATED: [&str; 4] = ["fileRequestHeader", "oauthMetadataUrl", "metadata", "import"];
/// Members that are beside the parameters: who serves the request sets them.
const BESIDE: [&str; 2] = ["lenient", "allowedSources"];

/// The members of a request, which is a plain object or a Parameters resource.
///
/// # Errors
/// 22023 for what is neither, for a parameter without a name or a value, and for one that is given twice and is no list.
pub fn members(request: Value) -> Result<Map<String, Value>> {
    let Value::Object(mut request) = request else {
        return Err(Error::invalid_argument("the request is not a JSON object"));
    };
    match request.remove("resourceType") {
        None => return Ok(request),
        Some(Value::String(name)) if name == "Parameters" => {}
        Some(_) => return Err(Error::invalid_argument("the request is not a Parameters resource")),
    }
    let parameters = match request.remove("parameter") {
        None => Vec::new(),
        Some(Value::Array(parameters)) => parameters,
        Some(_) => return Err(Error::invalid_argument("\"parameter\" of the request is not an array")),
    };
    let mut members: Map<String, Value> =
        BESIDE.iter().filter_map(|name| Some(((*name).to_owned(), request.remove(*name)?))).collect();
    for parameter in parameters {
        let (name, value) = named(parameter)?;
        if BESIDE.contains(&name.as_str()) {
            return Err(Error::invalid_argument(format!("the request has the unknown member \"{name}\"")));
        }
        match members.get_mut(&name) {
            None if REPEATED.contains(&name.as_str()) => drop(members.insert(name, Value::Array(vec![value]))),
            None => drop(members.insert(name, value)),
            Some(Value::Array(before)) if REPEATED.contains(&name.as_str()) => before.push(value),
            Some(_) => return Err(Error::invalid_argument(format!("\"{name}\" of the request is given twice"))),
        }
    }
    Ok(members)
}

/// The name of a parameter, and its value: an object of its parts if it has some.
fn named(parameter: Value) -> Result<(String, Value)> {
    let Value::Object(mut parameter) = parameter else {
        return Err(Error::invalid_argument("a parameter of the request is not an object"));
    };
    let Some(Value::String(name)) = parameter.remove("name") else {
        return Err(Error::invalid_argument("a parameter of the request has no name"));
    };
    if let Some(Value::Array(parts)) = parameter.remove("part") {
        let mut members = Map::new();
        for part in parts {
            let (part, value) = named_part(&name, part)?;
            if members.insert(part.clone(), value).is_some() {
                let message = format!("\"{name}.{part}\" of the request is given twice");
                return Err(Error::invalid_argument(message));
            }
        }
        return Ok((name, Value::Object(members)));
    }
    let value = value(&name, parameter)?;
    Ok((name, value))
}

fn named_part(of: &str, part: Value) -> Result<(String, Value)> {
    let wrong = || Error::invalid_argument(format!("a part of \"{of}\" of the request has no name"));
    let Value::Object(mut part) = part else { return Err(wrong()) };
    let Some(Value::String(name)) = part.remove("name") else { return Err(wrong()) };
    let value = value(&format!("{of}.{name}"), part)?;
    Ok((name, value))
}

fn value(name: &str, parameter: Map<String, Value>) -> Result<Value> {
    let mut values = parameter.into_iter().filter(|(member, _)| member.starts_with("value"));
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Ok(value),
        _ => Err(Error::invalid_argument(format!("\"{name}\" of the request does not have exactly one value"))),
    }
}
