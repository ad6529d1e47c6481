//! FHIR's definitions: which paths are choices, references, resources and structures. They are read from the tables in
//! `codec/definitions`, which `examples/draw_definitions.rs` makes of HL7's StructureDefinitions.

use super::table::Table;
use crate::jsonb::value::{Name, rank};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A release of FHIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.0.1
    R4,
    /// 4.3.0
    R4B,
    /// 5.0.0
    R5,
}

impl Version {
    /// A release by its number in CapabilityStatements: `4.0.1`, `4.3.0`, `5.0.0`.
    pub fn of_number(number: &str) -> Option<Version> {
        match number {
            "4.0.1" => Some(Version::R4),
            "4.3.0" => Some(Version::R4B),
            "5.0.0" => Some(Version::R5),
            _ => None,
        }
    }

    /// Whether it defines a resource type.
    pub fn has_resource_type(self, name: &str) -> bool {
        // The definitions also have abstract types.
        super::types::resource_type(name) == Some(name) && self.definitions().resource(name) != NodeId::UNKNOWN
    }

    /// The table of its elements. `codec/examples/draw_definitions.rs` says what a line means.
    pub fn elements(self) -> &'static str {
        match self {
            Version::R4 => include_str!("../../definitions/r4.txt"),
            Version::R4B => include_str!("../../definitions/r4b.txt"),
            Version::R5 => include_str!("../../definitions/r5.txt"),
        }
    }

    /// Its definitions. A process reads them once, in about a millisecond.
    pub(crate) fn definitions(self) -> &'static Definitions {
        static R4: LazyLock<Definitions> = LazyLock::new(|| Definitions::read(Version::R4.elements()));
        static R4B: LazyLock<Definitions> = LazyLock::new(|| Definitions::read(Version::R4B.elements()));
        static R5: LazyLock<Definitions> = LazyLock::new(|| Definitions::read(Version::R5.elements()));
        match self {
            Version::R4 => &R4,
            Version::R4B => &R4B,
            Version::R5 => &R5,
        }
    }
}

/// A structure: a resource, a datatype, a backbone element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(u16);

impl NodeId {
    /// An unknown structure: nothing in it is converted.
    pub const UNKNOWN: NodeId = NodeId(0);
    /// A structure that only has extensions, like every element.
    pub const ELEMENT: NodeId = NodeId(1);
    /// A resource whose `resourceType` names its structure.
    pub const RESOURCE: NodeId = NodeId(2);
    /// `Extension`.
    pub const EXTENSION: NodeId = NodeId(3);
    /// `Reference`.
    pub const REFERENCE: NodeId = NodeId(4);
}

/// The definitions of a release.
pub(crate) struct Definitions {
    nodes: Vec<Table<Element>>,
    resources: Table<NodeId>,
    /// The structures of datatypes and of paths (`Observation.component`).
    types: Table<NodeId>,
    /// The text of the names that conversions write; [`Choice`] and [`Definitions::names`] point into it.
    pub texts: Vec<u8>,
    pub names: Names,
}

/// The names of the members of Aidbox's references.
pub(crate) struct Names {
    pub resource_type: Name,
    pub id: Name,
    pub uri: Name,
    pub local_ref: Name,
}

/// The meaning of a name in a structure.
pub(crate) enum Element {
    /// An element, or a list of them.
    Structure(NodeId),
    /// `valueQuantity`: one type of a choice.
    Choice(Choice),
    /// `value`: a choice as Aidbox writes it, with its types.
    Base(Table<Typed>),
}

/// One type of a choice, found by FHIR's name for it.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// `value`
    pub base: Name,
    /// `Quantity`
    pub type_name: Name,
    pub node: NodeId,
}

/// One type of a choice, found by Aidbox's name for it: `Quantity`.
pub(crate) struct Typed {
    /// `valueQuantity`
    pub name: &'static str,
    pub node: NodeId,
}

