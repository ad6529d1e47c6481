//! The paths of leaves, as a tree: its edges are the names of members and the indexes of elements.

use super::problem::Problem;
use crate::jsonb::text::write_string;
use crate::jsonb::walk::Slice;
use crate::rows::write_integer;

/// The most columns of a table.
const MAX_COLUMNS: usize = 100_000;
/// The most bytes that the tree and the names of the columns may take.
const MAX_BYTES: usize = 64 << 20;

/// One step of a path.
#[derive(Clone, Copy)]
pub(super) enum Step<'j> {
    /// To a member.
    Name(Slice<'j>),
    /// To an element, counted from 0.
    Index(u32),
}

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(u32);

/// The node of a resource itself.
pub(super) const ROOT: NodeId = NodeId(0);

/// Paths that have been met, and the columns of those that lead to leaves.
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// The names of members, one after the other.
    names: Vec<u8>,
    columns: usize,
    /// How much of [`MAX_BYTES`] is used.
    bytes: usize,
}

struct Node {
    parent: NodeId,
    step: Stored,
    /// The size of the path's text in bytes.
    length: usize,
    column: Option<u32>,
    /// The members, in jsonb's order of names, each with the rank of its name.
    members: Vec<(u64, NodeId)>,
    /// The elements, in order.
    elements: Vec<(u32, NodeId)>,
}

/// A [`Step`] in the tree: a name is a part of [`Paths::names`].
#[derive(Clone, Copy)]
enum Stored {
    Name { start: usize, end: usize },
    Index(u32),
}

/// How many children are looked at one by one, before the others are searched: rows are alike, so the wanted one is near.
const NEAR: usize = 4;

impl Paths {
    pub fn new() -> Paths {
        let step = Stored::Name { start: 0, end: 0 };
        let root = Node { parent: ROOT, step, length: 0, column: None, members: Vec::new(), elements: Vec::new() };
        Paths { nodes: vec![root], names: Vec::new(), columns: 0, bytes: 0 }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The node after a step. `near` is where the last one was found among the node's children: a container's items come in
    /// the order of the children.
    #[inline]
    pub fn find(&self, from: NodeId, step: Step<'_>, near: &mut usize) -> Option<NodeId> {
        let place = match step {
            Step::Name(name) => self.place_of_name(from, name, *near),
            Step::Index(index) => self.place_of_index(from, index),
        };
        *near = place.unwrap_or_else(|place| place);
        let node = self.node(from);
        let at = place.ok()?;
        Some(match step {
            Step::Name(_) => node.members[at].1,
            Step::Index(_) => node.elements[at].1,
        })
    }

    /// Where a member is among the children, or where it would be. It is not before `near`.
    #[inline]
    fn place_of_name(&self, from: NodeId, name: Slice<'_>, near: usize) -> Result<usize, usize> {
        let members = &self.node(from).members;
        let order = |(rank, child): &(u64, NodeId)| {
            // A rank holds the length and the first bytes of a name.
            rank.cmp(&name.rank()).then_with(|| self.order_of_names(*child, name.as_bytes()))
        };
        for (at, member) in members.iter().enumerate().skip(near).take(NEAR) {
            match order(member) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(at),
                std::cmp::Ordering::Greater => return Err(at),
            }
        }
        let from = members.len().min(near + NEAR);
        let found = members[from..].binary_search_by(order);
        found.map(|at| from + at).map_err(|at| from + at)
    }

    /// jsonb's order of names: by length, then by bytes.
    fn order_of_names(&self, node: NodeId, other: &[u8]) -> std::cmp::Ordering {
        let name = match self.node(node).step {
            Stored::Name { start, end } => &self.names[start..end],
            Stored::Index(_) => &[],
        };
        name.len().cmp(&other.len()).then_with(|| name.cmp(other))
    }

    #[inline]
    fn place_of_index(&self, from: NodeId, index: u32) -> Result<usize, usize> {
        let elements = &self.node(from).elements;
        // Mostly all are there.
        if elements.get(index as usize).is_some_and(|(found, _)| *found == index) {
            return Ok(index as usize);
        }
        elements.binary_search_by_key(&index, |(index, _)| *index)
    }

