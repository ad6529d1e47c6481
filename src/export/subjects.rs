//! Reads which subjects of SQL on FHIR an export has: views, and queries with the views that they see. Each becomes a table, in
//! files of its own.

use super::ignored::shown;
use super::request::Request;
use crate::subject::{Body, Context, NAMES, Named, Query, Subject};
use fhir_bulk_codec::instant;
use fhir_bulk_pg::error::{Error, Result, caught};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The members of a request of subjects that are its own, beside those that say how files are written.
pub const KNOWN: &str = "subjects, context, _outputFormat, header, patient, group, _since, clientTrackingId";
/// The most subjects of an export.
const MOST: usize = 1000;
/// The most characters of a name.
const MOST_NAME: usize = 255;
/// The most bytes of a name in the names of files.
const MOST_STEM: usize = 100;

/// The formats: codes, which are also the ends of the files' names, and media types.
const FORMATS: [(&str, &[&str]); 4] = [
    ("ndjson", &["application/x-ndjson", "application/ndjson"]),
    ("csv", &["text/csv"]),
    ("json", &["application/json"]),
    ("parquet", &["application/vnd.apache.parquet"]),
];
/// The format that has no lines and is compressed in itself.
const BINARY: &str = "parquet";

/// The subjects of an export. The queue stores them in this form.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subjects {
    /// The code of the format.
    pub format: String,
    /// What the client calls the export.
    pub tracking_id: Option<String>,
    /// In the order of the request.
    pub tables: Vec<Table>,
    /// Options of `dump_view` and `dump_sql`, the same for all.
    options: Map<String, Value>,
}

/// A subject with its names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// The name in the status, which no other subject has.
    pub name: String,
    /// The beginning of the names of its files.
    pub stem: String,
    subject: Subject,
}