impl Definitions {
    /// Empty definitions.
    pub(crate) fn none() -> &'static Definitions {
        static NONE: LazyLock<Definitions> = LazyLock::new(|| Definitions::read(""));
        &NONE
    }

    /// The structure of a resource type.
    pub(crate) fn resource(&self, resource_type: &str) -> NodeId {
        let name = resource_type.as_bytes();
        self.resources.find(rank(name), name).copied().unwrap_or(NodeId::UNKNOWN)
    }

    /// The structure of the values of a type: a resource, a datatype, a path, `Resource` for any resource.
    pub(crate) fn type_named(&self, name: &str) -> NodeId {
        match name {
            "" => NodeId::UNKNOWN,
            "Resource" => NodeId::RESOURCE,
            primitive if is_primitive(primitive) => NodeId::UNKNOWN,
            other => {
                let (rank, bytes) = (rank(other.as_bytes()), other.as_bytes());
                let found = self.resources.find(rank, bytes).or_else(|| self.types.find(rank, bytes));
                found.copied().unwrap_or(NodeId::ELEMENT)
            }
        }
    }

    /// The meaning of `name`, whose rank is `rank`, in a structure. `None` for primitives and for names that FHIR does not
    /// define.
    #[inline]
    pub(crate) fn element(&self, node: NodeId, rank: u64, name: &[u8]) -> Option<&Element> {
        self.nodes[usize::from(node.0)].find(rank, name)
    }

    /// The structure of a member that every element may have, by its name: extensions, and the `_` member of a primitive.
    #[inline]
    pub(crate) fn common(name: &[u8]) -> NodeId {
        match name {
            b"extension" | b"modifierExtension" => NodeId::EXTENSION,
            [b'_', ..] => NodeId::ELEMENT,
            _ => NodeId::UNKNOWN,
        }
    }

    fn read(table: &'static str) -> Definitions {
        // A structure in which nothing is converted is like one that is not in the table.
        let lines = || {
            table.lines().filter_map(|line| line.split_once(' ')).filter(|(_, fields)| converted(fields).count() > 0)
        };
        let mut ids = HashMap::from([("Extension", NodeId::EXTENSION), ("Reference", NodeId::REFERENCE)]);
        let mut count = 5;
        for (path, _) in lines() {
            ids.entry(path.trim_start_matches('!')).or_insert_with(|| {
                count += 1;
                NodeId(count - 1)
            });
        }
        let mut texts = Texts::default();
        let names = Names {
            resource_type: texts.name("resourceType"),
            id: texts.name("id"),
            uri: texts.name("uri"),
            local_ref: texts.name("localRef"),
        };
        let mut nodes: Vec<Table<Element>> = (0..count).map(|_| Table::new(Vec::new())).collect();
        let (mut resources, mut types) = (Vec::new(), Vec::new());
        for (path, fields) in lines() {
            let name = path.trim_start_matches('!');
            let id = ids[name];
            if path.starts_with('!') {
                resources.push((name, id));
            } else {
                types.push((name, id));
            }
            let mut found = Vec::new();
            for (name, target) in converted(fields) {
                match name.strip_suffix("[x]") {
                    Some(base) => choice(base, target, &ids, &mut texts, &mut found),
                    None => found.push((name, Element::Structure(node(target, &ids)))),
                }
            }
            nodes[usize::from(id.0)] = Table::new(found);
        }
        Definitions { nodes, resources: Table::new(resources), types: Table::new(types), texts: texts.bytes, names }
    }
}

/// The elements of a line that may be converted: structures and choices, but no primitives.
fn converted(fields: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let fields = fields.split(' ').filter_map(|field| field.split_once('='));
    let named = fields.map(|(name, target)| (name.trim_end_matches('*'), target));
    named.filter(|(name, target)| name.ends_with("[x]") || !is_primitive(target))
}

