//! The elements of a release's resources and types, from the codec's tables.

use fhir_bulk_codec::fhir::Version;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A type: a resource, a datatype, a primitive, or the structure at a path (`Observation.component`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(u16);

impl TypeId {
    /// A type that is not known: of elements that are not FHIR's, and of resources of other types.
    pub const UNKNOWN: TypeId = TypeId(0);
    /// FHIRPath's and FHIR's boolean.
    pub const BOOLEAN: TypeId = TypeId(1);
    /// FHIRPath's and FHIR's string.
    pub const STRING: TypeId = TypeId(2);
    /// FHIR's `instant`.
    pub const INSTANT: TypeId = TypeId(3);
    /// `Extension`.
    pub const EXTENSION: TypeId = TypeId(4);
    /// `Resource`: any resource, whose `resourceType` names its type.
    pub const RESOURCE: TypeId = TypeId(5);
    /// `Identifier`.
    pub const IDENTIFIER: TypeId = TypeId(6);
    /// `ContactPoint`, whose value is compared without case.
    pub const CONTACT_POINT: TypeId = TypeId(7);
    /// `Reference`.
    pub const REFERENCE: TypeId = TypeId(8);
    /// `CodeableConcept`.
    pub const CODEABLE_CONCEPT: TypeId = TypeId(9);
    /// `CodeableReference`, in R5.
    pub const CODEABLE_REFERENCE: TypeId = TypeId(10);
    /// `Coding`.
    pub const CODING: TypeId = TypeId(11);

    /// `Meta`, parts of which are columns.
    pub const META: TypeId = TypeId(12);
    /// FHIRPath's and FHIR's integer.
    pub const INTEGER: TypeId = TypeId(13);
    /// FHIRPath's and FHIR's decimal.
    pub const DECIMAL: TypeId = TypeId(14);
    /// FHIR's `date`.
    pub const DATE: TypeId = TypeId(15);
    /// FHIR's `dateTime`.
    pub const DATE_TIME: TypeId = TypeId(16);
    /// FHIR's `time`.
    pub const TIME: TypeId = TypeId(17);
    /// FHIR's `id`.
    pub const ID: TypeId = TypeId(18);

    /// Whether its values are compared by their precision.
    pub fn is_temporal(self) -> bool {
        matches!(self, TypeId::INSTANT | TypeId::DATE | TypeId::DATE_TIME | TypeId::TIME)
    }

    /// Whether it is one of the types with a name here whose values are objects, `Meta` aside.
    pub fn is_structure(self) -> bool {
        (TypeId::EXTENSION.0..=TypeId::CODING.0).contains(&self.0)
    }
}

/// The names of [`TypeId`]'s constants, by their numbers.
const KNOWN: [&str; 19] = [
    "",
    "boolean",
    "string",
    "instant",
    "Extension",
    "Resource",
    "Identifier",
    "ContactPoint",
    "Reference",
    "CodeableConcept",
    "CodeableReference",
    "Coding",
    "Meta",
    "integer",
    "decimal",
    "date",
    "dateTime",
    "time",
    "id",
];

/// The types of a release.
pub struct Model {
    types: Vec<Type>,
    names: HashMap<&'static str, TypeId>,
}

struct Type {
    name: &'static str,
    is_resource: bool,
    elements: HashMap<&'static str, Element>,
}

/// An element of a type.
pub struct Element {
    /// Whether there may be several.
    pub is_list: bool,
    /// Its type, or the types of a choice.
    pub types: Vec<TypeId>,
    /// Whether it is a choice: `value[x]`.
    pub is_choice: bool,
}

impl Model {
    /// The types of a release. A process reads them once, in some milliseconds.
    pub fn of(version: Version) -> &'static Model {
        static R4: LazyLock<Model> = LazyLock::new(|| Model::read(Version::R4.elements()));
        static R4B: LazyLock<Model> = LazyLock::new(|| Model::read(Version::R4B.elements()));
        static R5: LazyLock<Model> = LazyLock::new(|| Model::read(Version::R5.elements()));
        match version {
            Version::R4 => &R4,
            Version::R4B => &R4B,
            Version::R5 => &R5,
        }
    }

    /// A type by its name.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// A type's name; empty for [`TypeId::UNKNOWN`].
    pub fn name(&self, id: TypeId) -> &'static str {
        self.types[usize::from(id.0)].name
    }

    /// Whether a type is a resource.
    pub fn is_resource(&self, id: TypeId) -> bool {
        self.types[usize::from(id.0)].is_resource
    }

    /// Whether a type is primitive: its values are strings, numbers or booleans of JSON.
    pub fn is_primitive(&self, id: TypeId) -> bool {
        self.name(id).starts_with(|c: char| c.is_ascii_lowercase())
    }

    /// An element of a type.
    pub fn element(&self, of: TypeId, name: &str) -> Option<&Element> {
        self.types[usize::from(of.0)].elements.get(name)
    }

    fn read(table: &'static str) -> Model {
        let mut model = Model { types: Vec::new(), names: HashMap::new() };
        for name in KNOWN {
            model.id(name);
        }
        for line in table.lines() {
            let Some((name, fields)) = line.split_once(' ') else { continue };
            let id = model.id(name.trim_start_matches('!'));
            let mut elements = HashMap::new();
            for (name, types) in fields.split(' ').filter_map(|field| field.split_once('=')) {
                let (name, is_list) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
                let (name, is_choice) = name.strip_suffix("[x]").map_or((name, false), |name| (name, true));
                let types = types.split(',').map(|name| model.id(name)).collect();
                elements.insert(name, Element { is_list, types, is_choice });
            }
            let described = &mut model.types[usize::from(id.0)];
            described.is_resource = line.starts_with('!');
            described.elements = elements;
        }
        model
    }

    fn id(&mut self, name: &'static str) -> TypeId {
        let next = TypeId(self.types.len() as u16);
        let id = *self.names.entry(name).or_insert(next);
        if id == next {
            self.types.push(Type { name, is_resource: false, elements: HashMap::new() });
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_their_types_and_cardinality() {
        let model = Model::of(Version::R4);
        let element = |path: &str| {
            let (name, rest) = path.rsplit_once('.').unwrap();
            model.element(model.find(name).unwrap(), rest).unwrap()
        };
        let names = |path: &str| element(path).types.iter().map(|id| model.name(*id)).collect::<Vec<_>>().join(",");
        assert_eq!(names("Patient.birthDate"), "date");
        assert_eq!(names("Patient.deceased"), "boolean,dateTime");
        assert_eq!(names("Questionnaire.item.item"), "Questionnaire.item");
        assert_eq!(names("Bundle.entry.resource"), "Resource");
        assert!(element("Patient.name").is_list && !element("Patient.gender").is_list);
        assert!(element("Patient.deceased").is_choice && !element("Patient.gender").is_choice);
        assert!(model.is_resource(TypeId::RESOURCE) && model.is_primitive(TypeId::INSTANT));
        assert_eq!(model.find("Individual"), None);
    }
}
