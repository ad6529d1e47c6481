//! One parameter of a query, compiled: where its values are, and which are wanted.

use super::criterion::{Criterion, Wanted};
use super::date::Date;
use super::parameters::{self, Definition, Kind};
use super::quantity::Quantity;
use super::query::Clause;
use super::reference::Reference;
use super::text::{self, Text};
use super::token::Token;
use super::uri::{self, Uri};
use super::value::{Refused, shown, split};
use crate::compile::{Compiled, compile, compile_within};
use crate::model::{Model, TypeId};
use crate::program::{Program, Scope};
use fhir_bulk_codec::fhir::Version;
use std::collections::BTreeSet;

/// What a query is about.
#[derive(Clone, Copy)]
pub struct Searched<'a> {
    /// The release whose parameters and elements count.
    pub version: Version,
    /// The type of all resources.
    pub resource_type: &'a str,
    /// Parameters that are not HL7's. HL7's come first.
    pub own: &'a [Definition],
    /// The urls of servers whose resources are ours.
    pub bases: &'a [String],
}

/// A parameter with the values that it may have.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Where the values are.
    pub program: Program,
    /// The wanted ones: one is enough.
    pub wanted: Wanted,
    pub sense: Sense,
}

/// What the values of a resource have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// One of the wanted.
    Any,
    /// None of the wanted.
    None,
    /// None at all, or some.
    Missing(bool),
}

/// The most values of a parameter.
const MAX_VALUES: usize = 1000;

/// Parameters that FHIR's search has and that filter by other resources, or not by elements.
const BEYOND: [&str; 8] = ["_text", "_content", "_filter", "_query", "_has", "_list", "_in", "_type"];
/// Parameters that say how results are returned.
const OF_RESULTS: [&str; 13] = [
    "_sort",
    "_count",
    "_include",
    "_revinclude",
    "_elements",
    "_summary",
    "_total",
    "_contained",
    "_containedType",
    "_maxresults",
    "_score",
    "_format",
    "_pretty",
];

impl Condition {
    /// Compiles a parameter. `None` if it has no value; then `ignored` says so.
    ///
    /// # Errors
    /// Parameters and modifiers that are not known or not supported; values that the parameter's type does not have.
    pub fn new(clause: &Clause, of: &Searched<'_>, ignored: &mut Vec<String>) -> Result<Option<Condition>, Refused> {
        let named = |error: Refused| error.of(&clause.name);
        let (code, modifier) = match clause.name.split_once(':') {
            Some((code, modifier)) => (code, Some(modifier)),
            None => (clause.name.as_str(), None),
        };
        let definition = definition(code, of).map_err(named)?;
        let compiled = program(&definition, of).map_err(named)?;
        let way = Way::of(&definition, modifier, of.version).map_err(named)?;
        let mut values = split(&clause.value, ',');
        let all = values.len();
        values.retain(|value| !value.is_empty());
        if values.len() < all {
            ignored.push(format!("An empty value of {} was ignored.", shown(&clause.name)));
        }
        if values.is_empty() {
            return Ok(None);
        }
        if values.len() > MAX_VALUES {
            let message = format!("it has {} values; {MAX_VALUES} are allowed", values.len());
            return Err(named(Refused::invalid(message)));
        }
        let Compiled { program, types } = &compiled;
        let program = if way == Way::Identifier { identifiers(program, types) } else { program.clone() };
        if way == Way::Missing {
            let missing = match values.as_slice() {
                ["true"] => true,
                ["false"] => false,
                _ => return Err(named(Refused::invalid("the value of :missing is true or false"))),
            };
            return Ok(Some(Condition { program, wanted: Wanted::new(Vec::new()), sense: Sense::Missing(missing) }));
        }
        let criteria = values.into_iter().map(|value| criterion(&definition, &way, value, &compiled, of));
        let wanted = Wanted::new(criteria.collect::<Result<_, _>>().map_err(named)?);
        let sense = if way == Way::Not { Sense::None } else { Sense::Any };
        Ok(Some(Condition { program, wanted, sense }))
    }

    /// The place at which it is tried: first what is decided quickly and lets few resources through.
    pub fn rank(&self) -> u8 {
        match (&self.program, self.sense) {
            (Program::Id | Program::LastUpdated, _) => 0,
            (_, Sense::Any) if self.wanted.is_of_codes() => 1,
            (_, Sense::Any) => 2,
            (_, Sense::None | Sense::Missing(_)) => 3,
        }
    }

