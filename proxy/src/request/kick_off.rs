//! Reads the parameters of `$export`, from a URL or from a Parameters resource, as the request that `bulk_export` takes.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::error::{Problem, Result};
use crate::request::parameters::Parameters;
use crate::request::parse::Object;

/// Lists: HL7 allows a client to repeat the parameter or to separate values by commas.
const LISTS: &[&str] = &["_type", "_elements", "includeAssociatedData"];
/// Search queries, which have commas of their own: each value of a repeated parameter is one by itself.
const QUERIES: &str = "_typeFilter";
/// Parameters of which each value of a repeated one is an element.
const REPEATED: &[&str] = &[QUERIES, "patient"];
/// Members of the request that are not parameters: the address and the headers say them.
const OWN: &[&str] = &["request", "lenient", "level", "group"];

/// The request of a query string.
///
/// # Errors
/// 400 for a parameter that is empty, and for a time that is none.
pub fn of_query(parameters: &mut Parameters) -> Result<Object> {
    let mut request = Object::default();
    let mut insert = |name: &str, texts: Vec<String>| {
        if texts.iter().any(String::is_empty) {
            return Err(Problem::parameter(name, "is empty"));
        }
        if !texts.is_empty() {
            request.insert(name, texts.join(","));
        }
        Ok(())
    };
    for name in LISTS {
        insert(name, parameters.texts(name))?;
    }
    insert("_outputFormat", parameters.text("_outputFormat").into_iter().collect())?;
    for name in ["_since", "_until"] {
        if let Some(text) = parameters.instant(name)? {
            request.insert(name, text);
        }
    }
    let queries = parameters.queries(QUERIES)?;
    if !queries.is_empty() {
        request.insert(QUERIES, queries);
    }
    Ok(request)
}

/// The request of a Parameters resource.
///
/// # Errors
/// 400 for another resource; for a parameter without a name or a value, with a value of a type that no parameter here has,
/// and for one that is given twice and is no list.
pub fn of_resource(resource: &Object) -> Result<Object> {
    if resource.get("resourceType")? != Some(Value::from("Parameters")) {
        return Err(Problem::bad_request("the body is not a Parameters resource"));
    }
    let parts = match resource.get("parameter")? {
        None => Vec::new(),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err(Problem::bad_request("parameter is not an array")),
    };
    let mut values = Map::new();
    for part in &parts {
        let (name, value) = named_value(part)?;
        match (values.get_mut(name), value) {
            (Some(Value::Array(before)), value) if REPEATED.contains(&name) => before.push(value),
            (None, value) if REPEATED.contains(&name) => drop(values.insert(name.to_owned(), vec![value].into())),
            (None, value) => drop(values.insert(name.to_owned(), value)),
            (Some(Value::String(before)), Value::String(value)) if LISTS.contains(&name) => {
                before.push(',');
                before.push_str(&value);
            }
            _ => return Err(Problem::parameter(name, "is given twice")),
        }
    }
    let mut request = Object::default();
    values.into_iter().for_each(|(name, value)| request.insert(&name, value));
    Ok(request)
}

/// The name and the value of a parameter in a Parameters resource. Of a Coding the value is its code, of a Reference the
/// reference.
fn named_value(part: &Value) -> Result<(&str, Value)> {
    let Some(name) = part["name"].as_str() else {
        return Err(Problem::bad_request("a parameter has no name"));
    };
    if OWN.contains(&name) {
        return Err(Problem::bad_request(format!("unknown parameter {name}")).at(name));
    }
    let mut values = part.as_object().into_iter().flatten().filter(|(member, _)| member.starts_with("value"));
    let (Some((value_type, value)), None) = (values.next(), values.next()) else {
        return Err(Problem::parameter(name, "must have exactly one value"));
    };
    let value = match value_type.as_str() {
        "valueReference" => &value["reference"],
        "valueCoding" => &value["code"],
        _ => value,
    };
    match value {
        Value::String(text) if text.is_empty() => Err(Problem::parameter(name, "is empty")),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok((name, value.clone())),
        _ => Err(Problem::parameter(name, &format!("has a {value_type}, which is not supported"))),
    }
}

/// Adds the parameter that an error of `bulk_export` is about.
pub fn located(problem: Problem) -> Problem {
    if problem.status != StatusCode::BAD_REQUEST {
        return problem;
    }
    let parameter = match problem.parameter {
        // A search parameter is named: it is in one of the queries.
        Some(_) => Some(QUERIES.to_owned()),
        None => named(&problem.message).map(str::to_owned),
    };
    Problem { parameter, ..problem }
}

