//! Which columns are plain paths, and are found together.

use crate::plan::Output;
use crate::steps::{Rest, Steps};
use fhir_bulk_paths::model::TypeId;
use fhir_bulk_paths::program::{Program, Value as Computed};

/// The steps of those outputs that are plain paths from the node's item. These outputs are marked.
///
/// `start` is the resource for nodes that iterate over nothing, and else the item of the node.
pub fn together(outputs: &mut [Output], start: &Program, collects: impl Fn(usize) -> bool) -> Steps {
    let mut steps = Steps::default();
    for (at, output) in outputs.iter_mut().enumerate() {
        if collects(output.column) {
            continue;
        }
        let (path, rest) = match &output.program {
            Program::Value(value) => match &**value {
                Computed::Reference(of) => (of, Rest::Reference),
                Computed::ReferenceKey(of, wanted) => (of, Rest::ReferenceKey(wanted.clone())),
                _ => continue,
            },
            program => (program, Rest::Nothing),
        };
        let Some(names) = plain(path, start) else { continue };
        output.is_found_with_others = steps.add(&names, at, rest);
    }
    steps
}

/// The steps of a path that finds one item at most: names, whether each is a list of which the first is taken, and types.
fn plain<'p>(program: &'p Program, start: &Program) -> Option<Vec<(&'p str, bool, TypeId)>> {
    let mut steps = Vec::new();
    let mut next = program;
    loop {
        next = match next {
            Program::Member { of, name, type_id, is_list: Some(false) } => {
                steps.push((&**name, false, *type_id));
                of
            }
            Program::Nth(list, 0) => match &**list {
                // The first of all first ones is that of the list only if there is one list.
                Program::Member { of, name, type_id, is_list: Some(true) } => {
                    steps.push((&**name, true, *type_id));
                    of
                }
                _ => return None,
            },
            found if found == start && !steps.is_empty() => {
                steps.reverse();
                return Some(steps);
            }
            _ => return None,
        };
    }
}
