//! `quantity` parameters. Units are compared as they are written: nothing is converted.

use super::number::Number;
use super::value::{Refused, split, unescape};
use crate::item::Item;
use fhir_bulk_codec::jsonb::walk::Container;

/// A wanted quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    number: Number,
    /// `None` for any.
    system: Option<String>,
    /// A code, or without a system also a unit; `None` for any.
    unit: Option<String>,
}

/// The system of currencies, which Money does not repeat.
const CURRENCIES: &str = "urn:iso:std:iso:4217";

impl Quantity {
    /// `number`, `number|system|code`, `number||code`.
    ///
    /// # Errors
    /// What is not a number, and other separators.
    pub fn new(value: &str) -> Result<Quantity, Refused> {
        let text = |part: &str| Some(unescape(part).into_owned()).filter(|text| !text.is_empty());
        let (number, system, unit) = match split(value, '|').as_slice() {
            [number] => (*number, None, None),
            [number, system, unit] => (*number, text(system), text(unit)),
            _ => {
                return Err(Refused::invalid("a quantity is number, number|system|code or number||code"));
            }
        };
        Ok(Quantity { number: Number::new(number)?, system, unit })
    }

    /// A number, with the prefix and precision that it is written with, whatever its unit.
    ///
    /// # Errors
    /// What is not a number.
    pub fn without_unit(value: &str) -> Result<Quantity, Refused> {
        Ok(Quantity { number: Number::new(value)?, system: None, unit: None })
    }

    /// Whether an item is such a quantity: a Quantity, Money, a Range, a SampledData with its limits; a plain number has no
    /// unit.
    pub fn matches<'j>(&self, item: &Item<'j>) -> bool {
        if let Some(number) = item.number() {
            return self.system.is_none() && self.unit.is_none() && self.number.is(Some(number), Some(number));
        }
        let Some(object) = item.object() else { return false };
        let member = |name: &[u8]| object.clone().member(name);
        if let Some(value) = member(b"value").and_then(|value| value.number()) {
            return self.has_unit(&object) && self.number.is(Some(value), Some(value));
        }
        let inner = |name: &[u8]| member(name).and_then(|value| value.container()).filter(Container::is_object);
        if let Some(origin) = inner(b"origin") {
            let limit = |name: &[u8]| member(name).and_then(|value| value.number());
            let (low, high) = (limit(b"lowerLimit"), limit(b"upperLimit"));
            return (low.is_some() || high.is_some()) && self.has_unit(&origin) && self.number.is(low, high);
        }
        let (low, high) = (inner(b"low"), inner(b"high"));
        if low.is_none() && high.is_none() {
            return false;
        }
        let has_units = [&low, &high].into_iter().flatten().all(|bound| self.has_unit(bound));
        let number = |bound: Option<Container<'j>>| bound.and_then(|bound| bound.member(b"value")?.number());
        has_units && self.number.is(number(low), number(high))
    }

    fn has_unit(&self, object: &Container<'_>) -> bool {
        let text = |name: &[u8]| object.clone().member(name).and_then(|value| value.string());
        let is = |found: Option<&[u8]>, wanted: &str| found == Some(wanted.as_bytes());
        let currency = text(b"currency");
        let code = text(b"code").or(currency);
        let has_code = |unit: &String| is(code, unit) || (self.system.is_none() && is(text(b"unit"), unit));
        let has_system = |system: &String| is(text(b"system"), system) || (currency.is_some() && system == CURRENCIES);
        self.unit.as_ref().is_none_or(has_code) && self.system.as_ref().is_none_or(has_system)
    }
}
