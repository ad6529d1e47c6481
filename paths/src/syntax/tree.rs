//! Expressions as trees, and mistakes in their text.

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// The item in question: `$this`, or what a leading name is looked up in.
    This,
    /// `%name`.
    Variable(String, At),
    /// A constant.
    Literal(Literal, At),
    /// `of.name`.
    Member(Box<Expression>, String, At),
    /// `of.name(arguments)`.
    Call(Box<Expression>, String, Vec<Expression>, At),
    /// `of[index]`.
    Index(Box<Expression>, Box<Expression>),
    /// `of is Type`.
    Is(Box<Expression>, String, At),
    /// `of as Type`.
    As(Box<Expression>, String, At),
    /// `left operator right`.
    Binary(Box<Expression>, Operator, Box<Expression>, At),
    /// `-of`.
    Negative(Box<Expression>, At),
}

impl Expression {
    /// How deep the tree is. It has no more nodes than tokens.
    pub fn depth(&self) -> usize {
        1 + self.parts().map(Expression::depth).max().unwrap_or(0)
    }

    /// Whether it asks for a variable.
    pub fn uses(&self, variable: &str) -> bool {
        matches!(self, Expression::Variable(name, _) if name == variable)
            || self.parts().any(|part| part.uses(variable))
    }

    /// The expressions that it is made of.
    fn parts(&self) -> impl Iterator<Item = &Expression> {
        let (first, second, more): (Option<&Expression>, Option<&Expression>, &[Expression]) = match self {
            Expression::This | Expression::Variable(..) | Expression::Literal(..) => (None, None, &[]),
            Expression::Member(of, ..)
            | Expression::Is(of, ..)
            | Expression::As(of, ..)
            | Expression::Negative(of, _) => (Some(of), None, &[]),
            Expression::Call(of, _, arguments, _) => (Some(of), None, arguments),
            Expression::Index(left, right) | Expression::Binary(left, _, right, _) => (Some(left), Some(right), &[]),
        };
        first.into_iter().chain(second).chain(more)
    }

    /// Where it stands in its text: its name, its operator, its value. `$this` may be without one.
    pub fn at(&self) -> Option<usize> {
        match self {
            Expression::This => None,
            Expression::Index(_, index) => index.at(),
            Expression::Variable(.., at)
            | Expression::Literal(.., at)
            | Expression::Member(.., at)
            | Expression::Call(.., at)
            | Expression::Is(.., at)
            | Expression::As(.., at)
            | Expression::Binary(.., at)
            | Expression::Negative(_, at) => Some(at.0),
        }
    }
}

/// The byte of its text at which a part stands. Trees are equal wherever their parts stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct At(pub usize);

impl PartialEq for At {
    fn eq(&self, _: &At) -> bool {
        true
    }
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
    /// Whether it is only that an element is named which no item can have.
    pub is_missing: bool,
}

impl Mistake {
    pub(crate) fn new(message: impl Into<String>) -> Mistake {
        Mistake { message: message.into(), at: None, is_missing: false }
    }

    pub(crate) fn missing(message: impl Into<String>) -> Mistake {
        Mistake { is_missing: true, ..Mistake::new(message) }
    }

    pub(crate) fn or_at(self, at: Option<usize>) -> Mistake {
        Mistake { at: self.at.or(at), ..self }
    }

    pub(super) fn at(at: usize, message: impl Into<String>) -> Mistake {
        Mistake { message: message.into(), at: Some(at), is_missing: false }
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.at.map_or(Ok(()), |at| write!(f, " at byte {at}"))
    }
}
