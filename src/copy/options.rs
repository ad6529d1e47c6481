//! Reads the options of a COPY.

use crate::load;
use crate::store::ResourceType;
use fhir_bulk_pg::copy::{Copy, CopyOption, OptionValue};
use fhir_bulk_pg::datum;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::{Map, Value};
use std::ffi::CStr;

/// A format of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Resources in FHIR's form.
    Fhir,
    /// Resources in Aidbox's form.
    Aidbox,
    /// Rows of any kind as JSON objects.
    Ndjson,
}

/// Checked options.
pub struct Options {
    /// The format.
    pub format: Format,
    /// For COPY FROM: the options of the load.
    pub load: load::Options,
    /// For `COPY bulk_resource FROM`: the type of all lines.
    pub resource_type: Option<ResourceType>,
    /// For COPY TO: whether the body is gzipped.
    pub gzip: bool,
    /// For COPY TO: only resources created after this instant, in microseconds since 2000-01-01T00:00:00Z.
    pub since: Option<i64>,
    /// For COPY TO: only resources that fulfil this search query.
    pub filter: Option<Query>,
}

/// A search query, and its position in the statement.
pub struct Query {
    pub text: String,
    pub position: Option<i32>,
}

/// The extension's options, with their direction and formats.
const OURS: [(&CStr, Way); 11] = [
    (c"update_history", Way::From),
    (c"skip_unchanged", Way::From),
    (c"strip_nulls", Way::From),
    (c"merge", Way::From),
    (c"on_error", Way::From),
    (c"max_errors", Way::From),
    (c"reject_limit", Way::From),
    (c"resource_type", Way::From),
    (c"gzip", Way::To),
    (c"since", Way::ResourcesTo),
    (c"filter", Way::ResourcesTo),
];

/// COPY's own options, up to PostgreSQL 18, that the extension's formats do not have.
const FOREIGN: [&CStr; 12] = [
    c"delimiter",
    c"null",
    c"default",
    c"header",
    c"quote",
    c"escape",
    c"force_quote",
    c"force_not_null",
    c"force_null",
    c"encoding",
    c"freeze",
    c"log_verbosity",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    From,
    To,
    ResourcesTo,
}

impl Options {
    /// # Errors
    /// 42601 for an unknown or repeated option, 22023 for a bad value, 0A000 for an option that these formats do not have,
    /// or only in the other direction; each with its position in the statement.
    pub fn parse(copy: &Copy<'_>) -> Result<Options> {
        let all: Vec<_> = copy.options().collect();
        check_repeated(&all)?;
        let format = format(&all)?;
        for option in &all {
            check_known(option, format, copy.is_from())?;
        }
        if copy.has_columns() {
            return Err(Copy::unsupported("COPY in this format cannot have a list of columns")
                .hint("COPY (SELECT ...) TO (FORMAT ndjson) writes some columns of a table."));
        }
        if copy.has_condition() {
            return Err(Copy::unsupported("COPY in this format cannot have WHERE"));
        }
        let find = |name: &CStr| all.iter().find(|option| option.name == name);
        Ok(Options {
            format,
            load: load_options(find)?,
            resource_type: find(c"resource_type").map(resource_type).transpose()?,
            gzip: find(c"gzip").map_or(Ok(false), flag)?,
            since: find(c"since").map(instant).transpose()?,
            filter: find(c"filter").map(query).transpose()?,
        })
    }
}

