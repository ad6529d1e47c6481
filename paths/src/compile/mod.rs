//! Compiles expressions for a resource type, by the definitions of a release, into programs over its stored form: a choice is
//! an object with a member for its type (`value: {Quantity: …}`), and what columns have is not in the jsonb.

mod condition;
mod constants;
mod member;
mod types;
mod view;

use crate::model::{Model, TypeId};
use crate::program::{Condition, Program};
use crate::syntax::{self, At, Expression, Mistake, Operator};
use std::cell::RefCell;

pub use constants::Constants;

/// A program and the types of what it finds.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program.
    pub program: Program,
    /// The types that the items may have.
    pub types: Vec<TypeId>,
}

/// Compiles an expression for resources of a type. Alternatives of a union that start with another resource type find
/// nothing here, and are left out; `None` if there is no other.
///
/// # Errors
/// What is not FHIRPath, names an element that the definitions do not have, or uses what is not supported.
pub fn compile(model: &Model, resource_type: &str, expression: &str) -> Result<Option<Compiled>, Mistake> {
    Compiler::new(model, resource_type).items(&syntax::parse(expression)?, None)
}

/// Compiles an expression that starts at an item of `base`, such as a composite's component.
///
/// # Errors
/// As [`compile`].
pub fn compile_within(
    model: &Model,
    resource_type: &str,
    base: &Compiled,
    expression: &str,
) -> Result<Option<Compiled>, Mistake> {
    let this = Compiled { program: Program::This, types: base.types.clone() };
    Compiler::new(model, resource_type).items(&syntax::parse(expression)?, Some(&this))
}

/// Compiles an expression of a view, which starts at an item of `base`, or at the resource without it. It may use the
/// constants of the view, and adds its own to them.
///
/// # Errors
/// As [`compile`], with the byte of the expression. What finds nothing in such resources is a mistake, too.
pub fn compile_for_view(
    model: &Model,
    resource_type: &str,
    base: Option<&Compiled>,
    constants: &mut Constants,
    expression: &Expression,
) -> Result<Compiled, Mistake> {
    let mut compiler = Compiler::new(model, resource_type);
    compiler.view = Some(InView { constants: RefCell::new(constants), context: base.cloned() });
    let found = compiler.items(expression, base)?;
    found.ok_or_else(|| Mistake::new("it finds nothing"))
}

struct Compiler<'c> {
    model: &'c Model,
    /// The name with which an expression may start.
    resource_type: &'c str,
    /// The resource.
    base: Compiled,
    /// `None` for search parameters.
    view: Option<InView<'c>>,
}

/// What expressions of views have besides.
struct InView<'c> {
    constants: RefCell<&'c mut Constants>,
    /// The items at which it starts, if that is not the resource.
    context: Option<Compiled>,
}

type Result_ = Result<Option<Compiled>, Mistake>;

