//! What expressions of views have besides: values that are constants or computed, what columns have, and comparisons of all
//! of them.

use super::member::plain;
use super::{Compiled, Compiler, InView, Result_, union, unsupported};
use crate::decimal::Decimal;
use crate::model::TypeId;
use crate::program::{Column, Comparison, Condition, Constant, Literal, Missing, Operation, Program, Value};
use crate::syntax::{self, Expression, Mistake, Operator};
use crate::temporal::Temporal;

/// What values of some types can be compared or computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Boolean,
    Number,
    Text,
    Time,
    Structure,
    /// Several of them, or not known.
    Any,
}

impl Compiler<'_> {
    /// A value; `None` if the expression is none of those that only views have.
    pub(super) fn value(&self, view: &InView<'_>, expression: &Expression, this: Option<&Compiled>) -> Result_ {
        let constant = |constant: Constant| {
            let type_id = constant.type_id;
            let number = view.constants.borrow_mut().number(constant);
            value(Value::Constant(number), type_id)
        };
        Ok(Some(match expression {
            Expression::Literal(syntax::Literal::Empty, _) => {
                Compiled { program: Program::Union(Vec::new()), types: vec![TypeId::UNKNOWN] }
            }
            Expression::Literal(literal, _) => constant(literal_constant(literal, false)?),
            Expression::Negative(of, _) => match &**of {
                Expression::Literal(literal @ syntax::Literal::Number(_), _) => {
                    constant(literal_constant(literal, true)?)
                }
                of => {
                    let zero = constant(Constant::number(Decimal::new(0, 0)));
                    let Some(of) = self.items(of, this)? else { return Ok(None) };
                    self.number(zero, Operator::Subtract, of)?
                }
            },
            Expression::Variable(name, _) => match name.as_str() {
                "rowIndex" => value(Value::RowIndex, TypeId::INTEGER),
                "context" => match &view.context {
                    Some(context) => {
                        let program = Program::Value(Box::new(Value::Context));
                        Compiled { program, types: context.types.clone() }
                    }
                    None => return Ok(None),
                },
                "resource" | "rootResource" => return Ok(None),
                name => {
                    let constants = view.constants.borrow();
                    let found = constants.find(name);
                    let found = found.ok_or_else(|| Mistake::new(format!("the view has no constant {name}")))?;
                    value(Value::Constant(found.0), found.1.type_id)
                }
            },
            Expression::Binary(left, operator, right, _) if self.is_value(*operator) => {
                let (Some(left), Some(right)) = (self.items(left, this)?, self.items(right, this)?) else {
                    return Ok(None);
                };
                self.operation(left, *operator, right)?
            }
            Expression::Call(of, name, arguments, _) => return self.function(of, name, arguments, this),
            _ => return Ok(None),
        }))
    }

    /// Whether an operator makes a value that is not a boolean.
    pub(super) fn is_value(&self, operator: Operator) -> bool {
        use Operator::{Add, Concatenate, Divide, Multiply, Subtract};
        self.view.is_some() && matches!(operator, Add | Subtract | Multiply | Divide | Concatenate)
    }

    fn operation(&self, left: Compiled, operator: Operator, right: Compiled) -> Result<Compiled, Mistake> {
        let (family_left, family_right) = (self.family(&left.types), self.family(&right.types));
        let is_text = |family| matches!(family, Family::Text | Family::Time | Family::Any);
        let some_text = family_left == Family::Text || family_right == Family::Text;
        let missing = match operator {
            Operator::Concatenate => Missing::Empty,
            Operator::Add if some_text => Missing::Nothing,
            _ => return self.number(left, operator, right),
        };
        if !(is_text(family_left) && is_text(family_right)) {
            return Err(Mistake::new(format!("{} and {} are not both texts", self.named(&left), self.named(&right))));
        }
        Ok(value(Value::Concatenated(left.program, right.program, missing), TypeId::STRING))
    }

    fn number(&self, left: Compiled, operator: Operator, right: Compiled) -> Result<Compiled, Mistake> {
        let operation = match operator {
            Operator::Add => Operation::Add,
            Operator::Subtract => Operation::Subtract,
            Operator::Multiply => Operation::Multiply,
            _ => Operation::Divide,
        };
        for side in [&left, &right] {
            if !matches!(self.family(&side.types), Family::Number | Family::Any) {
                return Err(Mistake::new(format!("{} is not a number", self.named(side))));
            }
        }
        let is_integer = |of: &Compiled| of.types == [TypeId::INTEGER];
        let is_whole = operation != Operation::Divide && is_integer(&left) && is_integer(&right);
        let type_id = if is_whole { TypeId::INTEGER } else { TypeId::DECIMAL };
        Ok(value(Value::Arithmetic(left.program, operation, right.program), type_id))
    }

    /// A function that only views have; `None` for others.
    fn function(&self, of: &Expression, name: &str, arguments: &[Expression], this: Option<&Compiled>) -> Result_ {
        if !matches!(name, "join" | "lowBoundary" | "highBoundary" | "getResourceKey" | "getReferenceKey") {
            return Ok(None);
        }
        let Some(of) = self.items(of, this)? else { return Ok(None) };
        if name == "join" && !matches!(self.family(&of.types), Family::Text | Family::Time | Family::Any) {
            return Err(Mistake::new(format!("{} is not a text", self.named(&of))));
        }
        let is_reference = |of: &Compiled| of.types.iter().all(|id| *id == TypeId::REFERENCE || *id == TypeId::UNKNOWN);
        Ok(Some(match (name, arguments) {
            ("join", []) => value(Value::Joined(of.program, "".into()), TypeId::STRING),
            ("join", [separator]) => {
                let separator = self.text(separator).ok_or_else(|| unsupported("a separator that is not a text"))?;
                value(Value::Joined(of.program, separator.into()), TypeId::STRING)
            }
            ("lowBoundary" | "highBoundary", []) => {
                if !matches!(self.family(&of.types), Family::Number | Family::Time | Family::Any) {
                    return Err(Mistake::new(format!("{} has no boundaries", self.named(&of))));
                }
                let is_number = self.family(&of.types) == Family::Number;
                let types = if is_number { vec![TypeId::DECIMAL] } else { of.types };
                let program = Value::Boundary(of.program, name == "highBoundary");
                Compiled { program: Program::Value(Box::new(program)), types }
            }
            ("getResourceKey", []) => {
                let id = self.column(&of, "id").or_else(|| {
                    let is_unknown = of.types == [TypeId::UNKNOWN];
                    is_unknown.then(|| column(of.clone(), Column::Id, TypeId::ID))
                });
                id.ok_or_else(|| Mistake::new(format!("{} is not a resource", self.named(&of))))?
            }
            ("getReferenceKey", []) if is_reference(&of) => {
                value(Value::ReferenceKey(of.program, None), TypeId::STRING)
            }
            ("getReferenceKey", [Expression::Member(first, wanted, _)])
                if is_reference(&of) && (**first == Expression::This || super::is_namespace(first)) =>
            {
                if self.model.find(wanted).is_some_and(|found| !self.model.is_resource(found)) {
                    return Err(Mistake::new(format!("{wanted} is not a resource type")));
                }
                value(Value::ReferenceKey(of.program, Some(wanted.as_str().into())), TypeId::STRING)
            }
            ("getReferenceKey", [] | [_]) if !is_reference(&of) => {
                return Err(Mistake::new(format!("{} is not a Reference", self.named(&of))));
            }
            _ => return Err(unsupported(&format!("{name}() with these {} arguments", arguments.len()))),
        }))
    }

    /// A condition that only views have; `None` for others.
    pub(super) fn comparison(
        &self,
        _: &InView<'_>,
        expression: &Expression,
        this: Option<&Compiled>,
    ) -> Result<Option<Condition>, Mistake> {
        let Expression::Binary(left, operator, right, _) = expression else { return Ok(None) };
        let comparison = match operator {
            Operator::Xor | Operator::Implies => {
                let (left, right) = (self.condition(left, this)?, self.condition(right, this)?);
                return Ok(left.zip(right).map(|(left, right)| match operator {
                    Operator::Xor => Condition::Xor(Box::new(left), Box::new(right)),
                    // With three values, too.
                    _ => Condition::Or(Box::new(Condition::Not(Box::new(left))), Box::new(right)),
                }));
            }
            Operator::Equal => Comparison::Equal,
            Operator::NotEqual => Comparison::NotEqual,
            Operator::Less => Comparison::Less,
            Operator::LessOrEqual => Comparison::LessOrEqual,
            Operator::Greater => Comparison::Greater,
            Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
            _ => return Ok(None),
        };
        let Some(left) = self.items(left, this)? else { return Ok(None) };
        // What most criteria are: an element that is no time, and a text.
        if matches!(comparison, Comparison::Equal | Comparison::NotEqual)
            && self.family(&left.types) == Family::Text
            && self.is_plain_text(right)
            && let Some(text) = self.text(right)
        {
            let text = Literal::Text(text.into());
            return Ok(Some(match comparison {
                Comparison::Equal => Condition::Equals(left.program, text),
                _ => Condition::Differs(left.program, text),
            }));
        }
        let Some(right) = self.items(right, this)? else { return Ok(None) };
        if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            use Family::{Any, Number, Text, Time};
            let families = (self.family(&left.types), self.family(&right.types));
            let is_ordered = |family| matches!(family, Number | Text | Time | Any);
            let ordered = match families {
                (Any, family) | (family, Any) => is_ordered(family),
                (Number, Number) | (Text | Time, Text | Time) => true,
                _ => false,
            };
            if !ordered {
                let (left, right) = (self.named(&left), self.named(&right));
                return Err(Mistake::new(format!("{left} and {right} have no order")));
            }
        }
        Ok(Some(Condition::Compares(Box::new(left.program), comparison, Box::new(right.program))))
    }

    /// Whether a text that is written out or is a constant is not a time.
    fn is_plain_text(&self, expression: &Expression) -> bool {
        let Expression::Variable(name, _) = expression else { return true };
        let found = |view: &InView<'_>| view.constants.borrow().find(name).map(|(_, constant)| constant.type_id);
        self.view.as_ref().and_then(found).is_some_and(|type_id| !type_id.is_temporal())
    }

    /// What a column has of resources and of their `meta`.
    pub(super) fn column(&self, of: &Compiled, name: &str) -> Option<Compiled> {
        let is_resource = of.program == Program::Root || of.types.iter().all(|id| self.model.is_resource(*id));
        let (which, type_id) = match name {
            "id" if is_resource => (Column::Id, TypeId::ID),
            "meta" if is_resource => (Column::Meta, TypeId::META),
            "lastUpdated" if of.types == [TypeId::META] => (Column::LastUpdated, TypeId::INSTANT),
            "versionId" if of.types == [TypeId::META] => (Column::VersionId, TypeId::ID),
            _ => return None,
        };
        Some(column(of.clone(), which, type_id))
    }

    /// `reference` and `id` of References, which Aidbox's form has otherwise.
    pub(super) fn of_reference(&self, of: &Compiled, name: &str) -> Option<Compiled> {
        if !of.types.contains(&TypeId::REFERENCE) || of.types.contains(&TypeId::CODEABLE_REFERENCE) {
            return None;
        }
        match name {
            "reference" => Some(value(Value::Reference(of.program.clone()), TypeId::STRING)),
            // An id beside the parts of a reference is that of the resource; beside `reference`, it is the element's.
            "id" if of.types == [TypeId::REFERENCE] => {
                let own = plain(Program::This, "reference", vec![TypeId::STRING], Some(false));
                let condition = Condition::Exists(own.program);
                let program = Program::Where(Box::new(of.program.clone()), Box::new(condition));
                Some(plain(program, "id", vec![TypeId::STRING], Some(false)))
            }
            _ => None,
        }
    }

    /// `value` of extensions, which may be stored as FHIR has it.
    pub(super) fn value_of_extension(&self, of: Compiled) -> Compiled {
        let types: Vec<TypeId> =
            self.model.element(TypeId::EXTENSION, "value").map(|element| element.types.clone()).unwrap_or_default();
        let name = |id: &TypeId| self.model.name(*id);
        let fhir_name = |id: &TypeId| {
            let (first, rest) = name(id).split_at(1);
            format!("value{}{rest}", first.to_ascii_uppercase())
        };
        let stored = plain(of.program.clone(), "value", vec![TypeId::UNKNOWN], Some(false));
        let aidbox = types.iter().map(|id| (name(id).into(), *id)).collect();
        let fhir = types.iter().map(|id| (fhir_name(id).into(), *id)).collect();
        let choice =
            |of, named| Compiled { program: Program::Choice { of: Box::new(of), types: named }, types: types.clone() };
        let both = union(choice(stored.program, aidbox), choice(of.program, fhir));
        Compiled { program: both.program, types }
    }

    fn family(&self, types: &[TypeId]) -> Family {
        let mut families = types.iter().map(|id| match self.model.name(*id) {
            "" => Family::Any,
            "boolean" => Family::Boolean,
            "integer" | "integer64" | "decimal" | "positiveInt" | "unsignedInt" => Family::Number,
            "date" | "dateTime" | "instant" | "time" => Family::Time,
            _ if self.model.is_primitive(*id) => Family::Text,
            _ => Family::Structure,
        });
        let first = families.next().unwrap_or(Family::Any);
        if families.all(|family| family == first) { first } else { Family::Any }
    }

    /// The types of what a program finds, to be shown.
    fn named(&self, of: &Compiled) -> String {
        let names: Vec<&str> = of.types.iter().map(|id| self.model.name(*id)).collect();
        names.join(" | ")
    }
}

