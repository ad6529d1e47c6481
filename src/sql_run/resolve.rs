//! Finds the subject of a request, and what it depends on: in the request, or among the stored resources that the caller may
//! see.

use super::library::{self, Kind, Query, mistake};
use super::request::{Named, Request};
use crate::read;
use crate::settings;
use crate::store::{self, ResourceType};
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The types that may be stored and named.
const TYPES: [&str; 2] = ["ViewDefinition", "Library"];
/// How many dependencies may depend on each other in a row.
const MAX_DEPTH: usize = 16;
/// How many dependencies there may be in all: a few that repeat each other make many.
const MAX_DEPENDENCIES: usize = 1000;

/// What a request runs.
pub enum Subject {
    View(Value),
    Query(Query),
}

/// Finds the subject.
///
/// # Errors
/// P0002 for one that is not there, and for a dependency; 22023 for one of another type, and for what is wrong with its Library
/// or with what the request gives it.
pub fn subject(request: &Request) -> Result<Subject> {
    let context = Context::new(&request.context)?;
    let resource = match &request.subject {
        Named::Resource(resource) => resource.clone(),
        Named::Canonical(canonical) => stored(canonical)?,
        Named::Reference(reference) => referred(reference)?,
    };
    let found = match resource["resourceType"].as_str() {
        Some("ViewDefinition") => return Ok(Subject::View(resource)),
        Some("Library") => library::kind(&resource),
        _ => None,
    };
    let kind = found.ok_or_else(|| {
        Error::invalid_argument("the subject is no ViewDefinition, SQLQuery or SQLView")
            .hint("A Library is a SQLQuery or SQLView if its type has the code sql-query or sql-view.")
    })?;
    let text = library::text(&resource)?;
    let views = context.dependencies(&resource, 0)?;
    context.is_used()?;
    let parameters = match kind {
        Kind::Query => library::values(&resource, &text, request.parameters.as_ref())?,
        Kind::View if request.parameters.is_some() => {
            return Err(Error::invalid_argument("parameters are for a SQLQuery, and the subject is a SQLView"));
        }
        Kind::View => Map::new(),
    };
    Ok(Subject::Query(Query { text, views, parameters }))
}

/// Resources of the request that a subject may depend on.
struct Context<'r> {
    /// By their URLs.
    resources: Vec<(&'r str, &'r Value)>,
    used: RefCell<BTreeSet<&'r str>>,
    count: RefCell<usize>,
}

impl<'r> Context<'r> {
    fn new(given: &'r [Value]) -> Result<Context<'r>> {
        let mut resources: Vec<(&str, &Value)> = Vec::new();
        for resource in given {
            let url = resource["url"]
                .as_str()
                .ok_or_else(|| Error::invalid_argument("context has a resource without url"))?;
            if resources.iter().any(|(known, _)| *known == url) {
                return Err(Error::invalid_argument(format!("context has two resources with the url {url}")));
            }
            resources.push((url, resource));
        }
        Ok(Context { resources, used: RefCell::default(), count: RefCell::default() })
    }

    /// # Errors
    /// 22023 for a resource that nothing depends on.
    fn is_used(&self) -> Result<()> {
        let used = self.used.borrow();
        match self.resources.iter().find(|(url, _)| !used.contains(url)) {
            None => Ok(()),
            Some((url, _)) => {
                Err(Error::invalid_argument(format!("context has {url}, on which the subject does not depend")))
            }
        }
    }

    /// The views that a Library depends on, as `dump_sql` takes them.
    fn dependencies(&self, library: &Value, depth: usize) -> Result<Map<String, Value>> {
        if depth == MAX_DEPTH {
            return Err(mistake(&format!("has dependencies in a circle, or more than {MAX_DEPTH} in a row")));
        }
        let mut views = Map::new();
        for (label, canonical) in library::dependencies(library)? {
            *self.count.borrow_mut() += 1;
            if *self.count.borrow() > MAX_DEPENDENCIES {
                return Err(mistake(&format!("has more than {MAX_DEPENDENCIES} dependencies")));
            }
            let resource = self.find(canonical)?;
            let view = match (resource["resourceType"].as_str(), library::kind(&resource)) {
                (Some("ViewDefinition"), _) => resource,
                (Some("Library"), Some(Kind::View)) => {
                    json!({"query": library::text(&resource)?, "views": self.dependencies(&resource, depth + 1)?})
                }
                _ => return Err(mistake(&format!("depends on {canonical}, which is no ViewDefinition or SQLView"))),
            };
            views.insert(label.to_owned(), view);
        }
        Ok(views)
    }

    fn find(&self, canonical: &str) -> Result<Value> {
        let (url, version) = split(canonical);
        let found = self
            .resources
            .iter()
            .find(|(known, resource)| *known == url && version.is_none_or(|version| resource["version"] == version));
        match found {
            Some((url, resource)) => {
                self.used.borrow_mut().insert(url);
                Ok((*resource).clone())
            }
            None => stored(canonical),
        }
    }
}

/// The URL and the version of a canonical, without its fragment.
fn split(canonical: &str) -> (&str, Option<&str>) {
    let canonical = canonical.split('#').next().unwrap_or_default();
    canonical.split_once('|').map_or((canonical, None), |(url, version)| (url, Some(version)))
}

/// A stored resource by its canonical URL: of several, that which was changed last.
fn stored(canonical: &str) -> Result<Value> {
    let (url, version) = split(canonical);
    let mut content = json!({"url": url});
    if let Some(version) = version {
        content["version"] = version.into();
    }
    for name in TYPES {
        for id in store::ids_with(&ResourceType::new(name)?, &content.to_string())? {
            if let Some(resource) = read::resource(name, &id)? {
                return Ok(resource);
            }
        }
    }
    Err(absent(canonical))
}

/// A stored resource by a reference.
fn referred(reference: &str) -> Result<Value> {
    let own = settings::base_urls()
        .into_iter()
        .find_map(|base| reference.strip_prefix(base.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/')));
    let relative = own.unwrap_or(reference);
    let (name, id) = relative.split_once('/').ok_or_else(|| absent(reference))?;
    if !TYPES.contains(&name) || id.contains('/') {
        return Err(absent(reference));
    }
    let is_there = store::ResourceTable::find(&ResourceType::new(name)?)?.is_some();
    let found = if is_there { read::resource(name, id)? } else { None };
    found.ok_or_else(|| absent(reference))
}

fn absent(what: &str) -> Error {
    let shown: String = what.chars().take(200).collect();
    Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, format!("there is no ViewDefinition or Library {shown}"))
        .hint("Store it, or give it with the request.")
}
