//! The text of FHIRPath expressions, by the grammar of FHIRPath 2.0, as trees. What a tree means is [`super::compile`]'s.

mod lexer;
mod parser;
mod tree;

pub use parser::parse;
pub use tree::{At, Expression, Literal, Mistake, Operator};
