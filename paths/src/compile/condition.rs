//! Conditions of expressions.

use super::{Compiled, Compiler, unsupported};
use crate::program::{Condition, Literal};
use crate::syntax::{self, Expression, Mistake, Operator};
use fhir_bulk_codec::jsonb::numeric;

impl Compiler<'_> {
    /// `None` if it is about other resource types.
    pub(super) fn condition(
        &self,
        expression: &Expression,
        this: Option<&Compiled>,
    ) -> Result<Option<Condition>, Mistake> {
        self.placed(self.condition_of(expression, this), expression)
    }

    fn condition_of(&self, expression: &Expression, this: Option<&Compiled>) -> Result<Option<Condition>, Mistake> {
        if let Some(view) = &self.view
            && let Some(found) = self.comparison(view, expression, this)?
        {
            return Ok(Some(found));
        }
        let pair = |left: &Expression, right: &Expression| -> Result<_, Mistake> {
            let (left, right) = (self.condition(left, this)?, self.condition(right, this)?);
            Ok(left.zip(right).map(|(left, right)| (Box::new(left), Box::new(right))))
        };
        Ok(match expression {
            Expression::Binary(left, Operator::And, right, _) => {
                pair(left, right)?.map(|(left, right)| Condition::And(left, right))
            }
            Expression::Binary(left, Operator::Or, right, _) => {
                pair(left, right)?.map(|(left, right)| Condition::Or(left, right))
            }
            Expression::Binary(left, operator @ (Operator::Equal | Operator::NotEqual), right, _) => {
                let Expression::Literal(right, _) = &**right else {
                    return Err(unsupported("a comparison with what is not a constant"));
                };
                let right = constant(right)?;
                self.items(left, this)?.map(|left| match operator {
                    Operator::Equal => Condition::Equals(left.program, right),
                    _ => Condition::Differs(left.program, right),
                })
            }
            Expression::Is(of, name, _) => match &**of {
                Expression::Call(of, call, none, _) if call == "resolve" && none.is_empty() => {
                    self.items(of, this)?.map(|of| Condition::RefersTo(of.program, name.as_str().into()))
                }
                _ => {
                    let wanted = self.type_named(name)?;
                    self.items(of, this)?.map(|of| self.is_of_type(of, wanted))
                }
            },
            Expression::Call(of, name, arguments, _) if name == "exists" || name == "empty" => {
                let of = match arguments.as_slice() {
                    [] => self.items(of, this)?,
                    [_] if name == "exists" => self.call(of, "where", arguments, this)?,
                    _ => return Err(unsupported(&format!("{name}() with {} arguments", arguments.len()))),
                };
                let exists = of.map(|of| Condition::Exists(of.program));
                if name == "exists" { exists } else { exists.map(|exists| Condition::Not(Box::new(exists))) }
            }
            Expression::Call(of, name, arguments, _) if name == "not" => {
                if !arguments.is_empty() {
                    return Err(unsupported("not() with arguments"));
                }
                self.condition(of, this)?.map(|of| Condition::Not(Box::new(of)))
            }
            Expression::Binary(_, operator, ..) if !(self.is_value(*operator) || *operator == Operator::Union) => {
                return Err(unsupported(&format!("the operator {operator:?}")));
            }
            _ => self.items(expression, this)?.map(|items| Condition::IsTrue(items.program)),
        })
    }
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
