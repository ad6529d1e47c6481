//! What an index can find: conditions that every resource fulfils which a filter lets through.

use super::condition::{Condition, Sense};
use super::criterion::Criterion;
use super::date::Date;
use super::reference::Reference;
use super::token::{System, Token};
use super::uri::Mode;
use super::value::Prefix;
use crate::model::{Model, TypeId};
use crate::program::Program;
use fhir_bulk_codec::instant::Micros;
use fhir_bulk_codec::jsonb::text::write_string;

/// A condition that every wanted resource fulfils.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Necessary {
    /// Its id is one of these.
    Ids(Vec<String>),
    /// It was last changed at or after `from` and before `until`, where they are given.
    Changed {
        /// The first microsecond.
        from: Option<Micros>,
        /// The first microsecond after it.
        until: Option<Micros>,
    },
    /// Its jsonb contains (`@>`) one of these, JSON objects with one member, whose names are the same.
    Contains(Vec<String>),
}

/// With more patterns than this an index costs more than it saves.
const MAX_PATTERNS: usize = 200;
/// The most types that an id is looked for in.
const MAX_TARGETS: usize = 20;

/// The condition for a parameter; `None` if no index can find it.
pub fn of(condition: &Condition, model: &Model, bases: &[String]) -> Option<Necessary> {
    if condition.sense != Sense::Any {
        return None;
    }
    match (&condition.program, condition.wanted.all()) {
        (Program::Id, criteria) => ids(criteria).map(Necessary::Ids),
        (Program::LastUpdated, [Criterion::Date(date)]) => changed(date),
        (program, criteria) => {
            let mut patterns = Vec::new();
            for criterion in criteria {
                patterns.extend(containing(program, &|type_id| leaves(criterion, model.name(type_id), bases))?);
            }
            patterns.sort_unstable();
            patterns.dedup();
            // An index may be on a member of the resource.
            let is_one_member = patterns.iter().all(|pattern| member(pattern) == member(&patterns[0]));
            (!patterns.is_empty() && patterns.len() <= MAX_PATTERNS && is_one_member)
                .then_some(Necessary::Contains(patterns))
        }
    }
}

/// The condition of several queries of which one has to hold: what each of them needs, if an index can find it.
pub fn of_one(queries: impl Iterator<Item = Vec<Necessary>>) -> Option<Necessary> {
    let mut all = Vec::new();
    for query in queries {
        let found = query.into_iter().find_map(|necessary| match necessary {
            Necessary::Contains(patterns) => Some(patterns),
            _ => None,
        });
        all.extend(found?);
    }
    all.sort_unstable();
    all.dedup();
    let is_one_member = all.iter().all(|pattern| member(pattern) == member(&all[0]));
    (!all.is_empty() && all.len() <= MAX_PATTERNS && is_one_member).then_some(Necessary::Contains(all))
}

/// The name of the first member of a pattern.
fn member(pattern: &str) -> &str {
    pattern.split(':').next().unwrap_or_default()
}

fn ids(criteria: &[Criterion]) -> Option<Vec<String>> {
    let id = |criterion: &Criterion| match criterion {
        // An id has no system: whatever a query says, the id has to be this.
        Criterion::Token(Token { code, .. }) => code.clone(),
        _ => None,
    };
    criteria.iter().map(id).collect()
}

fn changed(date: &Date) -> Option<Necessary> {
    let Date { prefix, from, until } = *date;
    let (from, until) = match prefix {
        Prefix::Equal => (Some(from), Some(until)),
        Prefix::Greater | Prefix::StartsAfter => (Some(until), None),
        Prefix::GreaterOrEqual => (Some(from), None),
        Prefix::Less | Prefix::EndsBefore => (None, Some(from)),
        Prefix::LessOrEqual => (None, Some(until)),
        Prefix::NotEqual => return None,
    };
    Some(Necessary::Changed { from, until })
}

/// The patterns of resources in which a program finds one of `leaves`. A pattern may leave out what the program asks
/// besides.
fn containing(program: &Program, leaves: &dyn Fn(TypeId) -> Option<Vec<String>>) -> Option<Vec<String>> {
    match program {
        Program::Member { of, name, type_id, is_list } => {
            let is_list = (*is_list)?;
            around(of, leaves(*type_id)?.iter().map(|leaf| object(name, leaf, is_list)).collect())
        }
        Program::Choice { of, types } => {
            let mut found = Vec::new();
            for (name, type_id) in types {
                found.extend(leaves(*type_id)?.iter().map(|leaf| object(name, leaf, false)));
            }
            around(of, found)
        }
        Program::Where(of, _) | Program::Nth(of, _) => containing(of, leaves),
        Program::Union(parts) => {
            let mut found = Vec::new();
            for part in parts {
                found.extend(containing(part, leaves)?);
            }
            Some(found)
        }
        _ => None,
    }
}

