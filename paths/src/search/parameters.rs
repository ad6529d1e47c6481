//! Search parameters: HL7's, by release, and users' own.

use crate::model::{Model, TypeId};
use fhir_bulk_codec::fhir::Version;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A search parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its canonical url.
    pub url: String,
    /// Its name in queries.
    pub code: String,
    /// How its values are compared.
    pub kind: Kind,
    /// The resource types that it searches; `Resource` and `DomainResource` mean all.
    pub base: Vec<String>,
    /// The types that its references may have; empty for any.
    pub targets: Vec<String>,
    /// Where its values are; empty if HL7 defines it in words only.
    pub expression: String,
    /// The parts of a composite.
    pub components: Vec<Component>,
}

/// A part of a composite parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The url of the parameter whose type it has.
    pub definition: String,
    /// Where its values are, from the composite's items on.
    pub expression: String,
}

/// The type of a search parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the names of FHIR")]
pub enum Kind {
    Token,
    Reference,
    Date,
    String,
    Number,
    Quantity,
    Uri,
    Composite,
    Special,
}

impl Kind {
    /// FHIR's name of a type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Token => "token",
            Kind::Reference => "reference",
            Kind::Date => "date",
            Kind::String => "string",
            Kind::Number => "number",
            Kind::Quantity => "quantity",
            Kind::Uri => "uri",
            Kind::Composite => "composite",
            Kind::Special => "special",
        }
    }

    /// A type by FHIR's name.
    pub fn of(name: &str) -> Option<Kind> {
        Some(match name {
            "token" => Kind::Token,
            "reference" => Kind::Reference,
            "date" => Kind::Date,
            "string" => Kind::String,
            "number" => Kind::Number,
            "quantity" => Kind::Quantity,
            "uri" => Kind::Uri,
            "composite" => Kind::Composite,
            "special" => Kind::Special,
            _ => return None,
        })
    }
}

impl Kind {
    /// The type of a parameter whose items have these types, if one goes with all of them.
    pub(super) fn of_types(model: &Model, types: &[TypeId]) -> Option<Kind> {
        let of = |id: &TypeId| {
            Some(match model.name(*id) {
                "boolean" | "code" | "id" | "Coding" | "CodeableConcept" | "Identifier" | "ContactPoint" => Kind::Token,
                "Reference" | "canonical" => Kind::Reference,
                "date" | "dateTime" | "instant" | "Period" | "Timing" => Kind::Date,
                "string" | "markdown" | "HumanName" | "Address" => Kind::String,
                "decimal" | "integer" | "positiveInt" | "unsignedInt" => Kind::Number,
                "Quantity" | "Age" | "Duration" | "Range" | "Money" | "SampledData" => Kind::Quantity,
                "uri" | "url" | "oid" | "uuid" => Kind::Uri,
                _ => return None,
            })
        };
        let first = of(types.first()?)?;
        types.iter().all(|id| of(id) == Some(first)).then_some(first)
    }
}

/// The beginning of the urls of HL7's parameters.
pub const HL7: &str = "http://hl7.org/fhir/SearchParameter/";

/// HL7's parameters of a release, and those of the supplement, in the order of their urls.
pub fn all(version: Version) -> impl Iterator<Item = Definition> {
    let lines = Parameters::of(version).by_id.values().copied().collect::<std::collections::BTreeSet<&str>>();
    lines.into_iter().filter_map(read)
}

/// HL7's parameters of a release. The supplement has those that clients use although HL7's core does not define them.
struct Parameters {
    by_code: HashMap<(&'static str, &'static str), &'static str>,
    by_id: HashMap<&'static str, &'static str>,
}

impl Parameters {
    fn of(version: Version) -> &'static Parameters {
        static R4: LazyLock<Parameters> =
            LazyLock::new(|| Parameters::read(include_str!("../../definitions/r4.txt"), "r4"));
        static R4B: LazyLock<Parameters> =
            LazyLock::new(|| Parameters::read(include_str!("../../definitions/r4b.txt"), "r4b"));
        static R5: LazyLock<Parameters> =
            LazyLock::new(|| Parameters::read(include_str!("../../definitions/r5.txt"), "r5"));
        match version {
            Version::R4 => &R4,
            Version::R4B => &R4B,
            Version::R5 => &R5,
        }
    }

    fn read(table: &'static str, release: &str) -> Parameters {
        let mut found = Parameters { by_code: HashMap::new(), by_id: HashMap::new() };
        // A line of the supplement starts with the releases that it is for.
        let supplement = include_str!("../../definitions/supplement.txt").lines().filter_map(|line| {
            let (releases, line) = line.split_once('\t')?;
            releases.split(',').any(|name| name == release).then_some(line)
        });
        for line in table.lines().chain(supplement) {
            let mut fields = line.split('\t');
            let (Some(id), Some(code), Some(bases)) = (fields.next(), fields.next(), fields.nth(1)) else { continue };
            found.by_id.insert(id, line);
            for base in bases.split(',') {
                // HL7's come first.
                found.by_code.entry((base, code)).or_insert(line);
            }
        }
        found
    }
}

fn read(line: &str) -> Option<Definition> {
    let list = |field: &str| field.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let url = |id: &str| if id.contains("://") { id.to_owned() } else { format!("{HL7}{id}") };
    let mut fields = line.split('\t');
    let mut next = || fields.next().unwrap_or_default();
    let (id, code, kind, base, targets, expression) = (next(), next(), next(), next(), next(), next());
    let component = |field: &str| {
        let (definition, expression) = field.split_once('=')?;
        Some(Component { definition: url(definition), expression: expression.to_owned() })
    };
    Some(Definition {
        url: url(id),
        code: code.to_owned(),
        kind: Kind::of(kind)?,
        base: list(base),
        targets: list(targets),
        expression: expression.to_owned(),
        components: fields.filter_map(component).collect(),
    })
}

/// A parameter of HL7's for a resource type, by its code: the type's own, or one of all types.
pub fn find(version: Version, resource_type: &str, code: &str) -> Option<Definition> {
    let known = Parameters::of(version);
    let of = |base| known.by_code.get(&(base, code)).copied();
    of(resource_type).or_else(|| of("Resource")).or_else(|| of("DomainResource")).and_then(read)
}

/// A parameter of HL7's by its url.
pub fn find_by_url(version: Version, url: &str) -> Option<Definition> {
    let id = url.strip_prefix(HL7)?;
    Parameters::of(version).by_id.get(id).copied().and_then(read)
}
