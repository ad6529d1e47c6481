//! The numbers of `number` and `quantity` parameters: exact decimals, with the precision in which they are written.

use super::value::{Prefix, Refused, shown};
use fhir_bulk_codec::jsonb::numeric::{compare, of_decimal};
use std::cmp::Ordering;

/// A wanted number. All are numeric bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    pub prefix: Prefix,
    value: Box<[u8]>,
    /// Half a unit of the last digit below and above it. FHIR's page on search says so of 100 and 100.00, and calls 1e2 a number
    /// of one digit, too, but then gives it the range of 1.0e2: here it is 50 to 150.
    from: Box<[u8]>,
    until: Box<[u8]>,
}

/// The most digits of a wanted number.
const MAX_DIGITS: usize = 36;

impl Number {
    /// # Errors
    /// What is not a decimal number, or has too many digits.
    pub fn new(value: &str) -> Result<Number, Refused> {
        let (prefix, text) = Prefix::of(value)?;
        let wrong = || Refused::invalid(format!("\"{}\" is not a number", shown(text)));
        let (negative, size) = text.strip_prefix('-').map_or((false, text), |size| (true, size));
        let (mantissa, exponent) = size.split_once(['e', 'E']).unwrap_or((size, "0"));
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [integer, fraction].concat();
        let is_number = !integer.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !mantissa.ends_with('.');
        let exponent: i64 = exponent.parse().map_err(|_| wrong())?;
        if !is_number || exponent.unsigned_abs() > 1000 {
            return Err(wrong());
        }
        if digits.len() > MAX_DIGITS {
            return Err(Refused::invalid(format!("\"{}\" has more than {MAX_DIGITS} digits", shown(text))));
        }
        let sign = if negative { -1 } else { 1 };
        // Ten times as many units of a digit more, so that half a unit is a whole number.
        let units = digits.parse::<i128>().map_err(|_| wrong())? * 10 * sign;
        let numeric = |units: i128| {
            let digits = units.unsigned_abs().to_string();
            of_decimal(units < 0, digits.as_bytes(), exponent - fraction.len() as i64 - 1).ok_or_else(wrong)
        };
        Ok(Number { prefix, value: numeric(units)?, from: numeric(units - 5)?, until: numeric(units + 5)? })
    }

    /// Whether a range is: what is equal lies within the precision of the wanted number, other prefixes compare exactly.
    /// Without a bound it is open.
    pub fn is(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> bool {
        let order =
            |number: Option<&[u8]>, with: &[u8], open| number.map_or(Some(open), |number| compare(number, with));
        let low = |with: &[u8]| order(low, with, Ordering::Less);
        let high = |with: &[u8]| order(high, with, Ordering::Greater);
        let within = || low(&self.from).is_some_and(Ordering::is_ge) && high(&self.until).is_some_and(Ordering::is_lt);
        let value = &*self.value;
        match self.prefix {
            Prefix::Equal => within(),
            Prefix::NotEqual => !within(),
            Prefix::Greater => high(value).is_some_and(Ordering::is_gt),
            Prefix::Less => low(value).is_some_and(Ordering::is_lt),
            Prefix::GreaterOrEqual => high(value).is_some_and(Ordering::is_ge),
            Prefix::LessOrEqual => low(value).is_some_and(Ordering::is_le),
            Prefix::StartsAfter => low(value).is_some_and(Ordering::is_gt),
            Prefix::EndsBefore => high(value).is_some_and(Ordering::is_lt),
        }
    }
}