impl Subjects {
    /// Takes `subjects`, and the members that say what all of them have in common. Each subject is `{"name", "view"}`,
    /// `{"name", "query", "parameters", "views"}`, or names a resource as `$sql-export` does, with a Parameters resource as
    /// `parameters`.
    ///
    /// # Errors
    /// 22023 for members that are unknown, missing, or of another type, and for two subjects of one name; P0002 for a subject
    /// that is not there; 42501 for a query if types are limited; 0A000 for a format that is not known; 54000 for too many.
    pub fn parse(request: &mut Request, is_limited: bool) -> Result<Subjects> {
        let listed = request.array("subjects")?.unwrap_or_default();
        let context = request.array("context")?.unwrap_or_default();
        let format = format(request.string("_outputFormat")?)?;
        let header = request.boolean("header")?.unwrap_or(true);
        let (patient, group) = (request.string_or_strings("patient")?, request.string_or_strings("group")?);
        let since = request.string("_since")?;
        if since.as_ref().is_some_and(|text| instant::parse(text).is_none()) {
            return Err(Error::invalid_argument("_since is not an instant, such as 2024-01-31T12:00:00Z"));
        }
        if listed.is_empty() {
            return Err(Error::invalid_argument("subject is missing").hint("An export has one or more."));
        }
        if listed.len() > MOST {
            let message = format!("the request has {} subjects", listed.len());
            return Err(Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message)
                .hint(format!("An export has {MOST} at most.")));
        }
        let chosen = [("patient", patient.is_some()), ("group", group.is_some()), ("_since", since.is_some())];
        let context = Context::new(&context)?;
        let mut found: Vec<(Option<String>, Subject)> = Vec::new();
        for (at, listed) in listed.into_iter().enumerate() {
            let of_one = || -> Result<_> {
                let (name, subject) = subject(listed, &context)?;
                if is_limited && matches!(subject, Subject::Query(_)) {
                    let message = "a query of SQL is not among the allowed types";
                    return Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message));
                }
                subject.check_chosen(&chosen)?;
                match found.iter().position(|(known, _)| name.is_some() && *known == name) {
                    None => Ok((name, subject)),
                    Some(other) => {
                        let name = shown(name.as_deref().unwrap_or_default());
                        let message = format!("the name \"{name}\" is also that of subject {}", other + 1);
                        Err(Error::invalid_argument(message).hint("Give each subject a name of its own."))
                    }
                }
            };
            let one = of_one().map_err(|error| error.about(&title(at)))?;
            found.push(one);
        }
        context.is_used()?;
        let options = [
            ("header", (format == "csv").then(|| json!(header))),
            ("patient", patient.map(Value::from)),
            ("group", group.map(Value::from)),
            ("since", since.map(Value::from)),
        ];
        Ok(Subjects {
            format: format.to_owned(),
            tracking_id: request.string("clientTrackingId")?,
            tables: tables(found),
            options: options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
        })
    }

    /// Checks that each can be read, without reading it.
    ///
    /// # Errors
    /// Those of `dump_view_chunks` and `dump_sql_chunks`.
    pub fn check(&self) -> Result<()> {
        let check_one = |at| {
            self.of(at, |body| {
                body.close();
                Ok(())
            })
        };
        (0..self.tables.len()).try_for_each(check_one)
    }

    /// Opens a subject, and does something with its rows. Errors say which one it is. The caller must end the transaction after
    /// one.
    ///
    /// # Errors
    /// Those of `work`, of the subject, and those that PostgreSQL raises.
    pub fn of<T>(&self, at: usize, work: impl FnOnce(&mut Body) -> Result<T>) -> Result<T> {
        let opened = || work(&mut self.tables[at].subject.open(&self.format, self.options.clone())?);
        caught(opened).map_err(|error| error.about(&title(at)))
    }

    /// Locks what the queries read.
    ///
    /// # Errors
    /// As for [`Subjects::check`].
    pub fn lock_reads(&self) -> Result<()> {
        self.tables.iter().try_for_each(|table| table.subject.lock_reads())
    }

    /// The types of all views.
    pub fn types(&self) -> Vec<String> {
        self.tables.iter().flat_map(|table| table.subject.types()).collect()
    }

    /// The types that are read to find the patients.
    pub fn other_types(&self) -> Vec<&'static str> {
        let types = [("patient", "Patient"), ("group", "Group")];
        types.into_iter().filter(|(option, _)| self.options.contains_key(*option)).map(|(_, name)| name).collect()
    }

    /// Whether its files may be compressed.
    pub fn takes_gzip(&self) -> bool {
        self.format != BINARY
    }

    /// The end of the names of its files.
    pub fn extension(&self) -> &'static str {
        FORMATS.iter().map(|(code, _)| *code).find(|code| *code == self.format).unwrap_or_default()
    }
}

/// A subject in errors.
fn title(at: usize) -> String {
    format!("subject {}", at + 1)
}

fn format(name: Option<String>) -> Result<&'static str> {
    let Some(name) = name else { return Ok(FORMATS[0].0) };
    // Decoding a URL often turns a plus into a space.
    let wanted = name.replace(' ', "+");
    let found = FORMATS.iter().find(|(code, types)| *code == wanted || types.contains(&wanted.as_str()));
    found.map(|(code, _)| *code).ok_or_else(|| {
        let message = format!("_outputFormat \"{}\" is not supported", shown(&name));
        let codes = FORMATS.map(|(code, types)| format!("{code} ({})", types[0]));
        Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .hint(format!("It may be {}.", codes.join(", ")))
    })
}

