//! Reads the parameters of `$sql-export` from a Parameters resource, as the request that `bulk_export` takes; and says which of
//! them its errors are about.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::error::{Problem, Result};
use crate::request::kick_off::value_of;
use crate::request::parse::Object;
use crate::request::sql_run;

/// An operation: what it calls its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `$sql-export`.
    SqlExport,
    /// `$viewdefinition-export`, as it was before version 3.
    ViewExport,
}

/// What a parameter becomes in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    /// One of `subjects`.
    Subject,
    /// An element of a list of resources.
    Resources,
    /// An element of a list of texts.
    Texts(&'static str),
    One(&'static str),
}

/// The parts of a subject whose value is a resource.
const RESOURCES: [&str; 2] = ["subjectResource", "parameters"];

impl Operation {
    /// Its name in an address.
    pub fn name(self) -> &'static str {
        match self {
            Operation::SqlExport => "$sql-export",
            Operation::ViewExport => "$viewdefinition-export",
        }
    }

    /// What it calls a subject.
    fn subject(self) -> &'static str {
        match self {
            Operation::SqlExport => "subject",
            Operation::ViewExport => "view",
        }
    }

    fn member(self, name: &str) -> Option<Member> {
        match name {
            _ if name == self.subject() => Some(Member::Subject),
            "context" if self == Operation::SqlExport => Some(Member::Resources),
            "patient" => Some(Member::Texts("patient")),
            "group" => Some(Member::Texts("group")),
            "_format" => Some(Member::One("_outputFormat")),
            "_since" => Some(Member::One("_since")),
            "header" => Some(Member::One("header")),
            "clientTrackingId" => Some(Member::One("clientTrackingId")),
            _ => None,
        }
    }

    /// The member of a subject for one of its parts.
    fn part(self, name: &str) -> Option<&'static str> {
        match (self, name) {
            (_, "name") => Some("name"),
            (Operation::SqlExport, "subjectCanonical") => Some("subjectCanonical"),
            (Operation::SqlExport, "subjectReference") | (Operation::ViewExport, "viewReference") => {
                Some("subjectReference")
            }
            (Operation::SqlExport, "subjectResource") | (Operation::ViewExport, "viewResource") => {
                Some("subjectResource")
            }
            (Operation::SqlExport, "parameters") => Some("parameters"),
            _ => None,
        }
    }
}

/// The request. `own` is the address below which this server's resources are: references may begin with it.
///
/// # Errors
/// 400 for another resource, for a parameter or part that the operation does not have, for one with a value of another type,
/// for one that is given twice and is no list, and for the format `fhir`.
pub fn read(operation: Operation, body: &Object, own: &str) -> Result<Object> {
    if body.get("resourceType")? != Some(Value::from("Parameters")) {
        return Err(Problem::bad_request("the body is not a Parameters resource"));
    }
    let given = match body.get("parameter")? {
        None => Vec::new(),
        Some(Value::Array(given)) => given,
        Some(_) => return Err(Problem::bad_request("parameter is not an array")),
    };
    let (mut values, mut subjects) = (Map::new(), Vec::new());
    for parameter in &given {
        let name = parameter["name"].as_str().ok_or_else(|| Problem::bad_request("a parameter has no name"))?;
        let mut add = |member: &str, value: Value| match values.get_mut(member) {
            Some(Value::Array(before)) if value.is_array() => {
                before.extend(value.as_array().into_iter().flatten().cloned());
                Ok(())
            }
            Some(_) => Err(Problem::parameter(name, "is given twice")),
            None => {
                values.insert(member.to_owned(), value);
                Ok(())
            }
        };
        match operation.member(name) {
            Some(Member::Subject) => subjects.push(subject(operation, parameter, own)?),
            Some(Member::Resources) if parameter["resource"].is_object() => {
                add(name, vec![parameter["resource"].clone()].into())?;
            }
            Some(Member::Resources) => return Err(Problem::parameter(name, "is not a resource")),
            Some(Member::Texts(member)) => add(member, vec![value_of(name, parameter)?].into())?,
            Some(Member::One(member)) => add(member, value_of(name, parameter)?)?,
            None if name == "_limit" => {
                return Err(Problem::parameter(name, "is not for an export, which has all rows"));
            }
            None => return Err(unsupported(name, &format!("the parameter {name} is not supported"))),
        }
    }
    if values.get("_outputFormat").is_some_and(|format| format == "fhir") {
        return Err(Problem::parameter("_format", "cannot be fhir: an export makes flat files"));
    }
    let mut request = Object::default();
    values.into_iter().for_each(|(name, value)| request.insert(&name, value));
    request.insert("subjects", subjects);
    Ok(request)
}