/// Whether a type's name is that of a primitive type.
fn is_primitive(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The structure of a type or path. A structure without a line in the table only has extensions. A primitive is not an
/// object.
fn node(target: &str, ids: &HashMap<&str, NodeId>) -> NodeId {
    match target {
        "Resource" => NodeId::RESOURCE,
        primitive if is_primitive(primitive) => NodeId::UNKNOWN,
        other => ids.get(other).copied().unwrap_or(NodeId::ELEMENT),
    }
}

fn choice(
    base: &'static str,
    types: &'static str,
    ids: &HashMap<&str, NodeId>,
    texts: &mut Texts,
    found: &mut Vec<(&'static str, Element)>,
) {
    let mut typed = Vec::new();
    for type_name in types.split(',') {
        let (first, rest) = type_name.split_at(1);
        // Some hundred names. They live as long as the process, like the definitions.
        let name = &*format!("{base}{}{rest}", first.to_ascii_uppercase()).leak();
        let node = node(type_name, ids);
        let element = Element::Choice(Choice { base: texts.name(base), type_name: texts.name(type_name), node });
        found.push((name, element));
        typed.push((type_name, Typed { name, node }));
    }
    found.push((base, Element::Base(Table::new(typed))));
}

/// Distinct names in one buffer.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    known: HashMap<&'static str, Name>,
}

impl Texts {
    fn name(&mut self, text: &'static str) -> Name {
        *self.known.entry(text).or_insert_with(|| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(text.as_bytes());
            Name::in_arena(start..self.bytes.len(), &self.bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonb::value::rank;

    fn find(version: Version, path: &str) -> Option<&'static Element> {
        let definitions = version.definitions();
        let mut names = path.split('.');
        let mut node = definitions.resource(names.next()?);
        let mut found = None;
        for name in names {
            let element = definitions.element(node, rank(name.as_bytes()), name.as_bytes())?;
            node = match element {
                Element::Structure(node) => *node,
                Element::Choice(choice) => choice.node,
                Element::Base(_) => NodeId::UNKNOWN,
            };
            found = Some(element);
        }
        found
    }

    #[test]
    fn a_name_means_what_its_path_says_and_not_what_it_looks_like() {
        use Version::{R4, R5};
        assert!(matches!(find(R4, "Observation.valueQuantity"), Some(Element::Choice(_))));
        assert!(matches!(find(R4, "Observation.component.valueDateTime"), Some(Element::Choice(_))));
        assert!(matches!(find(R4, "Immunization.doseQuantity"), Some(Element::Structure(_))));
        assert!(matches!(find(R4, "Device.property.valueQuantity"), Some(Element::Structure(_))));
        assert!(matches!(find(R4, "Questionnaire.item.item.item.initial.value"), Some(Element::Base(_))));
        assert!(matches!(find(R4, "Observation.subject"), Some(Element::Structure(NodeId::REFERENCE))));
        assert!(matches!(find(R4, "MedicationRequest.medicationReference"), Some(Element::Choice(_))));
        assert!(find(R5, "MedicationRequest.medicationReference").is_none());
        let inner = find(R5, "MedicationRequest.medication.reference");
        assert!(matches!(inner, Some(Element::Structure(NodeId::REFERENCE))));
        assert!(matches!(find(R4, "Bundle.entry.resource"), Some(Element::Structure(NodeId::RESOURCE))));
        assert!(find(R4, "Observation.status").is_none());
        assert!(find(R4, "Individual.name").is_none());
    }

    #[test]
    fn a_release_has_the_types_that_it_defines() {
        let has = |number: &str, name: &str| Version::of_number(number).unwrap().has_resource_type(name);
        assert!(has("4.0.1", "Patient") && has("4.3.0", "Patient") && has("5.0.0", "Patient"));
        assert!(has("4.0.1", "RequestGroup") && !has("5.0.0", "RequestGroup") && has("5.0.0", "RequestOrchestration"));
        for other in ["Individual", "patient", "Reference", "Resource", "Account.coverage", ""] {
            assert!(!has("4.0.1", other), "{other}");
        }
    }

    #[test]
    fn every_release_has_its_choices() {
        for (version, paths, pairs) in [(Version::R4, 186, 987), (Version::R5, 261, 1359)] {
            let elements = || version.definitions().nodes.iter().flat_map(Table::values);
            assert_eq!(elements().filter(|e| matches!(e, Element::Base(_))).count(), paths, "{version:?}");
            assert_eq!(elements().filter(|e| matches!(e, Element::Choice(_))).count(), pairs, "{version:?}");
        }
    }
}
