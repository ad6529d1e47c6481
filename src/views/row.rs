//! The function that views of SQL call: the rows of one resource. It reads nothing but its arguments.

use super::errors;
use crate::arguments::required;
use crate::settings;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use fhir_bulk_pg::value::INFINITE_TIMES;
use fhir_bulk_views::cell::Texts;
use fhir_bulk_views::{Cell, Resources, Rows, View};
use pgrx::PgSqlErrorCode;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ops::ControlFlow::{self, Break, Continue};
use std::rc::Rc;

/// Views that this session has compiled: those that were used last.
const KEPT: usize = 16;
/// The most bytes of all rows of a resource: PostgreSQL gets them at once.
const MAX_BYTES: usize = 256 << 20;

thread_local! {
    static COMPILED: RefCell<Vec<Compiled>> = const { RefCell::new(Vec::new()) };
}

/// A compiled view, by its text, its release, and the urls that are ours.
struct Compiled {
    text: String,
    version: Version,
    bases: Vec<String>,
    resources: Resources,
    texts: Texts,
}

/// The rows of a resource, each as an array of its cells' texts.
#[pg_extern(stable, parallel_safe)]
#[allow(clippy::too_many_arguments, reason = "they are the columns of a row")]
fn bulk_view_rows(
    view: Option<&str>,
    fhir_version: Option<&str>,
    id: Option<&str>,
    txid: Option<i64>,
    ts: Option<TimestampWithTimeZone>,
    resource_type: Option<&str>,
    resource: Option<JsonbBytes<'_>>,
) -> SetOfIterator<'static, Vec<Option<String>>> {
    let rows = required(view, "view").and_then(|view| {
        let version = version(required(fhir_version, "fhir_version")?)?;
        let (Some(id), Some(JsonbBytes(json))) = (id, resource) else { return Ok(Vec::new()) };
        let last_updated = ts.map(i64::from).filter(|at| !INFINITE_TIMES.contains(at));
        with_compiled(view, version, |compiled| {
            let of_view = compiled.resources.view().resource_type().to_owned();
            let resource_type = resource_type.unwrap_or(&of_view);
            let resource = Resource { id, resource_type, last_updated, version_id: txid, json };
            let mut collected = Collected { texts: &compiled.texts, rows: Vec::new(), bytes: 0 };
            let done = compiled.resources.rows(resource, &mut collected);
            match done.map_err(|error| errors::of_row(error, &resource))? {
                Continue(()) => Ok(collected.rows),
                Break(()) => Err(too_many(&resource)),
            }
        })
    });
    SetOfIterator::new(or_raise(rows))
}

/// The number of a release, as the function takes it.
pub fn number_of(version: Version) -> &'static str {
    match version {
        Version::R4 => "4.0.1",
        Version::R4B => "4.3.0",
        Version::R5 => "5.0.0",
    }
}

fn version(number: &str) -> Result<Version> {
    Version::of_number(number).ok_or_else(|| {
        let shown: String = number.chars().take(80).collect();
        Error::invalid_argument(format!("fhir_version \"{shown}\" is not known"))
            .hint("It may be 4.0.1, 4.3.0 or 5.0.0.")
    })
}

/// Compiles a view, unless this session has done it.
fn with_compiled<T>(text: &str, version: Version, work: impl FnOnce(&mut Compiled) -> Result<T>) -> Result<T> {
    let bases = settings::base_urls();
    let found = COMPILED.with_borrow_mut(|kept| {
        let is_it =
            |compiled: &Compiled| compiled.version == version && compiled.bases == bases && compiled.text == text;
        let at = kept.iter().position(is_it)?;
        Some(kept.remove(at))
    });
    let mut compiled = match found {
        Some(compiled) => compiled,
        None => {
            let json = serde_json::from_str(text)
                .map_err(|error| Error::invalid_argument(format!("argument view is not JSON: {error}")))?;
            let view = View::compile(version, &json).map_err(errors::invalid)?;
            let resources = Resources::new(Rc::new(view), bases.clone(), session::check_for_interrupts);
            Compiled { text: text.to_owned(), version, bases, resources, texts: Texts::new(version) }
        }
    };
    let result = work(&mut compiled);
    COMPILED.with_borrow_mut(|kept| {
        kept.insert(0, compiled);
        kept.truncate(KEPT);
    });
    result
}

/// Collects rows as texts.
struct Collected<'t> {
    texts: &'t Texts,
    rows: Vec<Vec<Option<String>>>,
    bytes: usize,
}

impl Rows for Collected<'_> {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let text = |cell: &Cell<'_>| {
            if matches!(cell, Cell::Null) {
                return None;
            }
            let mut out = Vec::new();
            self.texts.text(resource, cell, &mut out);
            Some(String::from_utf8(out).unwrap_or_default())
        };
        let row: Vec<Option<String>> = cells.iter().map(text).collect();
        self.bytes += row.iter().map(|text| 32 + text.as_ref().map_or(0, String::len)).sum::<usize>();
        self.rows.push(row);
        if self.bytes > MAX_BYTES { Break(()) } else { Continue(()) }
    }
}

fn too_many(resource: &Resource<'_>) -> Error {
    let message =
        format!("the rows of {} \"{}\" have more than {MAX_BYTES} bytes", resource.resource_type, resource.id);
    Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message).hint("dump_view() returns any number of rows.")
}
