//! Reads the parameters of `$sql-run`, from a URL and from a Parameters resource, as the request that `bulk_sql_run` takes; and
//! says which of them its errors are about.

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

use crate::error::{Problem, Result};
use crate::request::kick_off::value_of;
use crate::request::parameters::Parameters;
use crate::request::parse::Object;

/// An operation: what it calls its parameters of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `$sql-run`.
    SqlRun,
    /// `$viewdefinition-run` and `ViewDefinition/$run`, as they were before version 3.
    ViewRun,
}

/// A format: its code, and the media types that stand for it; the first one is sent.
pub struct Format {
    pub code: &'static str,
    pub types: &'static [&'static str],
}

static FORMATS: [Format; 4] = [
    Format { code: "ndjson", types: &["application/x-ndjson", "application/ndjson"] },
    Format { code: "csv", types: &["text/csv"] },
    Format { code: "json", types: &["application/json"] },
    Format { code: "parquet", types: &["application/vnd.apache.parquet"] },
];
/// Parameters whose value is a resource, which a URL cannot have.
const RESOURCES: [&str; 4] = ["subjectResource", "parameters", "context", "resource"];
/// Parameters of which each value of a repeated one is an element.
const LISTS: [&str; 4] = ["patient", "group", "context", "resource"];
const TEXTS: [&str; 4] = ["subjectCanonical", "subjectReference", "_format", "_since"];
const FLAG: &str = "header";
const NUMBER: &str = "_limit";

impl Operation {
    /// The member of the request for a parameter; `None` for one that the operation does not have.
    fn member(self, name: &str) -> Option<&'static str> {
        let member = match (self, name) {
            (Operation::ViewRun, "viewReference") => "subjectReference",
            (Operation::ViewRun, "viewResource") => "subjectResource",
            (
                Operation::ViewRun,
                "subjectCanonical" | "subjectReference" | "subjectResource" | "context" | "parameters",
            ) => "",
            _ => name,
        };
        RESOURCES.into_iter().chain(LISTS).chain(TEXTS).chain([FLAG, NUMBER]).find(|known| *known == member)
    }

    /// The parameter for a member of the request, where errors are about it.
    fn parameter(self, member: &str) -> &str {
        match (self, member) {
            (Operation::SqlRun, "subjectCanonical" | "subjectReference" | "subjectResource") => "subject",
            (Operation::ViewRun, "subject" | "subjectCanonical" | "subjectReference") => "viewReference",
            (Operation::ViewRun, "subjectResource") => "viewResource",
            _ => member,
        }
    }
}

/// The request.
///
/// # Errors
/// 400 for a parameter that the operation does not have, for one with a value of another type, for one that is given twice and
/// is no list, and for one in the URL that is a resource.
pub fn read(operation: Operation, parameters: &mut Parameters, body: Option<&Object>) -> Result<Object> {
    let mut values = Map::new();
    let since = parameters.instant("_since")?;
    let texts =
        parameters.rest().into_iter().flat_map(|(name, texts)| texts.into_iter().map(move |text| (name.clone(), text)));
    for (name, text) in since.map(|since| ("_since".to_owned(), since)).into_iter().chain(texts) {
        let member = member(operation, &name)?;
        if RESOURCES.contains(&member) {
            return Err(Problem::parameter(&name, "needs POST and a Parameters resource"));
        }
        let value = match member {
            FLAG => text.parse::<bool>().map_or(Value::from(text), Value::from),
            NUMBER => text.parse::<u64>().map_or(Value::from(text), Value::from),
            _ => Value::from(text),
        };
        add(&mut values, &name, member, value)?;
    }
    let parts = match body {
        None => Vec::new(),
        Some(body) if body.get("resourceType")? != Some(Value::from("Parameters")) => {
            return Err(Problem::bad_request("the body is not a Parameters resource"));
        }
        Some(body) => match body.get("parameter")? {
            None => Vec::new(),
            Some(Value::Array(parts)) => parts,
            Some(_) => return Err(Problem::bad_request("parameter is not an array")),
        },
    };
    for part in parts {
        let name = part["name"].as_str().ok_or_else(|| Problem::bad_request("a parameter has no name"))?;
        let member = member(operation, name)?;
        let value = match RESOURCES.contains(&member) {
            true if part["resource"].is_object() => part["resource"].clone(),
            true => return Err(Problem::parameter(name, "is not a resource")),
            false => value_of(name, &part)?,
        };
        add(&mut values, name, member, value)?;
    }
    let mut request = Object::default();
    values.into_iter().for_each(|(name, value)| request.insert(&name, value));
    Ok(request)
}

fn member(operation: Operation, name: &str) -> Result<&'static str> {
    let unknown = || Problem::bad_request(format!("the parameter {name} is not supported")).at(name);
    operation.member(name).ok_or_else(|| Problem { issue: Some("not-supported"), ..unknown() })
}

