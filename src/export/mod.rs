//! Exports: resources by their identifiers, at once.

mod identifiers;
mod request;
