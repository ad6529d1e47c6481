//! The request: the parameters of `$sql-run` as members of an object. Messages of errors begin with the parameter.

use crate::subject::{Named, Subject};
use fhir_bulk_codec::instant;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::{Map, Value, json};

const MEMBERS: [&str; 13] = [
    "subjectCanonical",
    "subjectReference",
    "subjectResource",
    "parameters",
    "context",
    "resource",
    "_format",
    "header",
    "patient",
    "group",
    "_since",
    "_limit",
    "allowedTypes",
];
const FORMATS: [&str; 4] = ["ndjson", "csv", "json", "parquet"];

/// A request.
pub struct Request {
    pub subject: Named,
    /// The Parameters resource with a query's values.
    pub parameters: Option<Value>,
    /// Resources that the subject may depend on.
    pub context: Vec<Value>,
    pub format: &'static str,
    /// The types that a view may be of, `*` for all; if there are any, a query is not allowed.
    allowed_types: Option<Vec<String>>,
    resources: Option<Vec<Value>>,
    header: bool,
    patient: Option<Vec<Value>>,
    group: Option<Vec<Value>>,
    since: Option<String>,
    limit: Option<u64>,
}

impl Request {
    /// # Errors
    /// 22023 for an unknown member, and for one with a wrong value; 0A000 for a format that is not there.
    pub fn parse(request: Value) -> Result<Request> {
        let Value::Object(mut members) = request else {
            return Err(Error::invalid_argument("argument request is not a JSON object"));
        };
        if let Some(name) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            return Err(Error::invalid_argument(format!("the request has the unknown member \"{name}\""))
                .hint(format!("Its members are {}.", MEMBERS.join(", "))));
        }
        let subject = Named::take(&mut members)?;
        let since = text(&mut members, "_since")?;
        if since.as_ref().is_some_and(|text| instant::parse(text).is_none()) {
            return Err(wrong("_since", "an instant, such as 2024-01-31T12:00:00Z"));
        }
        let limit =
            members.remove("_limit").map(|value| value.as_u64().ok_or_else(|| wrong("_limit", "a whole number")));
        let header = match members.remove("header") {
            None => true,
            Some(Value::Bool(flag)) => flag,
            Some(_) => return Err(wrong("header", "true or false")),
        };
        let allowed_types = array(&mut members, "allowedTypes")?
            .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        Ok(Request {
            subject,
            parameters: members.remove("parameters"),
            context: array(&mut members, "context")?.unwrap_or_default(),
            format: format(text(&mut members, "_format")?)?,
            allowed_types,
            resources: array(&mut members, "resource")?,
            header,
            patient: ids(&mut members, "patient", "Patient/")?,
            group: ids(&mut members, "group", "Group/")?,
            since,
            limit: limit.transpose()?,
        })
    }

    /// The options with which the subject is opened.
    ///
    /// # Errors
    /// 22023 for parameters that a query does not take; 42501 for a view of a type that is not allowed, and for a query where
    /// types are limited, which those of a query are not.
    pub fn options(&self, subject: &Subject) -> Result<Map<String, Value>> {
        match subject {
            Subject::View(view) => {
                let name = view["resource"].as_str().unwrap_or_default();
                if let Some(allowed) = &self.allowed_types
                    && !allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(name))
                {
                    return Err(not_allowed(&format!("a view of {}", name.chars().take(80).collect::<String>())));
                }
            }
            Subject::Query(_) if self.allowed_types.is_some() => return Err(not_allowed("a query of SQL")),
            Subject::Query(_) if self.resources.is_some() => {
                return Err(Error::invalid_argument("resource is for a view, and the subject is a query"));
            }
            Subject::Query(_) => {}
        }
        let chosen =
            [("patient", self.patient.is_some()), ("group", self.group.is_some()), ("_since", self.since.is_some())];
        subject.check_chosen(&chosen)?;
        let all = [
            ("header", (self.format == "csv").then(|| json!(self.header))),
            ("patient", self.patient.clone().map(Value::from)),
            ("group", self.group.clone().map(Value::from)),
            ("since", self.since.clone().map(Value::from)),
            ("limit", self.limit.map(Value::from)),
            ("resources", self.resources.clone().map(Value::from)),
        ];
        Ok(all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    }
}

fn format(name: Option<String>) -> Result<&'static str> {
    let Some(name) = name else { return Ok(FORMATS[0]) };
    FORMATS.into_iter().find(|known| *known == name).ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        let message = format!("_format \"{shown}\" is not supported");
        Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .hint(format!("It may be {}.", FORMATS.join(", ")))
    })
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(wrong(name, "a string that is not empty")),
    }
}

fn array(members: &mut Map<String, Value>, name: &str) -> Result<Option<Vec<Value>>> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::Array(values)) => Ok(Some(values)),
        Some(_) => Err(wrong(name, "an array")),
    }
}

/// An array of ids, with or without their type.
fn ids(members: &mut Map<String, Value>, name: &str, prefix: &str) -> Result<Option<Vec<Value>>> {
    let values = array(members, name)?;
    let is_id = |value: &Value| {
        value
            .as_str()
            .map(|text| text.strip_prefix(prefix).unwrap_or(text))
            .is_some_and(|id| !id.is_empty() && !id.contains('/'))
    };
    match &values {
        Some(values) if values.is_empty() || !values.iter().all(is_id) => {
            Err(wrong(name, &format!("an array of references, such as {prefix}1")))
        }
        _ => Ok(values),
    }
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("{name} is not {expected}"))
}

fn not_allowed(what: &str) -> Error {
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Error::new(code, format!("{what} is not among the allowed types"))
}
