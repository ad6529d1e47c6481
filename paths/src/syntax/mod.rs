//! The text of FHIRPath expressions, by the grammar of FHIRPath 2.0, as trees. What a tree means is [`super::compile`]'s.

mod lexer;
mod parser;

pub use parser::parse;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// The item in question: `$this`, or what a leading name is looked up in.
    This,
    /// `%name`.
    Variable(String),
    /// A constant.
    Literal(Literal),
    /// `of.name`.
    Member(Box<Expression>, String),
    /// `of.name(arguments)`.
    Call(Box<Expression>, String, Vec<Expression>),
    /// `of[index]`.
    Index(Box<Expression>, Box<Expression>),
    /// `of is Type`.
    Is(Box<Expression>, String),
    /// `of as Type`.
    As(Box<Expression>, String),
    /// `left operator right`.
    Binary(Box<Expression>, Operator, Box<Expression>),
    /// `-of`.
    Negative(Box<Expression>),
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `{}`
    Empty,
    /// `true`, `false`
    Boolean(bool),
    /// `'text'`
    Text(String),
    /// The digits of a number.
    Number(String),
    /// `@2020-01-01T00:00:00Z`, without the `@`.
    Time(String),
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the names of FHIRPath")]
pub enum Operator {
    Implies,
    Or,
    Xor,
    And,
    In,
    Contains,
    Equal,
    Equivalent,
    NotEqual,
    NotEquivalent,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Union,
    Add,
    Subtract,
    Concatenate,
    Multiply,
    Divide,
    Div,
    Mod,
}

/// Why a text is not an expression, or not one that can be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// The byte of the expression at which it was noticed, where that is known.
    pub at: Option<usize>,
}

impl Mistake {
    pub(crate) fn new(message: impl Into<String>) -> Mistake {
        Mistake { message: message.into(), at: None }
    }

    fn at(at: usize, message: impl Into<String>) -> Mistake {
        Mistake { message: message.into(), at: Some(at) }
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.at.map_or(Ok(()), |at| write!(f, " at byte {at}"))
    }
}
