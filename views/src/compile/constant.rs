//! The constants that a view names.

use super::json;
use crate::error::Invalid;
use fhir_bulk_paths::compile::Constants;
use fhir_bulk_paths::decimal::Decimal;
use fhir_bulk_paths::model::{Model, TypeId};
use fhir_bulk_paths::program::Constant;
use fhir_bulk_paths::temporal::Temporal;
use serde_json::{Map, Value};

/// The types of constants, as `value[x]` has them.
const TYPES: [&str; 20] = [
    "base64Binary",
    "boolean",
    "canonical",
    "code",
    "date",
    "dateTime",
    "decimal",
    "id",
    "instant",
    "integer",
    "integer64",
    "markdown",
    "oid",
    "positiveInt",
    "string",
    "time",
    "unsignedInt",
    "uri",
    "url",
    "uuid",
];
/// Names that FHIRPath has for itself.
const TAKEN: [&str; 8] = ["context", "resource", "rootResource", "rowIndex", "ucum", "sct", "loinc", "terminologies"];

/// Reads the constants of a view.
pub fn constants(view: &Map<String, Value>, model: &Model) -> Result<Constants, Invalid> {
    let mut constants = Constants::default();
    for (at, found) in json::list(view, "constant", "")?.unwrap_or_default().iter().enumerate() {
        let element = format!("constant[{at}]");
        let Value::Object(object) = found else { return Err(Invalid::new(&element, "it is not an object")) };
        let name = json::name(object, &element)?;
        if TAKEN.contains(&name) {
            return Err(Invalid::new(&format!("{element}.name"), format!("%{name} is a name of FHIRPath's own")));
        }
        let constant = constant(object, &element, model)?;
        if !constants.define(name, constant) {
            let message = format!("another constant has the name \"{name}\"");
            return Err(Invalid::new(&format!("{element}.name"), message));
        }
    }
    Ok(constants)
}

fn constant(object: &Map<String, Value>, element: &str, model: &Model) -> Result<Constant, Invalid> {
    let mut values = object.iter().filter_map(|(name, value)| Some((name, name.strip_prefix("value")?, value)));
    let Some((name, type_name, value)) = values.next() else {
        let hint = "A constant has a value, such as valueString.";
        return Err(Invalid::new(element, "it has no value").hint(hint));
    };
    let place = json::member(element, name);
    if values.next().is_some() {
        return Err(Invalid::new(element, "it has several values"));
    }
    let is_type = |known: &&str| {
        let (first, rest) = known.split_at(1);
        type_name.strip_prefix(&first.to_ascii_uppercase()) == Some(rest)
    };
    let Some(type_name) = TYPES.into_iter().find(is_type) else {
        return Err(Invalid::new(&place, "constants cannot have this type"));
    };
    let wrong = || Invalid::new(&place, format!("it is not a value of type {type_name}"));
    let type_id = model.find(type_name).unwrap_or(TypeId::STRING);
    match (type_name, value) {
        ("boolean", Value::Bool(value)) => Ok(Constant::boolean(*value)),
        ("decimal", Value::Number(number)) => {
            let number = decimal(&number.to_string()).ok_or_else(wrong)?;
            Ok(Constant { type_id: TypeId::DECIMAL, ..Constant::number(number) })
        }
        ("integer" | "positiveInt" | "unsignedInt" | "integer64", value) => {
            let text = match value {
                Value::Number(number) => number.to_string(),
                Value::String(text) if type_name == "integer64" => text.clone(),
                _ => return Err(wrong()),
            };
            let number = decimal(&text).and_then(Decimal::as_integer).ok_or_else(wrong)?;
            let least = match type_name {
                "positiveInt" => 1,
                "unsignedInt" => 0,
                _ => i64::MIN,
            };
            let fits = type_name == "integer64" || i32::try_from(number).is_ok();
            if number < least || !fits {
                return Err(wrong());
            }
            Ok(Constant::number(Decimal::new(number.into(), 0)))
        }
        ("boolean" | "decimal", _) => Err(wrong()),
        (_, Value::String(text)) => {
            if type_id.is_temporal() && Temporal::parse(text.as_bytes()).is_none() {
                return Err(wrong());
            }
            Ok(Constant::text(text, type_id))
        }
        _ => Err(wrong()),
    }
}

/// A number as JSON has it.
fn decimal(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.parse::<i32>().ok().filter(|power| power.unsigned_abs() <= 38)?)
        }
        None => (text, 0),
    };
    let (negative, digits) = mantissa.strip_prefix('-').map_or((false, mantissa), |digits| (true, digits));
    let number = Decimal::parse(digits)?;
    let number = if negative { number.negated()? } else { number };
    let power = 10i128.checked_pow(exponent.unsigned_abs())?;
    if exponent < 0 {
        number.times(Decimal::new(1, exponent.unsigned_abs() as u16))
    } else {
        number.times(Decimal::new(power, 0))
    }
}