    /// The node after a step, which is made if it is not there.
    pub fn insert(&mut self, from: NodeId, step: Step<'_>) -> Result<NodeId, Problem> {
        let place = match step {
            Step::Name(name) => self.place_of_name(from, name, 0),
            Step::Index(index) => self.place_of_index(from, index),
        };
        let at = match (place, step) {
            (Ok(at), Step::Name(_)) => return Ok(self.node(from).members[at].1),
            (Ok(at), Step::Index(_)) => return Ok(self.node(from).elements[at].1),
            (Err(at), _) => at,
        };
        let name = if let Step::Name(name) = step { name.as_bytes() } else { &[] };
        self.spend(size_of::<Node>() + 2 * size_of::<(u64, NodeId)>() + name.len())?;
        let id = NodeId(self.nodes.len() as u32);
        let parent = &mut self.nodes[from.0 as usize];
        let step = match step {
            Step::Name(name) => {
                parent.members.insert(at, (name.rank(), id));
                let start = self.names.len();
                self.names.extend_from_slice(name.as_bytes());
                Stored::Name { start, end: self.names.len() }
            }
            Step::Index(index) => {
                parent.elements.insert(at, (index, id));
                Stored::Index(index)
            }
        };
        let mut text = Vec::new();
        self.write_step(step, &mut text);
        let dot = usize::from(from != ROOT);
        let length = self.node(from).length + dot + text.len();
        self.nodes.push(Node { parent: from, step, length, column: None, members: Vec::new(), elements: Vec::new() });
        Ok(id)
    }

    /// Makes a column for the path to a leaf, if it has none.
    #[inline]
    pub fn add_column(&mut self, leaf: NodeId) -> Result<(), Problem> {
        if self.node(leaf).column.is_some() {
            return Ok(());
        }
        if self.columns == MAX_COLUMNS {
            return Err(Problem::TooManyColumns { limit: MAX_COLUMNS });
        }
        self.spend(self.node(leaf).length)?;
        self.nodes[leaf.0 as usize].column = Some(self.columns as u32);
        self.columns += 1;
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES { Err(Problem::NamesTooLong { limit: MAX_BYTES }) } else { Ok(()) }
    }

    /// The number of a leaf's column.
    #[inline]
    pub fn column(&self, leaf: NodeId) -> Option<u32> {
        self.node(leaf).column
    }

    /// Numbers the columns by their names, in the order of code points. Returns the names in this order.
    pub fn sort_columns(&mut self) -> Vec<Vec<u8>> {
        let is_leaf = |id: &NodeId| self.node(*id).column.is_some();
        let leaves = (0..self.nodes.len() as u32).map(NodeId).filter(is_leaf);
        // UTF-8 sorts like code points.
        let mut named: Vec<(Vec<u8>, NodeId)> = leaves.map(|leaf| (self.name(leaf), leaf)).collect();
        named.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (column, (_, leaf)) in named.iter().enumerate() {
            self.nodes[leaf.0 as usize].column = Some(column as u32);
        }
        named.into_iter().map(|(name, _)| name).collect()
    }

    /// The name of a path's column.
    fn name(&self, node: NodeId) -> Vec<u8> {
        let mut steps = Vec::new();
        let mut at = node;
        while at != ROOT {
            let Node { parent, step, .. } = *self.node(at);
            steps.push(step);
            at = parent;
        }
        let mut name = Vec::with_capacity(self.node(node).length);
        for (at, step) in steps.into_iter().rev().enumerate() {
            if at > 0 {
                name.push(b'.');
            }
            self.write_step(step, &mut name);
        }
        name
    }

    fn write_step(&self, step: Stored, out: &mut Vec<u8>) {
        match step {
            Stored::Name { start, end } => write_name(&self.names[start..end], out),
            Stored::Index(index) => write_integer(index.into(), out),
        }
    }
}

/// Appends the name of a member as a part of a column's name. One that could be read as another path is written as JSON
/// writes it, in quotes, so that different paths have different columns.
pub(super) fn write_name(name: &[u8], out: &mut Vec<u8>) {
    let is_index = name.iter().all(u8::is_ascii_digit);
    let is_plain = !name.iter().any(|byte| matches!(byte, b'.' | b'"') || byte.is_ascii_control());
    if is_plain && !is_index {
        out.extend_from_slice(name);
    } else {
        write_string(name, out);
    }
}
