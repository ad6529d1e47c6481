//! Compiles expressions for a resource type, by the definitions of a release, into programs over its stored form: a choice is
//! an object with a member for its type (`value: {Quantity: …}`), and what columns have is not in the jsonb.

use crate::model::{Element, Model, TypeId};
use crate::program::{Condition, Literal, OfType, Program};
use crate::syntax::{self, Expression, Mistake, Operator};
use fhir_bulk_codec::jsonb::numeric;

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

struct Compiler<'c> {
    model: &'c Model,
    /// The name with which an expression may start.
    resource_type: &'c str,
    /// The resource.
    base: Compiled,
}

type Result_ = Result<Option<Compiled>, Mistake>;

impl<'c> Compiler<'c> {
    fn new(model: &'c Model, resource_type: &'c str) -> Compiler<'c> {
        let root = model.find(resource_type).unwrap_or(TypeId::UNKNOWN);
        Compiler { model, resource_type, base: Compiled { program: Program::Root, types: vec![root] } }
    }

    /// `this` is the item that a leading name is looked up in; without it, the resource, whose type may come first.
    fn items(&self, expression: &Expression, this: Option<&Compiled>) -> Result_ {
        let focus = || this.unwrap_or(&self.base).clone();
        match expression {
            Expression::This => Ok(Some(focus())),
            Expression::Variable(name) if matches!(name.as_str(), "resource" | "rootResource" | "context") => {
                Ok(Some(self.base.clone()))
            }
            Expression::Variable(name) => Err(unsupported(&format!("%{name}"))),
            Expression::Member(of, name) => {
                if **of == Expression::This && this.is_none_or(|this| this.program == Program::Root) {
                    if name == self.resource_type || matches!(name.as_str(), "Resource" | "DomainResource") {
                        return Ok(Some(self.base.clone()));
                    }
                    if self.model.find(name).is_some_and(|found| self.model.is_resource(found)) {
                        return Ok(None);
                    }
                }
                self.items(of, this)?.map(|of| self.member(of, name)).transpose()
            }
            Expression::Binary(left, Operator::Union, right) => {
                let side = |side: &Expression| {
                    if this.is_none() && self.starts_elsewhere(side) { Ok(None) } else { self.items(side, this) }
                };
                Ok(match (side(left)?, side(right)?) {
                    (Some(left), Some(right)) => Some(union(left, right)),
                    (found, None) | (None, found) => found,
                })
            }
            Expression::As(of, name) => self.typed(of, name, this),
            Expression::Call(of, name, arguments) => self.call(of, name, arguments, this),
            Expression::Index(of, index) => {
                let Expression::Literal(syntax::Literal::Number(number)) = &**index else {
                    return Err(unsupported("an index that is not a number"));
                };
                let index = number.parse().map_err(|_| Mistake::new(format!("{number} is not an index")))?;
                Ok(self.items(of, this)?.map(|of| nth(of, index)))
            }
            Expression::Binary(..) | Expression::Is(..) => Ok(self.condition(expression, this)?.map(boolean)),
            Expression::Literal(_) | Expression::Negative(_) => Err(unsupported("a constant where items are expected")),
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
            ("extension", [Expression::Literal(syntax::Literal::Text(url))]) => {
                Ok(items()?.map(|of| self.extension(of, url)))
            }
            ("hasExtension", [Expression::Literal(syntax::Literal::Text(url))]) => {
                let found = items()?.map(|of| self.extension(of, url));
                Ok(found.map(|found| boolean(Condition::Exists(found.program))))
            }
            ("ofType" | "as", [Expression::Member(first, name)])
                if **first == Expression::This || is_namespace(first) =>
            {
                self.typed(of, name, this)
            }
            ("first", []) => Ok(items()?.map(|of| nth(of, 0))),
            ("exists" | "empty" | "not", _) => {
                let call = Expression::Call(Box::new(of.clone()), name.to_owned(), arguments.to_vec());
                Ok(self.condition(&call, this)?.map(boolean))
            }
            _ => Err(unsupported(&format!("{name}() with {} arguments", arguments.len()))),
        }
    }

    /// `None` if it is about other resource types.
    fn condition(&self, expression: &Expression, this: Option<&Compiled>) -> Result<Option<Condition>, Mistake> {
        let pair = |left: &Expression, right: &Expression| -> Result<_, Mistake> {
            let (left, right) = (self.condition(left, this)?, self.condition(right, this)?);
            Ok(left.zip(right).map(|(left, right)| (Box::new(left), Box::new(right))))
        };
        Ok(match expression {
            Expression::Binary(left, Operator::And, right) => {
                pair(left, right)?.map(|(left, right)| Condition::And(left, right))
            }
            Expression::Binary(left, Operator::Or, right) => {
                pair(left, right)?.map(|(left, right)| Condition::Or(left, right))
            }
            Expression::Binary(left, operator @ (Operator::Equal | Operator::NotEqual), right) => {
                let Expression::Literal(right) = &**right else {
                    return Err(unsupported("a comparison with what is not a constant"));
                };
                let right = constant(right)?;
                self.items(left, this)?.map(|left| match operator {
                    Operator::Equal => Condition::Equals(left.program, right),
                    _ => Condition::Differs(left.program, right),
                })
            }
            Expression::Is(of, name) => match &**of {
                Expression::Call(of, call, none) if call == "resolve" && none.is_empty() => {
                    self.items(of, this)?.map(|of| Condition::RefersTo(of.program, name.as_str().into()))
                }
                _ => {
                    let wanted = self.type_named(name)?;
                    self.items(of, this)?.map(|of| self.is_of_type(of, wanted))
                }
            },
            Expression::Call(of, name, arguments) if name == "exists" || name == "empty" => {
                let of = match arguments.as_slice() {
                    [] => self.items(of, this)?,
                    [_] if name == "exists" => self.call(of, "where", arguments, this)?,
                    _ => return Err(unsupported(&format!("{name}() with {} arguments", arguments.len()))),
                };
                let exists = of.map(|of| Condition::Exists(of.program));
                if name == "exists" { exists } else { exists.map(|exists| Condition::Not(Box::new(exists))) }
            }
            Expression::Call(of, name, arguments) if name == "not" => {
                if !arguments.is_empty() {
                    return Err(unsupported("not() with arguments"));
                }
                self.condition(of, this)?.map(|of| Condition::Not(Box::new(of)))
            }
            Expression::Binary(_, operator, _) if *operator != Operator::Union => {
                return Err(unsupported(&format!("the operator {operator:?}")));
            }
            _ => self.items(expression, this)?.map(|items| Condition::IsTrue(items.program)),
        })
    }

    /// A member of the items. What columns have is read from them.
    fn member(&self, of: Compiled, name: &str) -> Result<Compiled, Mistake> {
        if of.program == Program::Root && name == "id" {
            return Ok(Compiled { program: Program::Id, types: vec![TypeId::STRING] });
        }
        if let Program::Member { of: root, name: meta, .. } = &of.program
            && **root == Program::Root
            && &**meta == "meta"
            && name == "lastUpdated"
        {
            return Ok(Compiled { program: Program::LastUpdated, types: vec![TypeId::INSTANT] });
        }
        if matches!(name, "extension" | "modifierExtension") {
            return Ok(self.extensions(of, name));
        }
        if of.types == [TypeId::REFERENCE] && name == "reference" {
            return Ok(literal_references(of));
        }
        let found: Vec<&Element> = of.types.iter().filter_map(|of| self.model.element(*of, name)).collect();
        let Some(first) = found.first() else {
            if of.types.contains(&TypeId::UNKNOWN) {
                return Ok(plain(of.program, name, vec![TypeId::UNKNOWN], None));
            }
            let of: Vec<&str> = of.types.iter().map(|of| self.model.name(*of)).collect();
            return Err(Mistake::new(format!("{} has no element {name}", of.join(" | "))));
        };
        if found.iter().any(|element| element.is_choice != first.is_choice) {
            return Err(unsupported(&format!("{name}, which is a choice in one type and not in another")));
        }
        let mut types = Vec::new();
        for id in found.iter().flat_map(|element| &element.types) {
            if !types.contains(id) {
                types.push(*id);
            }
        }
        if first.is_choice {
            let value = plain(of.program, name, vec![TypeId::UNKNOWN], Some(false));
            let named = types.iter().map(|id| (self.model.name(*id).into(), *id)).collect();
            return Ok(Compiled { program: Program::Choice { of: Box::new(value.program), types: named }, types });
        }
        let is_list = found.iter().all(|element| element.is_list == first.is_list).then_some(first.is_list);
        Ok(plain(of.program, name, types, is_list))
    }

    /// The extensions of the items; those of a primitive are in the member with `_` before its name. Those of a choice's
    /// primitive are not found: they are beside the choice, under FHIR's name.
    fn extensions(&self, of: Compiled, name: &str) -> Compiled {
        let primitive = of.types.iter().all(|of| self.model.is_primitive(*of));
        let program = match of.program {
            Program::Member { of, name, is_list, .. } if primitive => {
                Program::Member { of, name: format!("_{name}").into(), type_id: TypeId::UNKNOWN, is_list }
            }
            other => other,
        };
        plain(program, name, vec![TypeId::EXTENSION], Some(true))
    }

    fn extension(&self, of: Compiled, url: &str) -> Compiled {
        let extensions = self.extensions(of, "extension");
        let found = plain(Program::This, "url", vec![TypeId::STRING], Some(false));
        let condition = Condition::Equals(found.program, Literal::Text(url.into()));
        Compiled { program: Program::Where(Box::new(extensions.program), Box::new(condition)), types: extensions.types }
    }

    /// Those items that have a type; `None` if none can have it.
    fn typed(&self, of: &Expression, name: &str, this: Option<&Compiled>) -> Result_ {
        let wanted = self.type_named(name)?;
        self.items(of, this)?.map_or(Ok(None), |of| self.of_type(of, wanted))
    }

    fn type_named(&self, name: &str) -> Result<TypeId, Mistake> {
        // HL7 has `as(DateTime)`, too.
        let small = || self.model.find(&(name.get(..1)?.to_ascii_lowercase() + &name[1..]));
        let found = self.model.find(name).or_else(small).filter(|_| !name.is_empty());
        found.ok_or_else(|| Mistake::new(format!("there is no type {name}")))
    }

    /// Whether a type is another one, or derives from it.
    fn is(&self, id: TypeId, wanted: TypeId) -> bool {
        id == wanted || is_subtype(self.model.name(id), self.model.name(wanted))
    }

    fn is_of_type(&self, of: Compiled, wanted: TypeId) -> Condition {
        let types: Vec<TypeId> = of.types.iter().copied().filter(|id| self.is(*id, wanted)).collect();
        let kind = if types.len() == of.types.len() {
            OfType::All
        } else if of.types.contains(&TypeId::RESOURCE) && self.model.is_resource(wanted) {
            OfType::Resource(self.model.name(wanted).into())
        } else {
            OfType::Types(types)
        };
        Condition::IsOfType(of.program, kind)
    }

    fn of_type(&self, of: Compiled, wanted: TypeId) -> Result_ {
        let is_wanted = |id: &TypeId| self.is(*id, wanted);
        if !of.types.iter().any(is_wanted) {
            if !(of.types.contains(&TypeId::RESOURCE) && self.model.is_resource(wanted)) {
                return Ok(None);
            }
            let program = Program::Resources(Box::new(of.program), self.model.name(wanted).into(), wanted);
            return Ok(Some(Compiled { program, types: vec![wanted] }));
        }
        match of.program {
            Program::Choice { of, types } => {
                let mut found: Vec<_> = types.into_iter().filter(|(_, id)| is_wanted(id)).collect();
                if found.len() == 1 {
                    return Ok(found.pop().map(|(stored, id)| plain(*of, &stored, vec![id], Some(false))));
                }
                let types = found.iter().map(|(_, id)| *id).collect();
                Ok(Some(Compiled { program: Program::Choice { of, types: found }, types }))
            }
            program if of.types.iter().all(is_wanted) => Ok(Some(Compiled { program, types: of.types })),
            _ => Err(unsupported(&format!("a selection of {} from these items", self.model.name(wanted)))),
        }
    }

    /// Whether an alternative starts with an element that this resource type does not have: it is about another type.
    fn starts_elsewhere(&self, expression: &Expression) -> bool {
        match expression {
            Expression::Member(of, name) if **of == Expression::This => {
                let is_element = self.base.types.iter().any(|of| self.model.element(*of, name).is_some());
                let is_open = matches!(name.as_str(), "extension" | "modifierExtension" | "DomainResource");
                !is_element
                    && !is_open
                    && self.model.find(name).is_none()
                    && !self.base.types.contains(&TypeId::UNKNOWN)
            }
            Expression::Member(of, _)
            | Expression::Call(of, ..)
            | Expression::Index(of, _)
            | Expression::Is(of, _)
            | Expression::As(of, _) => self.starts_elsewhere(of),
            Expression::Binary(left, _, right) => self.starts_elsewhere(left) && self.starts_elsewhere(right),
            _ => false,
        }
    }
}

