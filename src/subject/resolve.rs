//! Finds the subject that a request names, and what it depends on: in the request, or among the stored resources that the caller
//! may see.

use super::library::{self, Kind, mistake};
use super::rows::{Query, Subject};
use crate::read;
use crate::settings;
use crate::store::{self, ResourceType};
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The types that may be stored and named.
const TYPES: [&str; 2] = ["ViewDefinition", "Library"];
/// The members of a request that name a subject.
pub const NAMES: [&str; 3] = ["subjectCanonical", "subjectReference", "subjectResource"];
/// How many dependencies may depend on each other in a row.
const MAX_DEPTH: usize = 16;
/// How many dependencies there may be in all: a few that repeat each other make many.
const MAX_DEPENDENCIES: usize = 1000;

/// How a request names its subject.
pub enum Named {
    /// `url` or `url|version`.
    Canonical(String),
    /// `ViewDefinition/id`, `Library/id`, or such a URL below one of ours.
    Reference(String),
    /// The resource itself.
    Resource(Value),
}

impl Named {
    /// Takes the member that names a subject.
    ///
    /// # Errors
    /// 22023 if there is none, if there are several, and for one of another type.
    pub fn take(members: &mut Map<String, Value>) -> Result<Named> {
        let text = |value: Value, name: &str| match value {
            Value::String(text) if !text.is_empty() => Ok(text),
            _ => Err(Error::invalid_argument(format!("{name} is not a string that is not empty"))),
        };
        match NAMES.map(|name| members.remove(name)) {
            [Some(canonical), None, None] => text(canonical, NAMES[0]).map(Named::Canonical),
            [None, Some(reference), None] => text(reference, NAMES[1]).map(Named::Reference),
            [None, None, Some(resource)] if resource.is_object() => Ok(Named::Resource(resource)),
            [None, None, Some(_)] => Err(Error::invalid_argument(format!("{} is not a resource", NAMES[2]))),
            [None, None, None] => Err(Error::invalid_argument("subject is missing")
                .hint("Name it by subjectCanonical, subjectReference or subjectResource.")),
            _ => Err(Error::invalid_argument("subject is named in more than one way")
                .hint("Name it by one of subjectCanonical, subjectReference and subjectResource.")),
        }
    }
}

/// A subject that was found, and the name that its resource has, if it has one.
pub struct Found {
    pub subject: Subject,
    pub name: Option<String>,
}

/// Resources of the request that subjects may depend on.
pub struct Context<'r> {
    /// By their URLs.
    resources: Vec<(&'r str, &'r Value)>,
    used: RefCell<BTreeSet<&'r str>>,
    /// Stored resources that were found, by their canonical URLs: all that depends on one sees the same.
    stored: RefCell<BTreeMap<String, Value>>,
    count: RefCell<usize>,
}

impl<'r> Context<'r> {
    /// # Errors
    /// 22023 for a resource without a URL, and for two with the same one.
    pub fn new(given: &'r [Value]) -> Result<Context<'r>> {
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
        Ok(Context { resources, used: RefCell::default(), stored: RefCell::default(), count: RefCell::default() })
    }

    /// Finds a subject; `given` are the values of a query's parameters, as a Parameters resource.
    ///
    /// # Errors
    /// P0002 for one that is not there, and for a dependency; 22023 for one of another type, and for what is wrong with its
    /// Library or with what the request gives it.
    pub fn subject(&self, named: &Named, given: Option<&Value>) -> Result<Found> {
        if given.is_some_and(|given| given["resourceType"] != "Parameters") {
            return Err(Error::invalid_argument("parameters is not a Parameters resource"));
        }
        let resource = match named {
            Named::Resource(resource) => resource.clone(),
            Named::Canonical(canonical) => self.stored(canonical)?,
            Named::Reference(reference) => referred(reference)?,
        };
        let name = resource["name"].as_str().map(str::to_owned);
        let kind = match resource["resourceType"].as_str() {
            Some("ViewDefinition") if given.is_some() => {
                let message = "parameters are for a query, and the subject is a ViewDefinition";
                return Err(Error::invalid_argument(message));
            }
            Some("ViewDefinition") => return Ok(Found { subject: Subject::View(resource), name }),
            Some("Library") => library::kind(&resource),
            _ => None,
        };
        let kind = kind.ok_or_else(|| {
            Error::invalid_argument("the subject is no ViewDefinition, SQLQuery or SQLView")
                .hint("A Library is a SQLQuery or SQLView if its type has the code sql-query or sql-view.")
        })?;
        let text = library::text(&resource)?;
        let views = self.dependencies(&resource, 0)?;
        let parameters = match kind {
            Kind::Query => library::values(&resource, &text, given)?,
            Kind::View if given.is_some() => {
                return Err(Error::invalid_argument("parameters are for a SQLQuery, and the subject is a SQLView"));
            }
            Kind::View => Map::new(),
        };
        let query = Query { text, views, parameters: Some(parameters) };
        Ok(Found { subject: Subject::Query(query), name })
    }

    /// # Errors
    /// 22023 for a resource that nothing depends on.
    pub fn is_used(&self) -> Result<()> {
        let used = self.used.borrow();
        match self.resources.iter().find(|(url, _)| !used.contains(url)) {
            None => Ok(()),
            Some((url, _)) => Err(Error::invalid_argument(format!("context has {url}, on which no subject depends"))),
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
            None => self.stored(canonical),
        }
    }

    fn stored(&self, canonical: &str) -> Result<Value> {
        if let Some(known) = self.stored.borrow().get(canonical) {
            return Ok(known.clone());
        }
        let found = stored(canonical)?;
        self.stored.borrow_mut().insert(canonical.to_owned(), found.clone());
        Ok(found)
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
