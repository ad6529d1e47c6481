//! How deep a view nests and multiplies: each level takes a part of the stack.

use crate::error::Invalid;
use crate::plan::{Node, Part};

/// The most levels.
const MAX_LEVELS: usize = 100;

/// Counts the levels.
///
/// # Errors
/// There are too many.
pub fn check(root: &Node) -> Result<usize, Invalid> {
    let levels = of_node(root);
    if levels > MAX_LEVELS {
        let message = format!("{levels} selects nest or multiply; {MAX_LEVELS} may");
        return Err(Invalid::new("select", message).hint("Make several views, and join them by their keys."));
    }
    Ok(levels)
}

fn of_node(node: &Node) -> usize {
    1 + node.parts.iter().map(of_part).sum::<usize>()
}

/// The parts of a node follow each other, and those of a union do not.
fn of_part(part: &Part) -> usize {
    match part {
        Part::Each(each) => of_node(&each.node) + each.depth / 10,
        Part::Union(branches) => branches.iter().map(of_node).max().unwrap_or(0),
    }
}