/// The patterns of resources in which a program finds what is like one of `inner`.
fn around(program: &Program, inner: Vec<String>) -> Option<Vec<String>> {
    // Choices within choices are many.
    if inner.len() > MAX_PATTERNS {
        return None;
    }
    match program {
        Program::Root => Some(inner),
        Program::Member { of, name, is_list, .. } => {
            let is_list = (*is_list)?;
            around(of, inner.iter().map(|inner| object(name, inner, is_list)).collect())
        }
        Program::Choice { of, types } => {
            let named = types.iter().flat_map(|(name, _)| inner.iter().map(move |inner| object(name, inner, false)));
            around(of, named.collect())
        }
        Program::Where(of, _) | Program::Nth(of, _) | Program::Resources(of, ..) => around(of, inner),
        Program::Union(parts) => {
            let mut found = Vec::new();
            for part in parts {
                found.extend(around(part, inner.clone())?);
            }
            Some(found)
        }
        _ => None,
    }
}

/// What an item of a type contains that has a value; `None` if containment cannot say it.
fn leaves(criterion: &Criterion, type_name: &str, bases: &[String]) -> Option<Vec<String>> {
    let is_text =
        matches!(type_name, "code" | "string" | "id" | "uri" | "url" | "canonical" | "oid" | "uuid" | "markdown");
    Some(match criterion {
        Criterion::Token(token) => vec![token_leaf(token, type_name, is_text)?],
        Criterion::Reference(reference) if type_name == "Reference" => references(reference, bases)?,
        Criterion::Reference(reference) if type_name == "CodeableReference" => {
            references(reference, bases)?.iter().map(|leaf| object("reference", leaf, false)).collect()
        }
        Criterion::Uri(uri) if is_text && uri.mode == Mode::Equal => vec![string(&uri.uri)],
        _ => return None,
    })
}

fn token_leaf(token: &Token, type_name: &str, is_text: bool) -> Option<String> {
    let code = token.code.as_deref();
    if is_text {
        return code.map(string);
    }
    let within = |code_name: &str| {
        let code = code.map(|code| (code_name, code));
        let system = match &token.system {
            System::Is(system) => Some(("system", system.as_str())),
            System::Any | System::None => None,
        };
        let members: Vec<String> =
            code.into_iter().chain(system).map(|(name, value)| format!("{}:{}", string(name), string(value))).collect();
        (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
    };
    match type_name {
        "boolean" => code.filter(|code| matches!(*code, "true" | "false")).map(str::to_owned),
        "CodeableConcept" => Some(object("coding", &within("code")?, true)),
        "CodeableReference" => Some(object("concept", &object("coding", &within("code")?, true), false)),
        "Coding" => within("code"),
        "Identifier" => within("value"),
        _ => None,
    }
}

/// A Reference in all forms in which it may be stored.
fn references(reference: &Reference, bases: &[String]) -> Option<Vec<String>> {
    let named = |name: &str, url: &str| object(name, &string(url), false);
    let ours = |path: &str| {
        let urls = bases.iter().map(|base| format!("{base}/{path}"));
        // With an id of its own, a Reference stays in FHIR's form.
        let mut all: Vec<_> = urls.flat_map(|url| [named("uri", &url), named("reference", &url)]).collect();
        all.push(named("reference", path));
        all
    };
    let local = |resource_type: &str, id: &str| {
        let mut all = ours(&format!("{resource_type}/{id}"));
        all.push(format!("{{\"id\":{},\"resourceType\":{}}}", string(id), string(resource_type)));
        all
    };
    let foreign = |url: &str| {
        let mut all = ours(url);
        all.push(named("uri", url));
        all
    };
    match reference {
        Reference::Id { id, targets } if (1..=MAX_TARGETS).contains(&targets.len()) => {
            Some(targets.iter().flat_map(|target| local(target, id)).collect())
        }
        Reference::Id { .. } => None,
        Reference::Local { resource_type, id } => Some(local(resource_type, id)),
        Reference::Uri(url) => Some(foreign(url)),
    }
}

/// `{"name":value}`, or `{"name":[value]}`.
fn object(name: &str, value: &str, is_list: bool) -> String {
    let name = string(name);
    if is_list { format!("{{{name}:[{value}]}}") } else { format!("{{{name}:{value}}}") }
}

fn string(text: &str) -> String {
    let mut out = Vec::new();
    write_string(text.as_bytes(), &mut out);
    String::from_utf8(out).expect("escapes of UTF-8 are UTF-8")
}