/// A subject, and its name if it has one.
fn subject(listed: Value, context: &Context<'_>) -> Result<(Option<String>, Subject)> {
    let Value::Object(mut members) = listed else { return Err(Error::invalid_argument("it is not an object")) };
    let name = match members.remove("name") {
        None => None,
        Some(Value::String(name)) if is_name(&name) => Some(name),
        Some(_) => {
            let message = format!("its name is not a string of 1 to {MOST_NAME} characters that can be printed");
            return Err(Error::invalid_argument(message));
        }
    };
    let is_named = NAMES.iter().any(|name| members.contains_key(*name));
    let (own_name, subject) = match (members.remove("view"), members.remove("query")) {
        (None, None) if is_named => {
            let parameters = members.remove("parameters");
            let found = context.subject(&Named::take(&mut members)?, parameters.as_ref())?;
            (found.name, found.subject)
        }
        (Some(view), None) if !is_named && view.is_object() => {
            (view["name"].as_str().map(str::to_owned), Subject::View(view))
        }
        (None, Some(Value::String(text))) if !is_named => {
            let views = object(&mut members, "views")?.unwrap_or_default();
            (None, Subject::Query(Query { text, views, parameters: object(&mut members, "parameters")? }))
        }
        (Some(_), None) if !is_named => return Err(Error::invalid_argument("view is not an object")),
        (None, Some(_)) if !is_named => return Err(Error::invalid_argument("query is not a string")),
        (None, None) => return Err(Error::invalid_argument("subject is missing").hint(WAYS)),
        _ => return Err(Error::invalid_argument("subject is given in more than one way").hint(WAYS)),
    };
    match members.keys().next() {
        None => Ok((name.or(own_name.filter(|name| is_name(name))), subject)),
        Some(unknown) => {
            let kind = if matches!(subject, Subject::View(_)) { "a view" } else { "a query" };
            Err(Error::invalid_argument(format!("{kind} takes no \"{}\"", shown(unknown))).hint(WAYS))
        }
    }
}

const WAYS: &str = "A subject has a name, and either view; or query, with parameters and views; or one of subjectCanonical, \
    subjectReference and subjectResource, with a Parameters resource as parameters.";

fn object(members: &mut Map<String, Value>, name: &str) -> Result<Option<Map<String, Value>>> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Error::invalid_argument(format!("{name} is not an object"))),
    }
}

fn is_name(name: &str) -> bool {
    (1..=MOST_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// Subjects with names, also those that have none.
fn tables(found: Vec<(Option<String>, Subject)>) -> Vec<Table> {
    let mut names: Vec<String> = found.iter().filter_map(|(name, _)| name.clone()).collect();
    let mut stems: Vec<String> = Vec::new();
    let named = found.into_iter().enumerate().map(|(at, (name, subject))| {
        let name = name.unwrap_or_else(|| {
            let name = unused(&format!("subject_{}", at + 1), &names);
            names.push(name.clone());
            name
        });
        let stem = unused(&stem_of(&name), &stems);
        stems.push(stem.clone());
        Table { name, stem, subject }
    });
    named.collect()
}

/// A name made fit for a file: with letters, digits, hyphens and underscores only.
fn stem_of(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(fit).take(MOST_STEM).collect()
}

/// The name itself, or with a number that makes it another than those that are used.
fn unused(name: &str, used: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let is_free = |name: &String| !used.iter().any(|other| other.eq_ignore_ascii_case(name));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).expect("one of so many")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_a_name_and_files_of_its_own() {
        let of = |names: &[Option<&str>]| {
            let subject = || Subject::View(Value::Null);
            let found = names.iter().map(|name| (name.map(str::to_owned), subject())).collect();
            tables(found).into_iter().map(|table| (table.name, table.stem)).collect::<Vec<_>>()
        };
        let pair = |name: &str, stem: &str| (name.to_owned(), stem.to_owned());
        assert_eq!(
            of(&[Some("bp"), None, Some("subject_2"), Some("BP"), Some("Größe/../x"), Some("Gr__e____x")]),
            [
                pair("bp", "bp"),
                pair("subject_2_2", "subject_2_2"),
                pair("subject_2", "subject_2"),
                pair("BP", "BP_2"),
                pair("Größe/../x", "Gr__e____x"),
                pair("Gr__e____x", "Gr__e____x_2")
            ]
        );
        assert_eq!(of(&[Some(&"a".repeat(255))])[0].1.len(), MOST_STEM);
    }
}