    /// Whether a resource fulfils it.
    #[inline]
    pub fn holds(&self, scope: &Scope<'_, '_>) -> bool {
        let any = || self.program.any(scope, scope.resource.item(), |item| self.wanted.matches(scope, &item));
        match self.sense {
            Sense::Any => any(),
            Sense::None => !any(),
            Sense::Missing(missing) => missing != self.program.any(scope, scope.resource.item(), |_| true),
        }
    }
}

fn definition(code: &str, of: &Searched<'_>) -> Result<Definition, Refused> {
    if code.contains('.') {
        return Err(Refused::unsupported("chained parameters are not supported"));
    }
    if BEYOND.contains(&code) {
        return Err(Refused::unsupported("this parameter is not supported in filters"));
    }
    if OF_RESULTS.contains(&code) {
        return Err(Refused::unsupported("it says how results are returned, and filters nothing"));
    }
    let is_own = |known: &&Definition| known.code == code && searches(known, of.resource_type);
    let found = parameters::find(of.version, of.resource_type, code).or_else(|| of.own.iter().find(is_own).cloned());
    found.ok_or_else(|| {
        Refused::unsupported(format!("{} has no such search parameter", of.resource_type))
            .hint("bulk_search_parameters() lists the parameters; your own go into table bulk_search_parameter.")
    })
}

/// Whether a parameter is for a type, or for all.
fn searches(known: &Definition, resource_type: &str) -> bool {
    let is_base = |base: &String| matches!(base.as_str(), "Resource" | "DomainResource") || *base == resource_type;
    known.base.iter().any(is_base)
}

/// The parameters that queries of a type may have, sorted by code.
pub fn usable(of: &Searched<'_>) -> Vec<Definition> {
    let known = parameters::all(of.version).chain(of.own.iter().cloned());
    let codes: BTreeSet<String> =
        known.filter(|known| searches(known, of.resource_type)).map(|known| known.code).collect();
    let found = codes.iter().filter_map(|code| definition(code, of).ok());
    found.filter(|definition| program(definition, of).is_ok()).collect()
}

fn program(definition: &Definition, of: &Searched<'_>) -> Result<Compiled, Refused> {
    if definition.expression.is_empty() || definition.kind == Kind::Special {
        return Err(Refused::unsupported("it is defined in words only, and is not supported"));
    }
    let compiled = |expression: &str| {
        let compiled = compile(Model::of(of.version), of.resource_type, expression);
        compiled.map_err(|mistake| Refused::unsupported(format!("its expression is not supported: {mistake}")))
    };
    let nothing = || Refused::unsupported(format!("its expression finds nothing in {} resources", of.resource_type));
    let found = compiled(&definition.expression)?.ok_or_else(nothing)?;
    if found.types == [TypeId::EXTENSION] {
        // HL7's parameters on extensions leave out that their value is meant.
        return compiled(&format!("({}).value", definition.expression))?.ok_or_else(nothing);
    }
    Ok(found)
}

/// The identifiers of References, also of those in CodeableReferences.
fn identifiers(references: &Program, types: &[TypeId]) -> Program {
    let member = |of: Program, name: &str, type_id| Program::Member {
        of: Box::new(of),
        name: name.into(),
        type_id,
        is_list: Some(false),
    };
    let of_references = member(references.clone(), "identifier", TypeId::IDENTIFIER);
    if !types.contains(&TypeId::CODEABLE_REFERENCE) {
        return of_references;
    }
    let inner = member(references.clone(), "reference", TypeId::REFERENCE);
    Program::Union(vec![of_references, member(inner, "identifier", TypeId::IDENTIFIER)])
}

/// How values are compared, from the modifier.
#[derive(Clone, PartialEq)]
enum Way {
    Plain,
    Missing,
    Not,
    Identifier,
    OfType(String),
    Text(text::Mode),
    Uri(uri::Mode),
}

