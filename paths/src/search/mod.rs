//! FHIR's search: parameters, queries, and what they ask of a resource.

mod compartment;
mod condition;
mod criterion;
mod date;
mod filter;
mod group;
mod links;
mod necessary;
mod number;
mod parameters;
mod quantity;
mod query;
mod reference;
mod references;
mod text;
mod token;
mod uri;
mod value;

pub use compartment::Compartment;
pub use condition::{Searched, usable as usable_parameters};
pub use filter::Filter;
pub use group::{Member, Modified, members};
pub use links::Links;
pub use necessary::Necessary;
pub use parameters::{Component, Definition, HL7, Kind, all as all_parameters, find as find_parameter};
pub use query::type_filters;
pub use references::each_reference;
pub use value::{Problem, Refused};