fn subject(operation: Operation, parameter: &Value, own: &str) -> Result<Value> {
    let (of, mut subject) = (operation.subject(), Map::new());
    for part in parameter["part"].as_array().into_iter().flatten() {
        let name = part["name"].as_str().ok_or_else(|| Problem::parameter(of, "has a part without a name"))?;
        let member = operation
            .part(name)
            .ok_or_else(|| unsupported(of, &format!("the part {name} of the parameter {of} is not supported")))?;
        let value = match RESOURCES.contains(&member) {
            true if part["resource"].is_object() => part["resource"].clone(),
            true => return Err(Problem::parameter(of, &format!("has a part {name} that is not a resource"))),
            false => value_of(of, part)?,
        };
        let value = match value.as_str().and_then(|text| text.strip_prefix(own)) {
            // The database does not know the address of this server.
            Some(relative) if member == "subjectReference" => Value::from(relative),
            _ => value,
        };
        if subject.insert(member.to_owned(), value).is_some() {
            return Err(Problem::parameter(of, &format!("has the part {name} twice")));
        }
    }
    Ok(subject.into())
}

fn unsupported(parameter: &str, message: &str) -> Problem {
    Problem { issue: Some("not-supported"), ..Problem::bad_request(message).at(parameter) }
}

/// Adds what an error is about, as [`sql_run::located`] does. The message keeps which of the subjects it is.
pub fn located(operation: Operation, problem: Problem) -> Problem {
    if !matches!(problem.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) {
        return problem;
    }
    let message = of_one(&problem.message).unwrap_or(&problem.message);
    let quoted = message.strip_prefix('"').and_then(|text| text.split_once("\" of the request ")).map(|(name, _)| name);
    let is_about = |beginning: &str| message.starts_with(beginning);
    let of_names =
        ["the name \"", "its name ", "subject is given ", "a view takes ", "a query takes ", "it is not an object"];
    let (issue, parameter) = if is_about("_outputFormat") {
        ("not-supported", "_format")
    } else if let Some(name) = quoted {
        ("invalid", if name == "subjects" { operation.subject() } else { name })
    } else if of_names.into_iter().any(is_about) {
        ("invalid", operation.subject())
    } else {
        let found = sql_run::located(sql_run::Operation::SqlRun, Problem::new(problem.status, message));
        let parameter = match found.parameter.as_deref() {
            Some("subject") => Some(operation.subject().to_owned()),
            _ => found.parameter,
        };
        return Problem { status: found.status, issue: found.issue, parameter, ..problem };
    };
    let (issue, parameter) = (Some(issue), Some(parameter.to_owned()));
    Problem { status: StatusCode::BAD_REQUEST, issue, parameter, ..problem }
}

