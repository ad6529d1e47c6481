//! `bulk_export_identifiers`: returns up to a hundred resources by their business identifiers.

use super::request::{Request, missing};
use crate::arguments::parsed;
use crate::settings;
use crate::store::{Reader, ResourceTable, ResourceType, Rows, unknown};
use fhir_bulk_codec::fhir;
use fhir_bulk_codec::jsonb::text::write_string;
use fhir_bulk_codec::resource::{Form, Identifier, Selection, Writer, identifiers};
use fhir_bulk_pg::datum::{Jsonb, JsonbBytes};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use pgrx::PgSqlErrorCode;
use pgrx::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::ops::ControlFlow;

const IDENTIFIERS: std::ops::RangeInclusive<usize> = 1..=100;
/// The most bytes of resources in one answer: a jsonb array cannot hold more.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Returns `total`, `successful`, `failed` and one item per identifier, in the request's order.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_export_identifiers(request: Option<JsonbBytes<'_>>) -> Jsonb {
    or_raise(parsed(request, "request").and_then(export))
}

/// 1. check the request
/// 2. find the type's table, and check whether the role may read it
/// 3. read the rows that may have one of the identifiers, once
/// 4. add an item for each identifier
fn export(request: serde_json::Value) -> Result<Jsonb> {
    let Asked { resource_type, identifiers, elements } = Asked::parse(request)?;
    let resource_type = ResourceType::new(&resource_type).map_err(|_| unknown(&resource_type))?;
    let table = ResourceTable::get(&resource_type)?;
    let name = resource_type.canonical();
    if !table.is_readable()? {
        return answer(name, &identifiers, |_| Outcome::AccessDenied);
    }
    let table = ResourceTable::lock_to_read(&resource_type)?;
    let mut search = Search::new(&identifiers);
    search.run(&table, name, writer(name, elements))?;
    answer(name, &identifiers, |at| search.outcome(at))
}

/// A request. Everything is checked except its type.
struct Asked {
    resource_type: String,
    identifiers: Vec<String>,
    elements: Option<Vec<String>>,
}

impl Asked {
    fn parse(request: serde_json::Value) -> Result<Asked> {
        let mut request = Request::new(request)?;
        let asked = Asked {
            resource_type: request.string("type")?.ok_or_else(|| missing("type"))?,
            identifiers: request.strings("identifiers")?.ok_or_else(|| missing("identifiers"))?,
            elements: request.names("_elements")?,
        };
        request.end("type, identifiers, _elements")?;
        if !IDENTIFIERS.contains(&asked.identifiers.len()) {
            return Err(Error::invalid_argument(format!("the request has {} identifiers", asked.identifiers.len()))
                .hint(format!("It may have {} to {}.", IDENTIFIERS.start(), IDENTIFIERS.end())));
        }
        Ok(asked)
    }
}

/// Writes FHIR form. FHIR's own types have their name in `resourceType`. Others have it in `type`, which in FHIR is an
/// element.
fn writer(resource_type: &str, elements: Option<Vec<String>>) -> Writer {
    let asked = |name: &str| elements.as_ref().is_some_and(|elements| elements.iter().any(|element| element == name));
    let (id, meta) = (asked("id"), asked("meta"));
    let type_member = if fhir::resource_type(resource_type).is_some() { "resourceType" } else { "type" };
    let elements =
        elements.map(|elements| elements.into_iter().chain(["identifier".to_owned()]).collect::<BTreeSet<_>>());
    Writer::new(Form::Fhir(settings::fhir_version()), &settings::created_at_url(), true).select(Selection {
        elements,
        id,
        meta,
        type_member,
        subsetted: false,
    })
}

/// The result for an identifier.
enum Outcome<'a> {
    /// The line of the one resource that has it.
    Success(&'a [u8]),
    NotFound,
    AccessDenied,
    /// More than one resource has it.
    Several,
    NoValue,
}

/// The identifiers of a request, and the resources found for each.
struct Search<'a> {
    wanted: Vec<Wanted<'a>>,
    /// The indexes in `wanted` by value.
    by_value: HashMap<&'a str, Vec<usize>>,
    /// The lines of resources that were the first for one of the identifiers.
    lines: Vec<Vec<u8>>,
    bytes: usize,
}

/// An identifier of the request: `system|value`; `|value` has no system; `value` has any system or none.
struct Wanted<'a> {
    system: Option<&'a str>,
    value: &'a str,
    resources: u64,
    /// The number of the row in which it was last found; a resource may have the same identifier twice.
    last_row: u64,
    /// The index in `lines` of the first resource found.
    line: usize,
}