fn is_namespace(expression: &Expression) -> bool {
    let name = |name: &str| Expression::Member(Box::new(Expression::This), name.to_owned());
    *expression == name("FHIR") || *expression == name("System")
}

fn plain(of: Program, name: &str, types: Vec<TypeId>, is_list: Option<bool>) -> Compiled {
    // The type of several is told by their form.
    let type_id = if types.len() == 1 { types[0] } else { TypeId::UNKNOWN };
    Compiled { program: Program::Member { of: Box::new(of), name: name.into(), type_id, is_list }, types }
}

/// Whether FHIR derives a type from another one: of the types that choices have.
fn is_subtype(name: &str, of: &str) -> bool {
    match of {
        "uri" => matches!(name, "url" | "canonical" | "oid" | "uuid"),
        "string" => matches!(name, "code" | "id" | "markdown"),
        "integer" => matches!(name, "positiveInt" | "unsignedInt"),
        "Quantity" => matches!(name, "Age" | "Count" | "Distance" | "Duration"),
        _ => false,
    }
}

/// `reference` of References: those that have one. Aidbox's form has it in parts, so the Reference stands for it.
fn literal_references(of: Compiled) -> Compiled {
    let has = |name| Condition::Exists(plain(Program::This, name, vec![TypeId::STRING], Some(false)).program);
    let one = |left, right| Condition::Or(Box::new(left), Box::new(right));
    let condition = one(one(has("resourceType"), has("uri")), one(has("localRef"), has("reference")));
    Compiled { program: Program::Where(Box::new(of.program), Box::new(condition)), types: of.types }
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

fn constant(literal: &syntax::Literal) -> Result<Literal, Mistake> {
    Ok(match literal {
        syntax::Literal::Boolean(value) => Literal::Boolean(*value),
        syntax::Literal::Text(text) => Literal::Text(text.as_str().into()),
        syntax::Literal::Number(text) => {
            let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
            let digits = format!("{integer}{fraction}");
            let number = numeric::of_decimal(false, digits.as_bytes(), -(fraction.len() as i64));
            Literal::Number(number.ok_or_else(|| Mistake::new(format!("{text} is too long")))?)
        }
        syntax::Literal::Empty | syntax::Literal::Time(_) => return Err(unsupported("this constant")),
    })
}

fn unsupported(what: &str) -> Mistake {
    Mistake::new(format!("{what} is not supported"))
}