impl Way {
    fn of(definition: &Definition, modifier: Option<&str>, version: Version) -> Result<Way, Refused> {
        let Some(modifier) = modifier else { return Ok(Way::Plain) };
        match (definition.kind, modifier) {
            (_, "missing") => Ok(Way::Missing),
            (Kind::Token, "not") => Ok(Way::Not),
            (Kind::Reference, "identifier") => Ok(Way::Identifier),
            (Kind::Reference, name) if version.has_resource_type(name) => Ok(Way::OfType(name.to_owned())),
            (Kind::String, "exact") => Ok(Way::Text(text::Mode::Exact)),
            (Kind::String, "contains") => Ok(Way::Text(text::Mode::Contains)),
            (Kind::Uri, "below") => Ok(Way::Uri(uri::Mode::Below)),
            (Kind::Uri, "above") => Ok(Way::Uri(uri::Mode::Above)),
            (kind, _) => {
                let known = match kind {
                    Kind::Token => ":not and :missing",
                    Kind::Reference => "a type, :identifier and :missing",
                    Kind::String => ":exact, :contains and :missing",
                    Kind::Uri => ":below, :above and :missing",
                    _ => ":missing",
                };
                Err(Refused::unsupported(format!("the modifier :{} is not supported", shown(modifier)))
                    .hint(format!("Parameters of this type take {known}.")))
            }
        }
    }
}

fn criterion(
    definition: &Definition,
    way: &Way,
    value: &str,
    compiled: &Compiled,
    of: &Searched<'_>,
) -> Result<Criterion, Refused> {
    Ok(match definition.kind {
        _ if *way == Way::Identifier => Criterion::Token(Token::new(value)),
        Kind::Token => Criterion::Token(Token::new(value)),
        Kind::Reference => {
            let of_type = if let Way::OfType(name) = way { Some(name.as_str()) } else { None };
            let reference = Reference::new(value, of_type, &definition.targets, of.bases);
            let is_other = || Refused::invalid(format!("\"{}\" has another type than the modifier", shown(value)));
            Criterion::Reference(reference.ok_or_else(is_other)?)
        }
        Kind::Date => Criterion::Date(Date::new(value)?),
        Kind::String => {
            let mode = if let Way::Text(mode) = way { *mode } else { text::Mode::Start };
            Criterion::Text(Text::new(value, mode)?)
        }
        Kind::Number => Criterion::Quantity(Quantity::without_unit(value)?),
        Kind::Quantity => Criterion::Quantity(Quantity::new(value)?),
        Kind::Uri => {
            let mode = if let Way::Uri(mode) = way { *mode } else { uri::Mode::Equal };
            Criterion::Uri(Uri::new(value, mode))
        }
        Kind::Composite => Criterion::Composite(parts(definition, value, compiled, of)?),
        Kind::Special => return Err(Refused::unsupported("this parameter is not supported in filters")),
    })
}

/// The parts of a composite's value, each compiled from the items of the composite on.
fn parts(
    definition: &Definition,
    value: &str,
    compiled: &Compiled,
    of: &Searched<'_>,
) -> Result<Vec<(Program, Criterion)>, Refused> {
    let values = split(value, '$');
    if values.len() != definition.components.len() {
        return Err(Refused::invalid(format!(
            "\"{}\" has {} parts; it needs {}, separated by $",
            shown(value),
            values.len(),
            definition.components.len()
        )));
    }
    let unusable = |what: String| Refused::unsupported(format!("a part of it is not supported: {what}"));
    let part = |(component, value): (&parameters::Component, &str)| {
        let model = Model::of(of.version);
        let found = compile_within(model, of.resource_type, compiled, &component.expression);
        let found = found.map_err(|mistake| unusable(mistake.to_string()))?;
        let found = found.ok_or_else(|| unusable(format!("{} finds nothing", component.expression)))?;
        let known = parameters::find_by_url(of.version, &component.definition)
            .or_else(|| of.own.iter().find(|known| known.url == component.definition).cloned())
            // Some of HL7's refer to parameters that HL7 does not define.
            .or_else(|| Some(Definition { kind: Kind::of_types(model, &found.types)?, ..definition.clone() }))
            .ok_or_else(|| unusable(format!("{} is not known", component.definition)))?;
        if known.kind == Kind::Composite {
            return Err(unusable(format!("{} is a composite itself", component.definition)));
        }
        let criterion = criterion(&known, &Way::Plain, value, &found, of)?;
        Ok((found.program, criterion))
    };
    definition.components.iter().zip(values).map(part).collect()
}