fn check_repeated(all: &[CopyOption<'_>]) -> Result<()> {
    let repeated = |at: usize| all[..at].iter().any(|before| before.name == all[at].name);
    match (0..all.len()).find(|at| repeated(*at)) {
        None => Ok(()),
        Some(at) => Err(syntax(&all[at], format!("option {} is given more than once", shown(&all[at])))),
    }
}

fn format(all: &[CopyOption<'_>]) -> Result<Format> {
    let value = all.iter().find(|option| option.name == c"format").map(|option| option.value);
    match value {
        Some(OptionValue::Text(name)) if name == c"fhir" => Ok(Format::Fhir),
        Some(OptionValue::Text(name)) if name == c"aidbox" => Ok(Format::Aidbox),
        Some(OptionValue::Text(name)) if name == c"ndjson" => Ok(Format::Ndjson),
        _ => Err(Copy::unsupported("the COPY has no format of fhir_bulk")),
    }
}

fn check_known(option: &CopyOption<'_>, format: Format, is_from: bool) -> Result<()> {
    if option.name == c"format" {
        return Ok(());
    }
    let name = shown(option);
    if FOREIGN.contains(&option.name) {
        let message = format!("option {name} is for COPY's own formats, not for fhir, aidbox and ndjson");
        return Err(Copy::unsupported(message).at(option.position));
    }
    let Some((_, way)) = OURS.iter().find(|(known, _)| *known == option.name) else {
        let fits = |way: &Way| match way {
            Way::From => is_from,
            Way::To => !is_from,
            Way::ResourcesTo => !is_from && format != Format::Ndjson,
        };
        let known: Vec<_> =
            OURS.iter().filter(|(_, way)| fits(way)).map(|(known, _)| known.to_string_lossy()).collect();
        return Err(syntax(option, format!("option {name} is not known"))
            .hint(format!("The options are format, {}.", known.join(", "))));
    };
    let message = match (way, is_from) {
        (Way::From, true) | (Way::To, false) => return Ok(()),
        (Way::ResourcesTo, false) if format != Format::Ndjson => return Ok(()),
        (Way::ResourcesTo, false) => format!("option {name} is for the formats fhir and aidbox"),
        (Way::From, false) => format!("option {name} is for COPY FROM"),
        (Way::To | Way::ResourcesTo, true) => format!("option {name} is for COPY TO"),
    };
    Err(Copy::unsupported(message).at(option.position))
}

/// The options of a load, with the names that `bulk_load` uses.
fn load_options<'o, 'a: 'o>(find: impl Fn(&CStr) -> Option<&'o CopyOption<'a>>) -> Result<load::Options> {
    let mut options = Map::new();
    for (ours, name) in
        [(c"update_history", "update"), (c"skip_unchanged", "skip_unchanged"), (c"strip_nulls", "strip-nulls")]
    {
        if let Some(option) = find(ours) {
            options.insert(name.to_owned(), flag(option)?.into());
        }
    }
    let mut place = None;
    if let Some(option) = find(c"merge") {
        place = option.position;
        options.insert("merge".to_owned(), object(option)?);
    }
    if let Some(option) = find(c"on_error") {
        options.insert("on_error".to_owned(), on_error(option)?.into());
    }
    if let (Some(_), Some(second)) = (find(c"max_errors"), find(c"reject_limit")) {
        return Err(syntax(second, "options MAX_ERRORS and REJECT_LIMIT are the same".to_owned()));
    }
    if let Some(option) = find(c"max_errors").or_else(|| find(c"reject_limit")) {
        let count = count(option)?;
        if options.get("on_error").is_none_or(|word| word != "skip") {
            let message = format!("option {} needs ON_ERROR skip", shown(option));
            return Err(Error::invalid_argument(message).at(option.position));
        }
        options.insert("max_errors".to_owned(), count.into());
    }
    load::Options::parse(Value::Object(options)).map_err(|error| error.at(place))
}

fn on_error(option: &CopyOption<'_>) -> Result<&'static str> {
    let OptionValue::Text(word) = option.value else { return Err(bad(option, "abort or skip")) };
    // stop and ignore are the names in PostgreSQL's COPY from 17 on.
    match word.to_string_lossy().to_ascii_lowercase().as_str() {
        "abort" | "stop" => Ok("abort"),
        "skip" | "ignore" => Ok("skip"),
        _ => Err(bad(option, "abort or skip")),
    }
}

fn flag(option: &CopyOption<'_>) -> Result<bool> {
    match option.value {
        OptionValue::Missing | OptionValue::Integer(1) => Ok(true),
        OptionValue::Integer(0) => Ok(false),
        OptionValue::Text(word) => match word.to_string_lossy().to_ascii_lowercase().as_str() {
            "true" | "on" => Ok(true),
            "false" | "off" => Ok(false),
            _ => Err(bad(option, "true or false")),
        },
        _ => Err(bad(option, "true or false")),
    }
}

fn count(option: &CopyOption<'_>) -> Result<u64> {
    let text = match option.value {
        OptionValue::Integer(number) => number.to_string(),
        OptionValue::Number(text) | OptionValue::Text(text) => text.to_string_lossy().into_owned(),
        OptionValue::Missing | OptionValue::Other => String::new(),
    };
    text.parse().map_err(|_| bad(option, "a whole number, 0 or more"))
}

fn object(option: &CopyOption<'_>) -> Result<Value> {
    let expected = "a JSON object, such as '{\"meta\": {\"source\": \"...\"}}'";
    let OptionValue::Text(text) = option.value else { return Err(bad(option, expected)) };
    match serde_json::from_slice(text.to_bytes()) {
        Ok(Value::Object(members)) => Ok(Value::Object(members)),
        Ok(_) => Err(bad(option, expected)),
        Err(error) => Err(bad(option, expected).detail(format!("{error}."))),
    }
}

fn instant(option: &CopyOption<'_>) -> Result<i64> {
    let expected = "a timestamp, such as '2025-01-01T00:00:00Z'";
    let OptionValue::Text(text) = option.value else { return Err(bad(option, expected)) };
    datum::timestamptz(text).map_err(|why| bad(option, expected).detail(format!("{}.", why.message())))
}

fn query(option: &CopyOption<'_>) -> Result<Query> {
    let expected = "a search query, such as 'status=final&date=ge2025'";
    let OptionValue::Text(text) = option.value else { return Err(bad(option, expected)) };
    Ok(Query { text: text.to_string_lossy().into_owned(), position: option.position })
}

fn resource_type(option: &CopyOption<'_>) -> Result<ResourceType> {
    let OptionValue::Text(name) = option.value else { return Err(bad(option, "a resource type")) };
    ResourceType::new(&name.to_string_lossy()).map_err(|error| error.at(option.position))
}

/// The name as users write it.
fn shown(option: &CopyOption<'_>) -> String {
    option.name.to_string_lossy().to_uppercase()
}

fn syntax(option: &CopyOption<'_>, message: String) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, message).at(option.position)
}

fn bad(option: &CopyOption<'_>, expected: &str) -> Error {
    Error::invalid_argument(format!("option {} is not {expected}", shown(option))).at(option.position)
}
