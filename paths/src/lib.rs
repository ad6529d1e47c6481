//! FHIR's paths over stored resources, without PostgreSQL: expressions of FHIRPath are compiled against the definitions of a
//! release into small programs, which read jsonb bytes in place; search queries are conditions on what such programs find.
//!
//! | module | contents |
//! |---|---|
//! | [`model`] | the elements of resources and types |
//! | [`syntax`] | the text of an expression → its tree |
//! | [`compile`] | the tree → a program for a resource type, in Aidbox's form |
//! | [`program`] | programs, and how they run over an [`item`] |
//! | [`decimal`], [`temporal`] | the numbers and times with which views compute |
//! | [`search`] | search parameters and queries: [`search::Filter`] |
//!
//! Programs do not allocate: they pass each item that they find to a closure, and put what views compute into an [`arena`] that
//! is kept for the next resource. They do not fail, whatever a resource contains: what does not have the form that the
//! definitions say is not found.
#![forbid(unsafe_code)]

pub mod arena;
pub mod compile;
pub mod decimal;
pub mod item;
pub mod model;
pub mod program;
pub mod search;
pub mod syntax;
pub mod temporal;
