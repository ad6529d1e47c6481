//! The function that views of SQL call: the rows of one resource. It reads nothing but its arguments.

use super::errors;
use crate::arguments::required;
use crate::settings;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use fhir_bulk_pg::site::Site;
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
    static COMPILED: RefCell<Vec<Named>> = const { RefCell::new(Vec::new()) };
}

/// A compiled view, and the urls that are ours.
struct Compiled {
    bases: Vec<String>,
    resources: Resources,
    texts: Texts,
}

/// One by its text and its release, for calls whose arguments may differ by row.
struct Named {
    text: String,
    version: Version,
    compiled: Compiled,
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
    site: Site,
) -> SetOfIterator<'static, Vec<Option<String>>> {
    let arguments = || -> Result<(&str, Version)> {
        Ok((required(view, "view")?, version(required(fhir_version, "fhir_version")?)?))
    };
    // In a view of SQL both are constants.
    let kept = site.kept(&[0, 1], || {
        let (view, version) = arguments()?;
        Compiled::new(view, version, settings::base_urls()).map(RefCell::new)
    });
    let rows = kept.and_then(|kept| {
        let (Some(id), Some(JsonbBytes(json))) = (id, resource) else { return Ok(Vec::new()) };
        let last_updated = ts.map(i64::from).filter(|at| !INFINITE_TIMES.contains(at));
        let row = Row { id, version_id: txid, last_updated, resource_type, json };
        match kept {
            Some(compiled) => compiled.borrow_mut().rows(row),
            None => {
                let (view, version) = arguments()?;
                with_compiled(view, version, |compiled| compiled.rows(row))
            }
        }
    });
    SetOfIterator::new(or_raise(rows))
}

/// A resource, whose type may be missing.
struct Row<'r> {
    id: &'r str,
    version_id: Option<i64>,
    last_updated: Option<i64>,
    resource_type: Option<&'r str>,
    json: &'r [u8],
}

impl Compiled {
    fn new(text: &str, version: Version, bases: Vec<String>) -> Result<Compiled> {
        let json = serde_json::from_str(text)
            .map_err(|error| Error::invalid_argument(format!("argument view is not JSON: {error}")))?;
        let view = View::compile(version, &json).map_err(errors::invalid)?;
        let resources = Resources::new(Rc::new(view), bases.clone(), session::check_for_interrupts);
        Ok(Compiled { bases, resources, texts: Texts::new(version) })
    }

    fn rows(&mut self, row: Row<'_>) -> Result<Vec<Vec<Option<String>>>> {
        let Row { id, version_id, last_updated, resource_type, json } = row;
        let view = self.resources.view().clone();
        let resource_type = resource_type.unwrap_or(view.resource_type());
        let resource = Resource { id, resource_type, last_updated, version_id, json };
        let mut collected = Collected { texts: &self.texts, rows: Vec::new(), bytes: 0 };
        let done = self.resources.rows(resource, &mut collected);
        match done.map_err(|error| errors::of_row(error, &resource))? {
            Continue(()) => Ok(collected.rows),
            Break(()) => Err(too_many(&resource)),
        }
    }
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
        let is_it = |named: &Named| named.version == version && named.compiled.bases == bases && named.text == text;
        let at = kept.iter().position(is_it)?;
        Some(kept.remove(at))
    });
    let mut named = match found {
        Some(named) => named,
        None => Named { text: text.to_owned(), version, compiled: Compiled::new(text, version, bases)? },
    };
    let result = work(&mut named.compiled);
    COMPILED.with_borrow_mut(|kept| {
        kept.insert(0, named);
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
