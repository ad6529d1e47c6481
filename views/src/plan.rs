//! A compiled view.

use crate::column::Column;
use crate::steps::Steps;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::compile::Constants;
use fhir_bulk_paths::program::Program;

/// A ViewDefinition, compiled for a release of FHIR.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) version: Version,
    pub(crate) resource_type: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) constants: Constants,
    pub(crate) wheres: Vec<Where>,
    pub(crate) root: Node,
    /// How deep its parts nest and multiply.
    pub(crate) levels: usize,
}

/// A condition that resources have to fulfil.
#[derive(Clone, Debug)]
pub(crate) struct Where {
    pub program: Program,
    /// `where[1].path`
    pub element: String,
}

/// What is made of one item: its columns, and the parts whose rows are multiplied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub outputs: Vec<Output>,
    /// Those outputs that are found together.
    pub steps: Steps,
    pub parts: Vec<Part>,
}

/// The path of a column.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Which column.
    pub column: usize,
    pub program: Program,
    /// Whether it asks for `%rowIndex`.
    pub is_indexed: bool,
    /// Whether it is the resource's id.
    pub is_id: bool,
    /// Whether the node's steps find it.
    pub is_found_with_others: bool,
    /// `select[0].column[2].path`
    pub element: String,
}

/// A part that has any number of rows.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Rows of each item.
    Each(Each),
    /// Rows of each branch.
    Union(Vec<Node>),
}

/// Rows of each item that a path finds.
#[derive(Clone, Debug)]
pub(crate) struct Each {
    pub over: Over,
    pub node: Node,
    /// How deep its expressions are: what they need of the stack while an item's rows are made.
    pub depth: usize,
    /// `select[1].forEach`
    pub element: String,
}

/// The items of an [`Each`].
#[derive(Clone, Debug)]
pub(crate) enum Over {
    /// `forEach`
    Items(Program),
    /// `forEachOrNull`: without an item, one row of nulls, but for these columns.
    ItemsOrNull(Program, Vec<Output>),
    /// `repeat`: what the paths find, and what they find in that.
    Repeat(Vec<Program>),
}

impl View {
    /// The type of its resources.
    pub fn resource_type(&self) -> &str {
        &self.resource_type
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether a column is the resource's id in each of its rows.
    pub fn is_id(&self, column: usize) -> bool {
        // What is inside of another one may be null, or differ by branch.
        self.root.outputs.iter().any(|output| output.column == column && output.is_id)
    }

    /// The release by which it was compiled.
    pub fn version(&self) -> Version {
        self.version
    }
}
