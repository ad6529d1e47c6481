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
const REPEATED: &[&str] = &[QUERIES, PATIENT];
/// Patients, whom only a Parameters resource can name.
const PATIENT: &str = "patient";
/// Members of the request that are not parameters: the address and the headers say them, or they are of another kind of
/// export.
const OWN: &[&str] =
    &["request", "lenient", "level", "group", "fileSizes", "allowedTypes", "resourceTypes", "since", "subjects"];

/// A flag; `bulk_export` says what is wrong with another value.
const PARTIAL: &str = "allowPartialManifests";

/// What becomes of parameters that are unknown or have a wrong value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// They are refused.
    Strict,
    /// They are passed on as they are: `bulk_export` ignores them, and says so in the files of `error`.
    Lenient,
}

impl Handling {
    /// What a request's Prefer header says.
    pub fn of(preference: Option<&str>) -> Handling {
        let is_lenient = preference.is_some_and(|handling| handling.eq_ignore_ascii_case("lenient"));
        if is_lenient { Handling::Lenient } else { Handling::Strict }
    }
}

/// The request of a query string.
///
/// # Errors
/// 400 for a parameter that is empty, and for a time that is none, unless it is lenient; for `patient`, which a URL cannot
/// have, and those that are not for clients.
pub fn of_query(parameters: &mut Parameters, handling: Handling) -> Result<Object> {
    if !parameters.texts(PATIENT).is_empty() {
        return Err(Problem::parameter(PATIENT, "needs POST and a Parameters resource"));
    }
    let mut request = Object::default();
    let mut insert = |name: &str, texts: Vec<String>| {
        if texts.iter().any(String::is_empty) && handling == Handling::Strict {
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
    for name in ["_outputFormat", "organizeOutputBy"] {
        insert(name, parameters.text(name).into_iter().collect())?;
    }
    for name in ["_since", "_until"] {
        let text = match handling {
            Handling::Strict => parameters.instant(name)?,
            Handling::Lenient => parameters.instant_or_text(name),
        };
        if let Some(text) = text {
            request.insert(name, text);
        }
    }
    if let Some(text) = parameters.text(PARTIAL) {
        let value = text.parse::<bool>().map_or(Value::String(text), Value::Bool);
        request.insert(PARTIAL, value);
    }
    let queries = parameters.queries(QUERIES)?;
    if !queries.is_empty() {
        request.insert(QUERIES, queries);
    }
    if handling == Handling::Lenient {
        for (name, texts) in parameters.rest() {
            if OWN.contains(&name.as_str()) {
                return Err(unknown(&name));
            }
            // A second one makes an array of a text, which is no value.
            match <[String; 1]>::try_from(texts) {
                Ok([text]) if !request.contains(&name) => request.insert(&name, text),
                Ok(texts) => request.insert(&name, Vec::from(texts)),
                Err(texts) => request.insert(&name, texts),
            }
        }
    }
    Ok(request)
}

/// The request of a Parameters resource.
///
/// # Errors
/// 400 for another resource, for a parameter without a name, and for those that are not for clients; for a parameter without
/// a value, with a value of a type that no parameter here has, and for one that is given twice and is no list, unless it is
/// lenient.
pub fn of_resource(resource: &Object, handling: Handling) -> Result<Object> {
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
        let name = name_of(part)?;
        let value = match value_of(name, part) {
            Err(_) if handling == Handling::Lenient => part.clone(),
            value => value?,
        };
        match (values.get_mut(name), value) {
            (Some(Value::Array(before)), value) if REPEATED.contains(&name) => before.push(value),
            (None, value) if REPEATED.contains(&name) => drop(values.insert(name.to_owned(), vec![value].into())),
            (None, value) => drop(values.insert(name.to_owned(), value)),
            (Some(Value::String(before)), Value::String(value)) if LISTS.contains(&name) => {
                before.push(',');
                before.push_str(&value);
            }
            (Some(before), value) if handling == Handling::Lenient => *before = vec![before.take(), value].into(),
            _ => return Err(Problem::parameter(name, "is given twice")),
        }
    }
    let mut request = Object::default();
    values.into_iter().for_each(|(name, value)| request.insert(&name, value));
    Ok(request)
}

/// Checks that no list of a Parameters resource is joined by commas, which version 4 does not allow: each value of a list is
/// a parameter of its own.
///
/// # Errors
/// 400, with the list.
pub fn has_no_joined_lists(resource: &Object) -> Result<()> {
    let Some(Value::Array(parts)) = resource.get("parameter")? else { return Ok(()) };
    let is_joined = |name: &str, part: &Value| {
        LISTS.contains(&name)
            && value_of(name, part).is_ok_and(|value| value.as_str().is_some_and(|text| text.contains(',')))
    };
    let joined = parts.iter().find_map(|part| part["name"].as_str().filter(|name| is_joined(name, part)));
    joined.map_or(Ok(()), |name| Err(Problem::parameter(name, "has a comma; repeat the parameter for each value")))
}

/// The name of a parameter in a Parameters resource.
fn name_of(part: &Value) -> Result<&str> {
    match part["name"].as_str() {
        None => Err(Problem::bad_request("a parameter has no name")),
        Some(name) if OWN.contains(&name) => Err(unknown(name)),
        Some(name) => Ok(name),
    }
}

/// The value of a parameter in a Parameters resource. Of a Coding the value is its code, of a Reference the reference.
///
/// # Errors
/// 400 for a parameter without a value, with several, or with one of a type that no parameter here has.
pub fn value_of(name: &str, part: &Value) -> Result<Value> {
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
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(value.clone()),
        _ => Err(Problem::parameter(name, &format!("has a {value_type}, which is not supported"))),
    }
}