fn value(program: Value, type_id: TypeId) -> Compiled {
    Compiled { program: Program::Value(Box::new(program)), types: vec![type_id] }
}

fn column(of: Compiled, column: Column, type_id: TypeId) -> Compiled {
    value(Value::Column(of.program, column), type_id)
}

fn literal_constant(literal: &syntax::Literal, negative: bool) -> Result<Constant, Mistake> {
    Ok(match literal {
        syntax::Literal::Boolean(value) => Constant::boolean(*value),
        syntax::Literal::Text(text) => Constant::text(text, TypeId::STRING),
        syntax::Literal::Number(text) => {
            let number = Decimal::parse(text).ok_or_else(|| Mistake::new(format!("{text} has too many digits")))?;
            let number = if negative { number.negated().unwrap_or(number) } else { number };
            Constant::number(number)
        }
        syntax::Literal::Time(text) => {
            let is_time = text.starts_with('T');
            let type_id = match (is_time, text.contains('T')) {
                (true, _) => TypeId::TIME,
                (false, true) => TypeId::DATE_TIME,
                (false, false) => TypeId::DATE,
            };
            if Temporal::parse(text.as_bytes()).is_none() {
                return Err(Mistake::new(format!("@{text} is not a date, a dateTime or a time")));
            }
            Constant::text(text.trim_matches('T'), type_id)
        }
        syntax::Literal::Empty => return Err(unsupported("{} as a constant")),
    })
}