impl<'c> Compiler<'c> {
    fn new(model: &'c Model, resource_type: &'c str) -> Compiler<'c> {
        let root = model.find(resource_type).unwrap_or(TypeId::UNKNOWN);
        let base = Compiled { program: Program::Root, types: vec![root] };
        Compiler { model, resource_type, base, view: None }
    }

    /// A mistake with its place, in a view. Those of search parameters are told without.
    fn placed<T>(&self, found: Result<T, Mistake>, expression: &Expression) -> Result<T, Mistake> {
        found.map_err(|mistake| if self.view.is_some() { mistake.or_at(expression.at()) } else { mistake })
    }

    /// `this` is the item that a leading name is looked up in; without it, the resource, whose type may come first.
    fn items(&self, expression: &Expression, this: Option<&Compiled>) -> Result_ {
        let found = match self.items_of(expression, this) {
            // A search parameter is for several types, and a view is for one.
            Ok(None) if self.view.is_some() => Err(Mistake::new(format!("it finds nothing in {}", self.resource_type))),
            found => found,
        };
        self.placed(found, expression)
    }

    fn items_of(&self, expression: &Expression, this: Option<&Compiled>) -> Result_ {
        if let Some(view) = &self.view
            && let Some(found) = self.value(view, expression, this)?
        {
            return Ok(Some(found));
        }
        let focus = || this.unwrap_or(&self.base).clone();
        match expression {
            Expression::This => Ok(Some(focus())),
            Expression::Variable(name, _) if matches!(name.as_str(), "resource" | "rootResource" | "context") => {
                Ok(Some(self.base.clone()))
            }
            Expression::Variable(name, _) => Err(unsupported(&format!("%{name}"))),
            Expression::Member(of, name, _) => {
                if **of == Expression::This && this.is_none_or(|this| this.program == Program::Root) {
                    if name == self.resource_type || matches!(name.as_str(), "Resource" | "DomainResource") {
                        return Ok(Some(self.base.clone()));
                    }
                    if self.model.find(name).is_some_and(|found| self.model.is_resource(found)) {
                        if self.view.is_some() {
                            return Err(Mistake::new(format!("the resources are of type {}", self.resource_type)));
                        }
                        return Ok(None);
                    }
                }
                self.items(of, this)?.map(|of| self.member(of, name)).transpose()
            }
            Expression::Binary(left, Operator::Union, right, _) => {
                let side = |side: &Expression| {
                    if this.is_none() && self.view.is_none() && self.starts_elsewhere(side) {
                        Ok(None)
                    } else {
                        self.items(side, this)
                    }
                };
                Ok(match (side(left)?, side(right)?) {
                    (Some(left), Some(right)) => Some(union(left, right)),
                    (found, None) | (None, found) => found,
                })
            }
            Expression::As(of, name, _) => self.typed(of, name, this),
            Expression::Call(of, name, arguments, _) => self.call(of, name, arguments, this),
            Expression::Index(of, index) => {
                let index = self.index(index)?;
                Ok(self.items(of, this)?.map(|of| nth(of, index)))
            }
            Expression::Binary(..) | Expression::Is(..) => Ok(self.condition(expression, this)?.map(boolean)),
            Expression::Literal(..) | Expression::Negative(..) => {
                Err(unsupported("a constant where items are expected"))
            }
        }
    }

    fn call(&self, of: &Expression, name: &str, arguments: &[Expression], this: Option<&Compiled>) -> Result_ {
        let items = || self.items(of, this);
        match (name, arguments) {
            ("where", [criterion]) => {
                let Some(of) = items()? else { return Ok(None) };
                let item = Compiled { program: Program::This, types: of.types.clone() };
                let Some(condition) = self.condition(criterion, Some(&item))? else { return Ok(None) };
                let program = Program::Where(Box::new(of.program), Box::new(condition));
                Ok(Some(Compiled { program, types: of.types }))
            }
            ("extension" | "hasExtension", [url]) if self.text(url).is_some() => {
                let url = self.text(url).unwrap_or_default();
                let found = items()?.map(|of| self.extension(of, &url));
                let exists = |found: Compiled| boolean(Condition::Exists(found.program));
                Ok(if name == "extension" { found } else { found.map(exists) })
            }
            ("ofType" | "as", [Expression::Member(first, name, _)])
                if **first == Expression::This || is_namespace(first) =>
            {
                self.typed(of, name, this)
            }
            ("first", []) => Ok(items()?.map(|of| nth(of, 0))),
            ("exists" | "empty" | "not", _) => {
                let call = Expression::Call(Box::new(of.clone()), name.to_owned(), arguments.to_vec(), At::default());
                Ok(self.condition(&call, this)?.map(boolean))
            }
            _ => Err(unsupported(&format!("{name}() with {} arguments", arguments.len()))),
        }
    }

    /// A text that is written out, or is a constant of the view.
    fn text(&self, expression: &Expression) -> Option<String> {
        match expression {
            Expression::Literal(syntax::Literal::Text(text), _) => Some(text.clone()),
            Expression::Variable(name, _) => self.view.as_ref()?.constants.borrow().text(name),
            _ => None,
        }
    }

    /// An index: a number that is written out, or is a constant of the view.
    fn index(&self, expression: &Expression) -> Result<usize, Mistake> {
        match expression {
            Expression::Literal(syntax::Literal::Number(number), _) => {
                number.parse().map_err(|_| Mistake::new(format!("{number} is not an index")))
            }
            Expression::Variable(name, _) if self.view.is_some() => {
                let found = self.view.as_ref().and_then(|view| view.constants.borrow().index(name));
                found.ok_or_else(|| Mistake::new(format!("%{name} is not an index")))
            }
            _ => Err(unsupported("an index that is not a number")),
        }
    }

    /// Whether an alternative starts with an element that this resource type does not have: it is about another type.
    fn starts_elsewhere(&self, expression: &Expression) -> bool {
        match expression {
            Expression::Member(of, name, _) if **of == Expression::This => {
                let is_element = self.base.types.iter().any(|of| self.model.element(*of, name).is_some());
                let is_open = matches!(name.as_str(), "extension" | "modifierExtension" | "DomainResource");
                !is_element
                    && !is_open
                    && self.model.find(name).is_none()
                    && !self.base.types.contains(&TypeId::UNKNOWN)
            }
            Expression::Member(of, ..)
            | Expression::Call(of, ..)
            | Expression::Index(of, _)
            | Expression::Is(of, ..)
            | Expression::As(of, ..) => self.starts_elsewhere(of),
            Expression::Binary(left, _, right, _) => self.starts_elsewhere(left) && self.starts_elsewhere(right),
            _ => false,
        }
    }
}

fn is_namespace(expression: &Expression) -> bool {
    let name = |name: &str| Expression::Member(Box::new(Expression::This), name.to_owned(), At::default());
    *expression == name("FHIR") || *expression == name("System")
}

fn nth(of: Compiled, index: usize) -> Compiled {
    Compiled { program: Program::Nth(Box::new(of.program), index), types: of.types }
}

fn boolean(condition: Condition) -> Compiled {
    Compiled { program: Program::Boolean(Box::new(condition)), types: vec![TypeId::BOOLEAN] }
}

fn union(left: Compiled, right: Compiled) -> Compiled {
    let mut parts = match left.program {
        Program::Union(parts) => parts,
        program => vec![program],
    };
    match right.program {
        Program::Union(more) => parts.extend(more),
        program => parts.push(program),
    }
    let mut types = left.types;
    types.extend(right.types);
    types.dedup();
    Compiled { program: Program::Union(parts), types }
}

fn unsupported(what: &str) -> Mistake {
    Mistake::new(format!("{what} is not supported"))
}