fn unknown(name: &str) -> Problem {
    Problem::bad_request(format!("unknown parameter {name}")).at(name)
}

/// Adds to the error of a parameter that no kick-off has that it is not supported.
pub fn unsupported(problem: Problem) -> Problem {
    let is_unknown = problem.message.starts_with("unknown parameter ");
    Problem { issue: if is_unknown { Some("not-supported") } else { problem.issue }, ..problem }
}

/// Adds what an error of a kick-off is about: the parameter, and the code of its issue. The Group is part of the address;
/// everything else that is not there is a parameter's mistake.
pub fn located(problem: Problem) -> Problem {
    let is_about = |beginning: &str| problem.message.starts_with(beginning);
    let is_unknown_type = problem.status == StatusCode::NOT_FOUND && is_about("there is no table for resource type");
    if problem.status != StatusCode::BAD_REQUEST && !is_unknown_type {
        return problem;
    }
    let is_unknown_patient =
        is_about("there is no Patient ") || problem.message.contains(" is not a member of the Group");
    let (parameter, issue) = match &problem.parameter {
        _ if is_unknown_type => (Some("_type".to_owned()), Some("not-found")),
        _ if is_unknown_patient => (Some("patient".to_owned()), Some("not-found")),
        // A search parameter is named: it is in one of the queries.
        Some(_) => (Some(QUERIES.to_owned()), problem.issue),
        None if is_about("the request has the unknown member ") => {
            (named(&problem.message).map(str::to_owned), Some("not-supported"))
        }
        None => (named(&problem.message).map(str::to_owned), problem.issue),
    };
    Problem { status: StatusCode::BAD_REQUEST, parameter, issue, ..problem }
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
        let request = of_query(&mut parameters, Handling::Strict);
        read(request.and_then(|request| parameters.finish().map(|()| request)))
    }

    fn resource(parameters: Value) -> std::result::Result<Value, String> {
        let mut resource = Object::default();
        resource.insert("resourceType", "Parameters");
        resource.insert("parameter", parameters);
        read(of_resource(&resource, Handling::Strict))
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
    fn what_a_lenient_request_may_ignore_is_passed_on_as_it_is() {
        let query = |query: &str| {
            let mut parameters = Parameters::parse(query);
            let request = of_query(&mut parameters, Handling::Lenient);
            read(request.and_then(|request| parameters.finish().map(|()| request)))
        };
        assert_eq!(
            query("_since=soon&_type=&x=1&y=2&y=3&_until=2024-01-01T00:00:00+01:00").unwrap(),
            json!({"_since": "soon", "_type": "", "x": "1", "y": ["2", "3"], "_until": "2024-01-01T00:00:00+01:00"})
        );
        assert_eq!(query("_since=2024-01-01&_since=2024-01-02").unwrap(), json!({"_since": ["2024-01-02"]}));
        for name in OWN {
            assert_eq!(query(&format!("{name}=1")), Err(format!("unknown parameter {name}")));
        }
        assert!(query("patient=1").unwrap_err().contains("needs POST"));
        let resource = |parts: Value| {
            let mut resource = Object::default();
            resource.insert("resourceType", "Parameters");
            resource.insert("parameter", parts);
            read(of_resource(&resource, Handling::Lenient))
        };
        let part = json!({"name": "_since", "valueQuantity": {"value": 1}});
        assert_eq!(resource(json!([part])).unwrap(), json!({"_since": part}));
        let twice = json!([{"name": "_since", "valueDate": "2024"}, {"name": "_since", "valueDate": "2025"}]);
        assert_eq!(resource(twice).unwrap(), json!({"_since": ["2024", "2025"]}));
        for name in OWN {
            assert!(resource(json!([{"name": name, "valueString": "x"}])).is_err(), "{name}");
        }
        assert!(resource(json!([{"valueString": "x"}])).is_err());
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
        for (message, issue) in [
            (r#"the request has the unknown member "x""#, "not-supported"),
            (r#"there is no Patient "x""#, "not-found"),
            (r#"Patient "x" is not a member of the Group"#, "not-found"),
            (r#"_since "x" is neither an instant nor a date"#, "invalid"),
        ] {
            assert_eq!(located(Problem::bad_request(message)).issue_type(), issue, "{message}");
        }
        let nobody = located(Problem::new(StatusCode::NOT_FOUND, "there is no table for resource type \"x\""));
        assert_eq!((nobody.status.as_u16(), nobody.issue_type()), (400, "not-found"));
        assert_eq!(nobody.parameter.as_deref(), Some("_type"));
        let group = located(Problem::new(StatusCode::NOT_FOUND, "there is no Group \"x\""));
        assert_eq!((group.status.as_u16(), group.issue_type()), (404, "not-found"));
        assert_eq!(of("permission denied"), None);
        assert_eq!(located(Problem::bad_request("").at("code:in")).parameter.as_deref(), Some("_typeFilter"));
        assert_eq!(located(Problem::new(StatusCode::NOT_FOUND, "_type")).parameter, None);
    }
}
