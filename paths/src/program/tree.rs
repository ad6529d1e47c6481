//! Programs and what they are made of.

use crate::decimal::Decimal;
use crate::model::TypeId;

/// Finds items in a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// The resource.
    Root,
    /// The item in question: the one that a `where` looks at, the base of a composite.
    This,
    /// Column `id`.
    Id,
    /// Column `ts`.
    LastUpdated,
    /// A member of an object, or its elements.
    Member {
        /// Where the objects are.
        of: Box<Program>,
        /// The stored name.
        name: Box<str>,
        /// The type of the values.
        type_id: TypeId,
        /// Whether it is a list, or one value. `None` where the definitions do not say it: then it may be either.
        is_list: Option<bool>,
    },
    /// All types of a choice: the members of Aidbox's object for it.
    Choice {
        /// Where the choices are.
        of: Box<Program>,
        /// The types of the choice, by Aidbox's names.
        types: Vec<(Box<str>, TypeId)>,
    },
    /// Those items for which a condition holds.
    Where(Box<Program>, Box<Condition>),
    /// One of the items, counted from 0.
    Nth(Box<Program>, usize),
    /// Those items that are resources of a type.
    Resources(Box<Program>, Box<str>, TypeId),
    /// The items of all of them. Equal ones are not removed.
    Union(Vec<Program>),
    /// One boolean; none if it is unknown.
    Boolean(Box<Condition>),
    /// What only views have.
    Value(Box<Value>),
}

/// Values of views. They may be computed, so they need an arena: without one, texts are not put together.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// What a column has, of items that may be the resource itself, its `meta`, or such things inside of it.
    Column(Program, Column),
    /// A constant of the view, by its number in [`Within::constants`](super::Within::constants).
    Constant(usize),
    /// `%rowIndex`
    RowIndex,
    /// `%context`
    Context,
    /// Those items that have one of these types.
    OfTypes(Program, Vec<TypeId>),
    /// `reference` of References, as FHIR has it.
    Reference(Program),
    /// The ids of resources of ours that References refer to; of one type, if it is named.
    ReferenceKey(Program, Option<Box<str>>),
    /// The texts of all items, with one between them.
    Joined(Program, Box<str>),
    /// Two texts, one after the other. With `&`, a missing one is empty.
    Concatenated(Program, Program, Missing),
    /// A number; none unless both operands are one number.
    Arithmetic(Program, Operation, Program),
    /// The first or last value that an item may stand for, by its precision; `true` for the last.
    Boundary(Program, bool),
}

/// What columns have of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `id`
    Id,
    /// `meta`, of which columns are parts.
    Meta,
    /// `meta.lastUpdated`
    LastUpdated,
    /// `meta.versionId`
    VersionId,
}

/// What a missing operand makes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is the empty text.
    Empty,
    /// There is no result.
    Nothing,
}

/// An operation of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the names of FHIRPath")]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// How two operands are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the names of FHIRPath")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A constant of a view, with its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its value.
    pub value: ConstantValue,
    /// Its type.
    pub type_id: TypeId,
}

/// The value of a constant.
#[derive(Clone, Debug, PartialEq)]
pub enum ConstantValue {
    /// A string or a time.
    Text(Box<str>),
    /// `true` or `false`
    Boolean(bool),
    /// A number.
    Number(Decimal),
}

/// True, false or unknown of an item: FHIRPath's logic has three values, and unknown is an empty collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// There is an item.
    Exists(Program),
    /// The only item is true, or is not a boolean. Unknown without an item.
    IsTrue(Program),
    /// There is just one item, and it equals a literal. Unknown without an item.
    Equals(Program, Literal),
    /// The items are others than just one that equals a literal. Unknown without an item.
    Differs(Program, Literal),
    /// There is an item of a type. Unknown without an item.
    IsOfType(Program, OfType),
    /// There is a reference to a resource of a type. Unknown without an item.
    RefersTo(Program, Box<str>),
    /// Both hold.
    And(Box<Condition>, Box<Condition>),
    /// One holds, or both.
    Or(Box<Condition>, Box<Condition>),
    /// It does not hold. Unknown if that is unknown.
    Not(Box<Condition>),
    /// Just one of both holds.
    Xor(Box<Condition>, Box<Condition>),
    /// Two values compare so: numbers by size, times as far as their precision tells, texts by code points.
    Compares(Box<Program>, Comparison, Box<Program>),
}

/// Which items have a type.
#[derive(Clone, Debug, PartialEq)]
pub enum OfType {
    /// All that the definitions allow.
    All,
    /// Those of these types.
    Types(Vec<TypeId>),
    /// Resources of this type.
    Resource(Box<str>),
}

/// A constant of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A string.
    Text(Box<str>),
    /// `true` or `false`.
    Boolean(bool),
    /// A number, in PostgreSQL's numeric bytes.
    Number(Box<[u8]>),
}