/// The parameter that a message begins with, or that it says is unknown.
fn named(message: &str) -> Option<&str> {
    let unknown = message.strip_prefix("the request has the unknown member \"");
    let text = unknown.or_else(|| message.strip_prefix('"')).unwrap_or(message);
    let length = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let name = &text[..length];
    (unknown.is_some()
        || name.starts_with('_')
        || ["contentEncoding", "includeAssociatedData", "patient"].contains(&name))
    .then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(object: Result<Object>) -> std::result::Result<Value, String> {
        object.map(|object| serde_json::from_str(&object.text()).unwrap()).map_err(|problem| problem.message)
    }

    fn query(query: &str) -> std::result::Result<Value, String> {
        let mut parameters = Parameters::parse(query);
        let request = of_query(&mut parameters);
        read(request.and_then(|request| parameters.finish().map(|()| request)))
    }

    fn resource(parameters: Value) -> std::result::Result<Value, String> {
        let mut resource = Object::default();
        resource.insert("resourceType", "Parameters");
        resource.insert("parameter", parameters);
        read(of_resource(&resource))
    }

    #[test]
    fn only_lists_are_joined_by_commas() {
        let filters =
            "_typeFilter=Observation%3Fcategory%3Da%252Cb%2CCondition%3Fcode%3Dc&_typeFilter=Patient?gender=male,other";
        assert_eq!(
            query(&format!("_type=Patient,Condition&{filters}&_type=Observation&_elements=id&_elements=name")).unwrap(),
            json!({"_type": "Patient,Condition,Observation", "_elements": "id,name",
                "_typeFilter": ["Observation?category=a%2Cb,Condition?code=c", "Patient?gender=male,other"]})
        );
        let string = |name: &str, value: &str| json!({"name": name, "valueString": value});
        assert_eq!(
            resource(json!([
                string("_type", "Patient"),
                string("_typeFilter", "Patient?name=a,b"),
                string("_type", "Condition,Group"),
                string("_typeFilter", "Patient?name=c%2Cd+e")
            ]))
            .unwrap(),
            json!({"_type": "Patient,Condition,Group", "_typeFilter": ["Patient?name=a,b", "Patient?name=c%2Cd+e"]})
        );
        let patient = |id: &str| json!({"name": "patient", "valueReference": {"reference": format!("Patient/{id}")}});
        let patients = resource(json!([patient("a"), patient("b")])).unwrap();
        assert_eq!(patients, json!({"patient": ["Patient/a", "Patient/b"]}));
        for name in ["_since", "_outputFormat", "contentEncoding"] {
            let twice = resource(json!([string(name, "1"), string(name, "2")]));
            assert_eq!(twice, Err(format!("the parameter {name} is given twice")));
        }
        for twice in ["_since=2024-01-01&_since=2024-01-01", "_outputFormat=ndjson&_outputFormat=ndjson"] {
            assert!(query(twice).unwrap_err().ends_with(" is given twice"), "{twice}");
        }
        for empty in ["_type=", "_typeFilter=", "_typeFilter", "_typeFilter=Patient?name=a&_typeFilter=", "_elements="]
        {
            assert!(query(empty).unwrap_err().ends_with(" is empty"), "{empty}");
        }
    }

    #[test]
    fn a_value_may_have_any_type_that_stands_for_one_text_or_flag() {
        for (value_type, value, read) in [
            ("valueString", json!("a"), json!("a")),
            ("valueUri", json!("a"), json!("a")),
            ("valueUrl", json!("a"), json!("a")),
            ("valueCanonical", json!("a"), json!("a")),
            ("valueCode", json!("a"), json!("a")),
            ("valueId", json!("a"), json!("a")),
            ("valueInstant", json!("2024-01-01T00:00:00Z"), json!("2024-01-01T00:00:00Z")),
            ("valueDateTime", json!("2024"), json!("2024")),
            ("valueDate", json!("2024-01-01"), json!("2024-01-01")),
            ("valueBoolean", json!(true), json!(true)),
            ("valuePositiveInt", json!(7), json!(7)),
            ("valueCoding", json!({"system": "s", "code": "c"}), json!("c")),
            ("valueReference", json!({"reference": "Patient/1", "display": "x"}), json!("Patient/1")),
        ] {
            let part = json!({"name": "x", value_type: value, "_valueString": {"id": "1"}, "extension": []});
            assert_eq!(resource(json!([part])).unwrap(), json!({"x": read}), "{value_type}");
        }
        for part in [
            json!({"name": "x"}),
            json!({"name": "x", "part": []}),
            json!({"name": "x", "valueString": ""}),
            json!({"name": "x", "valueString": ["a"]}),
            json!({"name": "x", "valueString": null}),
            json!({"name": "x", "valueCode": "a", "valueString": "a"}),
            json!({"name": "x", "valueCoding": {"display": "c"}}),
            json!({"name": "x", "valueCoding": {"code": {}}}),
            json!({"name": "x", "valueReference": "Patient/1"}),
            json!({"name": "x", "valueQuantity": {"value": 1}}),
        ] {
            let refused = resource(json!([part])).unwrap_err();
            assert!(refused.starts_with("the parameter x "), "{part}: {refused}");
        }
        for name in OWN {
            let refused = resource(json!([{"name": name, "valueBoolean": true}]));
            assert_eq!(refused, Err(format!("unknown parameter {name}")));
        }
        for wrong in [json!("x"), json!([7]), json!([{"valueString": "x"}])] {
            assert!(resource(wrong).is_err());
        }
    }

    #[test]
    fn errors_of_the_function_are_located_in_the_request() {
        let of = |message: &str| located(Problem::bad_request(message)).parameter;
        for (message, parameter) in [
            (r#"_since "x" is neither an instant nor a date"#, "_since"),
            (r#""_type" of the request names no type"#, "_type"),
            (r#"_typeFilter is for Group, which is not exported"#, "_typeFilter"),
            (r#"contentEncoding "br" is not known"#, "contentEncoding"),
            (r#""patient" of the request is for the levels patient and group"#, "patient"),
            (r#"the request has the unknown member "x". Its members are _type and more"#, "x"),
        ] {
            assert_eq!(of(message).as_deref(), Some(parameter), "{message}");
        }
        assert_eq!(of("permission denied"), None);
        assert_eq!(located(Problem::bad_request("").at("code:in")).parameter.as_deref(), Some("_typeFilter"));
        assert_eq!(located(Problem::new(StatusCode::NOT_FOUND, "_type")).parameter, None);
    }
}