impl<'a> Search<'a> {
    fn new(identifiers: &'a [String]) -> Search<'a> {
        let mut by_value: HashMap<_, Vec<_>> = HashMap::new();
        let wanted: Vec<_> = identifiers.iter().map(|identifier| Wanted::parse(identifier)).collect();
        for (at, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| !wanted.value.is_empty()) {
            by_value.entry(wanted.value).or_default().push(at);
        }
        Search { wanted, by_value, lines: Vec::new(), bytes: 0 }
    }

    fn run(&mut self, table: &ResourceTable, resource_type: &str, writer: Writer) -> Result<()> {
        let patterns: Vec<_> = self.wanted.iter().filter_map(Wanted::pattern).collect();
        if patterns.is_empty() {
            return Ok(());
        }
        let mut reader = Reader::open(table, resource_type, Rows::Identified(&patterns), None, writer)?;
        let mut row = 0;
        reader.each(|stored| {
            row += 1;
            if self.find(row, stored.resource.json) {
                let mut line = Vec::new();
                stored.write(&mut line)?;
                self.bytes += line.len();
                self.lines.push(line);
                if self.bytes > MAX_ANSWER_BYTES {
                    return Err(too_much());
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    /// Counts a resource for the identifiers that it has. Returns whether it is the first for one of them.
    fn find(&mut self, row: u64, resource: &[u8]) -> bool {
        let Search { wanted, by_value, lines, .. } = self;
        let mut first = false;
        identifiers(resource, |identifier| {
            for at in by_value.get(identifier.value).into_iter().flatten() {
                let wanted = &mut wanted[*at];
                if wanted.is(&identifier) && wanted.last_row != row {
                    wanted.last_row = row;
                    wanted.resources += 1;
                    if wanted.resources == 1 {
                        wanted.line = lines.len();
                        first = true;
                    }
                }
            }
        });
        first
    }

    fn outcome(&self, at: usize) -> Outcome<'_> {
        let wanted = &self.wanted[at];
        match wanted.resources {
            _ if wanted.value.is_empty() => Outcome::NoValue,
            0 => Outcome::NotFound,
            1 => Outcome::Success(&self.lines[wanted.line]),
            _ => Outcome::Several,
        }
    }
}

impl<'a> Wanted<'a> {
    fn parse(identifier: &'a str) -> Wanted<'a> {
        let (system, value) = match identifier.split_once('|') {
            Some((system, value)) => (Some(system), value),
            None => (None, identifier),
        };
        Wanted { system, value, resources: 0, last_row: 0, line: 0 }
    }

    /// The identifier to look for. Without a system it matches any.
    fn pattern(&self) -> Option<Identifier<'a>> {
        let system = self.system.filter(|system| !system.is_empty());
        (!self.value.is_empty()).then_some(Identifier { system, value: self.value })
    }

    fn is(&self, found: &Identifier<'_>) -> bool {
        self.value == found.value && self.system.is_none_or(|system| system == found.system.unwrap_or_default())
    }
}

fn answer<'a>(resource_type: &str, identifiers: &[String], outcome: impl Fn(usize) -> Outcome<'a>) -> Result<Jsonb> {
    let mut items = Vec::new();
    let mut successful = 0;
    for (at, identifier) in identifiers.iter().enumerate() {
        items.extend_from_slice(if at == 0 { br#"{"identifier":"# } else { br#",{"identifier":"# });
        write_string(identifier.as_bytes(), &mut items);
        let (status, error) = match outcome(at) {
            Outcome::Success(line) => {
                if items.len() + line.len() > MAX_ANSWER_BYTES {
                    return Err(too_much());
                }
                successful += 1;
                items.extend_from_slice(br#","status":"success","resource":"#);
                items.extend_from_slice(line);
                items.push(b'}');
                continue;
            }
            Outcome::NotFound => ("not_found", format!("{resource_type} not found")),
            Outcome::AccessDenied => ("access_denied", format!("Access to {resource_type} denied")),
            Outcome::Several => ("error", format!("More than one {resource_type} has this identifier")),
            Outcome::NoValue => ("error", "The identifier has no value".to_owned()),
        };
        items.extend_from_slice(format!(r#","status":"{status}","error":"{error}"}}"#).as_bytes());
    }
    let total = identifiers.len();
    let mut text = format!(r#"{{"total":{total},"successful":{successful},"failed":{},"items":["#, total - successful)
        .into_bytes();
    text.append(&mut items);
    text.extend_from_slice(b"]}");
    Ok(Jsonb::parse(&CString::new(text).expect("JSON text has no NUL")))
}

fn too_much() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "the resources are too large for one answer")
        .detail(format!("It may hold {MAX_ANSWER_BYTES} bytes."))
        .hint("Ask for fewer identifiers at a time, or for some elements only: \"_elements\": \"name,birthDate\".")
}