fn add(values: &mut Map<String, Value>, name: &str, member: &str, value: Value) -> Result<()> {
    match values.get_mut(member) {
        Some(Value::Array(before)) if LISTS.contains(&member) => before.push(value),
        Some(_) => return Err(Problem::parameter(name, "is given twice")),
        None if LISTS.contains(&member) => drop(values.insert(member.to_owned(), vec![value].into())),
        None => drop(values.insert(member.to_owned(), value)),
    }
    Ok(())
}

/// Checks that a request does not name a subject beside that of its address.
///
/// # Errors
/// 400, with the parameter.
pub fn has_no_subject(request: &Object) -> Result<()> {
    let named = ["subjectReference", "subjectResource"].into_iter().find(|member| request.contains(member));
    let name = named.map(|member| Operation::ViewRun.parameter(member));
    name.map_or(Ok(()), |name| Err(Problem::parameter(name, "is for an address without the view's id")))
}

/// The format of the answer: that of `_format`, else what the caller accepts first.
///
/// # Errors
/// 400 for another `_format`; 406 if the caller accepts none.
pub fn format(request: &Object, headers: &HeaderMap) -> Result<&'static Format> {
    match request.get("_format")? {
        Some(Value::String(text)) => {
            // A `+` in a query string is a space.
            let wanted = text.replace(' ', "+").to_ascii_lowercase();
            let wanted = wanted.split(';').next().unwrap_or_default().trim();
            let found = FORMATS.iter().find(|format| format.code == wanted || format.types.contains(&wanted));
            found.ok_or_else(|| {
                let problem = Problem::parameter("_format", "is not supported; it may be ndjson, csv, json or parquet");
                Problem { issue: Some("not-supported"), ..problem }
            })
        }
        Some(_) => Err(Problem::parameter("_format", "is not a code")),
        None => accepted(headers),
    }
}

fn accepted(headers: &HeaderMap) -> Result<&'static Format> {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if values.is_empty() {
        return Ok(&FORMATS[0]);
    }
    let of_range = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|part| {
            part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight == 0.0)
        });
        let group = name.strip_suffix('*').filter(|group| group.ends_with('/'));
        let matches =
            |offered: &&str| name == "*/*" || name == *offered || group.is_some_and(|g| offered.starts_with(g));
        FORMATS.iter().find(|format| !is_refused && format.types.iter().any(&matches))
    };
    values.iter().flat_map(|value| value.split(',')).find_map(of_range).ok_or_else(|| {
        let why = "the response would be ndjson, csv, json or parquet as it is, which the Accept header does not allow";
        Problem::new(StatusCode::NOT_ACCEPTABLE, why)
    })
}

