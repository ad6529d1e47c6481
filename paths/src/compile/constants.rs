//! The constants of a view: those that it names, and those that its expressions have in their text.

use crate::decimal::Decimal;
use crate::model::TypeId;
use crate::program::{Constant, ConstantValue};
use std::collections::HashMap;

/// Constants by number, some of them with a name.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    all: Vec<Constant>,
    named: HashMap<String, usize>,
}

impl Constants {
    /// Names a constant. `false` if the name is taken.
    pub fn define(&mut self, name: &str, constant: Constant) -> bool {
        let number = self.number(constant);
        self.named.insert(name.to_owned(), number).is_none()
    }

    /// All of them, for [`Within::constants`](crate::program::Within::constants).
    pub fn all(&self) -> &[Constant] {
        &self.all
    }

    /// The number of a constant that is in the text of an expression.
    pub(super) fn number(&mut self, constant: Constant) -> usize {
        self.all.push(constant);
        self.all.len() - 1
    }

    /// The number of a constant by its name.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &Constant)> {
        let number = *self.named.get(name)?;
        Some((number, self.all.get(number)?))
    }

    /// The text of a constant that is one.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match &self.find(name)?.1.value {
            ConstantValue::Text(text) => Some(text.to_string()),
            _ => None,
        }
    }

    /// The index that a constant is.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        match self.find(name)?.1.value {
            ConstantValue::Number(number) => number.as_integer().and_then(|index| index.try_into().ok()),
            _ => None,
        }
    }
}

impl Constant {
    /// A text, or a time by its type.
    pub fn text(text: &str, type_id: TypeId) -> Constant {
        Constant { value: ConstantValue::Text(text.into()), type_id }
    }

    /// `true` or `false`.
    pub fn boolean(value: bool) -> Constant {
        Constant { value: ConstantValue::Boolean(value), type_id: TypeId::BOOLEAN }
    }

    /// A number: an integer if it has no digits behind a point.
    pub fn number(number: Decimal) -> Constant {
        let type_id = if number.scale() == 0 { TypeId::INTEGER } else { TypeId::DECIMAL };
        Constant { value: ConstantValue::Number(number), type_id }
    }
}
