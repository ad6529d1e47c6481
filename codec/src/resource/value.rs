//! Writes one value out of a stored resource.

use super::to_fhir::{Stacks, ToFhir};
use crate::fhir::Version;
use crate::jsonb::text::{Spacing, Text};
use crate::jsonb::walk::Value;

/// Appends a stored value as compact FHIR JSON, by the definitions of a release. `type_name` is the value's type: a datatype
/// (`Quantity`), a structure by its path (`Observation.component`), a resource type, `Resource` for what its
/// `resourceType` names. A value of another type, or of none (an empty name), is written as it is stored. An array is written
/// as a list of values of the type.
pub fn write_value(version: Version, type_name: &str, value: Value<'_>, out: &mut Vec<u8>) {
    let definitions = version.definitions();
    let mut text = Text::new(Spacing::Compact, value.size(), out);
    ToFhir::new(definitions, Stacks::default()).element(definitions.type_named(type_name), value, &mut text);
    text.finish(out);
}