/// Adds what an error is about: the parameter, the code of its issue, and the status that goes with them. What is none of the
/// request's parameters is the subject.
pub fn located(operation: Operation, problem: Problem) -> Problem {
    if !matches!(problem.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) {
        return problem;
    }
    let message = problem.message.strip_prefix("option ").unwrap_or(&problem.message);
    let is_about = |beginning: &str| message.starts_with(beginning);
    let word = &message[..message.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(message.len())];
    let is_absent =
        is_about("there is no ViewDefinition or Library ") || is_about("there is no table for resource type");
    let (status, issue, member) = if is_about("there is no Patient ") {
        (400, "not-found", "patient")
    } else if is_about("there is no Group ") {
        (400, "not-found", "group")
    } else if is_absent {
        (404, "not-found", "subject")
    } else if is_about("subject is missing") {
        (400, "required", "subject")
    } else if is_about("subject is named") {
        (400, "invalid", "subject")
    } else if let Some(member) = Operation::SqlRun.member(word) {
        (400, if message.contains(" is not supported") { "not-supported" } else { "invalid" }, member)
    } else if is_about("resources") {
        (400, "invalid", "resource")
    } else {
        (422, "invalid", "subject")
    };
    Problem {
        status: StatusCode::from_u16(status).expect("a status"),
        issue: Some(issue),
        parameter: Some(operation.parameter(member).to_owned()),
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn of(
        operation: Operation,
        query: &str,
        parts: Option<Value>,
    ) -> std::result::Result<Value, (String, Option<String>)> {
        let body = parts.map(|parts| {
            let mut body = Object::default();
            body.insert("resourceType", "Parameters");
            body.insert("parameter", parts);
            body
        });
        read(operation, &mut Parameters::parse(query), body.as_ref())
            .map(|request| serde_json::from_str(&request.text()).unwrap())
            .map_err(|problem| (problem.message, problem.parameter))
    }

    #[test]
    fn parameters_of_the_url_and_of_the_body_make_one_request() {
        let query = "subjectCanonical=http%3A%2F%2Fx%7C2&patient=Patient/1&group=a&group=b&_limit=10&header=false&_since=2024-01-01T00:00:00+01:00";
        assert_eq!(
            of(Operation::SqlRun, query, None).unwrap(),
            json!({"subjectCanonical": "http://x|2", "patient": ["Patient/1"], "group": ["a", "b"], "_limit": 10,
                "header": false, "_since": "2024-01-01T00:00:00+01:00"})
        );
        let view = json!({"resourceType": "ViewDefinition"});
        let parts = json!([{"name": "viewResource", "resource": view}, {"name": "_limit", "valueInteger": 1},
            {"name": "patient", "valueReference": {"reference": "Patient/1"}}, {"name": "resource", "resource": view}]);
        assert_eq!(
            of(Operation::ViewRun, "_format=csv", Some(parts)).unwrap(),
            json!({"subjectResource": view, "_limit": 1, "patient": ["Patient/1"], "resource": [view], "_format": "csv"})
        );
    }

    #[test]
    fn what_an_operation_does_not_have_is_refused_with_its_name() {
        for (operation, query, parts, name) in [
            (Operation::SqlRun, "source=x", None, "source"),
            (Operation::SqlRun, "viewReference=x", None, "viewReference"),
            (Operation::ViewRun, "subjectReference=x", None, "subjectReference"),
            (Operation::SqlRun, "allowedTypes=x", None, "allowedTypes"),
            (Operation::SqlRun, "subjectResource=x", None, "subjectResource"),
            (Operation::SqlRun, "_limit=1&_limit=2", None, "_limit"),
            (Operation::SqlRun, "_limit=1", Some(json!([{"name": "_limit", "valueInteger": 1}])), "_limit"),
            (Operation::SqlRun, "", Some(json!([{"name": "context", "valueString": "x"}])), "context"),
            (Operation::SqlRun, "", Some(json!([{"name": "_format", "resource": {}}])), "_format"),
        ] {
            assert_eq!(of(operation, query, parts).unwrap_err().1.as_deref(), Some(name), "{query}");
        }
    }

    #[test]
    fn the_format_is_that_of_the_parameter_and_else_the_first_that_is_accepted() {
        let with = |format: Option<&str>, accept: Option<&'static str>| {
            let mut request = Object::default();
            format.into_iter().for_each(|format| request.insert("_format", format));
            let headers = accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept)));
            super::format(&request, &headers.into_iter().collect())
                .map(|format| format.code)
                .map_err(|p| p.status.as_u16())
        };
        assert_eq!(with(None, None), Ok("ndjson"));
        assert_eq!(with(None, Some("*/*")), Ok("ndjson"));
        assert_eq!(with(None, Some("text/csv, */*")), Ok("csv"));
        assert_eq!(with(None, Some("application/fhir+json, application/json;q=0.5")), Ok("json"));
        assert_eq!(with(Some("csv"), Some("application/fhir+json")), Ok("csv"));
        assert_eq!(with(Some("text/csv"), None), Ok("csv"));
        assert_eq!(with(None, Some("application/vnd.apache.parquet")), Ok("parquet"));
        assert_eq!(with(None, Some("application/fhir+json")), Err(406));
        for wrong in ["fhir", "xml"] {
            assert_eq!(with(Some(wrong), None), Err(400), "{wrong}");
        }
    }

    #[test]
    fn an_error_is_about_the_parameter_that_it_begins_with_and_else_about_the_subject() {
        let of = |message: &str| {
            let found = located(Operation::SqlRun, Problem::bad_request(message));
            (found.status.as_u16(), found.issue.unwrap(), found.parameter.unwrap())
        };
        for (message, status, issue, parameter) in [
            ("subject is missing", 400, "required", "subject"),
            ("subject is named in more than one way", 400, "invalid", "subject"),
            ("parameters have \"x\" twice", 400, "invalid", "parameters"),
            ("option parameters: \"x\" is not a value of type date", 400, "invalid", "parameters"),
            ("option resources: resource 0: it has no resourceType", 400, "invalid", "resource"),
            ("context has a resource without url", 400, "invalid", "context"),
            ("_limit is not a whole number", 400, "invalid", "_limit"),
            ("there is no Patient \"x\"", 400, "not-found", "patient"),
            ("there is no Group \"x\"", 400, "not-found", "group"),
            ("there is no ViewDefinition or Library x", 404, "not-found", "subject"),
            ("there is no table for resource type \"Patient\"", 404, "not-found", "subject"),
            ("invalid view: x", 422, "invalid", "subject"),
            ("column \"id\" does not exist (at character 8 of the query)", 422, "invalid", "subject"),
        ] {
            assert_eq!(of(message), (status, issue, parameter.to_owned()), "{message}");
        }
        let denied = located(Operation::SqlRun, Problem::new(StatusCode::FORBIDDEN, "permission denied"));
        assert_eq!((denied.status.as_u16(), denied.parameter), (403, None));
    }
}