/// The message about one of the subjects, without its number.
fn of_one(message: &str) -> Option<&str> {
    let (number, message) = message.strip_prefix("subject ")?.split_once(": ")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OWN: &str = "https://h/fhir/";

    fn of(operation: Operation, parts: Value) -> std::result::Result<Value, (String, Option<String>)> {
        let mut body = Object::default();
        body.insert("resourceType", "Parameters");
        body.insert("parameter", parts);
        read(operation, &body, OWN)
            .map(|request| serde_json::from_str(&request.text()).unwrap())
            .map_err(|problem| (problem.message, problem.parameter))
    }

    #[test]
    fn a_parameters_resource_becomes_a_request() {
        let (view, values) = (json!({"resourceType": "ViewDefinition"}), json!({"resourceType": "Parameters"}));
        let reference = |name: &str, text: &str| json!({"name": name, "valueReference": {"reference": text}});
        let parts = json!([
            {"name": "subject", "part": [{"name": "name", "valueString": "a"}, {"name": "subjectCanonical", "valueCanonical": "u|1"},
                {"name": "parameters", "resource": values}]},
            {"name": "subject", "part": [reference("subjectReference", "https://h/fhir/Library/x")]},
            {"name": "subject", "part": [{"name": "subjectResource", "resource": view}]},
            {"name": "context", "resource": view}, {"name": "context", "resource": values},
            reference("patient", "Patient/1"), reference("patient", "Patient/2"), reference("group", "Group/1"),
            {"name": "_format", "valueCode": "csv"}, {"name": "header", "valueBoolean": false},
            {"name": "_since", "valueInstant": "2024-01-01T00:00:00Z"}, {"name": "clientTrackingId", "valueString": "t"}
        ]);
        assert_eq!(
            of(Operation::SqlExport, parts).unwrap(),
            json!({"subjects": [{"name": "a", "subjectCanonical": "u|1", "parameters": values},
                    {"subjectReference": "Library/x"}, {"subjectResource": view}],
                "context": [view, values], "patient": ["Patient/1", "Patient/2"], "group": ["Group/1"], "_outputFormat": "csv",
                "header": false, "_since": "2024-01-01T00:00:00Z", "clientTrackingId": "t"})
        );
        let parts = json!([{"name": "view", "part": [reference("viewReference", "ViewDefinition/x")]},
            {"name": "view", "part": [{"name": "viewResource", "resource": view}]}]);
        assert_eq!(
            of(Operation::ViewExport, parts).unwrap(),
            json!({"subjects": [{"subjectReference": "ViewDefinition/x"}, {"subjectResource": view}]})
        );
    }

    #[test]
    fn what_an_operation_does_not_have_is_refused_with_its_name() {
        let subject = |part: Value| json!({"name": "subject", "part": [part]});
        for (operation, part, name) in [
            (Operation::SqlExport, json!({"name": "_limit", "valueInteger": 1}), "_limit"),
            (Operation::SqlExport, json!({"name": "_format", "valueCode": "fhir"}), "_format"),
            (Operation::SqlExport, json!({"name": "source", "valueString": "x"}), "source"),
            (Operation::SqlExport, json!({"name": "resource", "resource": {}}), "resource"),
            (Operation::SqlExport, json!({"name": "view", "part": []}), "view"),
            (Operation::ViewExport, subject(json!({})), "subject"),
            (Operation::ViewExport, json!({"name": "context", "resource": {}}), "context"),
            (Operation::SqlExport, json!({"name": "allowedTypes", "valueString": "x"}), "allowedTypes"),
            (Operation::SqlExport, json!({"name": "request", "valueString": "x"}), "request"),
            (Operation::SqlExport, json!({"name": "context", "valueString": "x"}), "context"),
            (Operation::SqlExport, json!({"name": "_since"}), "_since"),
            (Operation::SqlExport, subject(json!({"name": "view", "resource": {}})), "subject"),
            (Operation::SqlExport, subject(json!({"name": "query", "valueString": "SELECT 1"})), "subject"),
            (Operation::SqlExport, subject(json!({"name": "subjectResource", "valueString": "x"})), "subject"),
            (Operation::SqlExport, subject(json!({"valueString": "x"})), "subject"),
        ] {
            let refused = of(operation, json!([part])).unwrap_err();
            assert_eq!(refused.1.as_deref(), Some(name), "{part}: {refused:?}");
        }
        let twice = json!([{"name": "header", "valueBoolean": true}, {"name": "header", "valueBoolean": true}]);
        assert!(of(Operation::SqlExport, twice).unwrap_err().0.ends_with("is given twice"));
    }

    #[test]
    fn an_error_is_about_a_parameter_or_about_the_subject() {
        let of = |message: &str| {
            let found = located(Operation::SqlExport, Problem::bad_request(message));
            assert_eq!(found.message, message);
            (found.status.as_u16(), found.issue.unwrap(), found.parameter.unwrap())
        };
        for (message, status, issue, parameter) in [
            ("subject is missing", 400, "required", "subject"),
            ("subject 3: subject is missing", 400, "required", "subject"),
            ("subject 1: subject is named in more than one way", 400, "invalid", "subject"),
            ("subject 2: the name \"x\" is also that of subject 1", 400, "invalid", "subject"),
            ("subject 2: parameters have \"x\" twice", 400, "invalid", "parameters"),
            ("subject 1: option parameters: \"x\" is not a value of type date", 400, "invalid", "parameters"),
            ("context has a resource without url", 400, "invalid", "context"),
            ("_outputFormat \"xml\" is not supported", 400, "not-supported", "_format"),
            ("\"header\" of the request is not true or false", 400, "invalid", "header"),
            ("_since is not an instant", 400, "invalid", "_since"),
            ("subject 1: there is no Patient \"x\"", 400, "not-found", "patient"),
            ("subject 1: there is no Group \"x\"", 400, "not-found", "group"),
            ("subject 1: there is no ViewDefinition or Library x", 404, "not-found", "subject"),
            ("subject 1: there is no table for resource type \"X\"", 404, "not-found", "subject"),
            ("subject 9: invalid view: it has no select", 422, "invalid", "subject"),
            ("subject 9: column \"id\" does not exist (at character 8 of the query)", 422, "invalid", "subject"),
        ] {
            assert_eq!(of(message), (status, issue, parameter.to_owned()), "{message}");
        }
        let found = located(Operation::ViewExport, Problem::bad_request("subject 1: invalid view: x"));
        assert_eq!(found.parameter.as_deref(), Some("view"));
        let denied = located(Operation::SqlExport, Problem::new(StatusCode::FORBIDDEN, "permission denied"));
        assert_eq!((denied.status.as_u16(), denied.parameter), (403, None));
    }
}
