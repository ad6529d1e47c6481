//! Converts decimal text to PostgreSQL's `numeric` bytes and back (`src/backend/utils/adt/numeric.c`).
//!
//! A numeric is `sign * sum(digit[i] * 10000^(weight - i))` with a display scale, the number of digits after the point.
//! Zeros at the end are kept: `1.10` stays `1.10`.

use super::out::Out;
use crate::error::Limit;
use std::cmp::Ordering;

const SHORT: u16 = 0x8000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_SCALE_SHIFT: u16 = 7;
const SHORT_SCALE_MAX: i64 = 0x3F;
const SHORT_WEIGHT_SIGN: u16 = 0x0040;
const SHORT_WEIGHT_MASK: u16 = 0x003F;
const SHORT_WEIGHT_MAX: i64 = 0x3F;
const SHORT_WEIGHT_MIN: i64 = -0x40;
const LONG_NEGATIVE: u16 = 0x4000;
const SIGN_MASK: u16 = 0xC000;
const LONG_SCALE_MAX: i64 = 0x3FFF;

/// Decimal digits in one base-10000 digit.
const DEC_DIGITS: i64 = 4;

/// The numeric of a whole number times a power of ten, without a length header. `None` if it is beyond numeric.
pub fn of_decimal(negative: bool, digits: &[u8], exponent: i64) -> Option<Box<[u8]>> {
    let number = Decimal { negative, integer: digits, fraction: &[], exponent: Some(exponent) };
    let mut bytes = Vec::new();
    encode_any(&number, &mut bytes).ok()?;
    Some(bytes[4..].into())
}

/// The order of two numerics without length headers. `None` if one is NaN or infinite, which jsonb never has.
pub fn compare(a: &[u8], b: &[u8]) -> Option<Ordering> {
    let (a, b) = (Parts::of(a)?, Parts::of(b)?);
    Some(match (a.sign(), b.sign()) {
        (1, 1) => a.compare_size(&b),
        (-1, -1) => b.compare_size(&a),
        (a, b) => a.cmp(&b),
    })
}

/// A numeric without length header as a whole number and how many of its decimal digits are behind the point. `None` if it
/// is NaN, infinite, or has too many digits.
pub fn scaled(bytes: &[u8]) -> Option<(i128, u16)> {
    let Parts { negative, scale, weight, digits } = Parts::of(bytes)?;
    let (digits, _) = digits.as_chunks();
    let groups_behind = scale.div_ceil(4) as i32;
    let mut whole: i128 = 0;
    for exponent in (-groups_behind..=weight).rev() {
        let digit = digits.get((weight - exponent) as usize).copied().map_or(0, u16::from_le_bytes);
        whole = whole.checked_mul(10_000)?.checked_add(digit.into())?;
    }
    whole /= [1, 10, 100, 1000][groups_behind as usize * 4 - scale];
    Some((if negative { -whole } else { whole }, scale as u16))
}

/// Appends the text of a numeric without length header, as `numeric_out` writes it.
pub fn write_text(bytes: &[u8], text: &mut Vec<u8>) {
    // As much as common numbers need.
    let written = Out::new(text, bytes.len() * 2 + 16).and_then(|mut out| {
        write(bytes, &mut out)?;
        out.finish(text);
        Ok(())
    });
    // As for other text: an error of the statement, not the end of the process.
    written.unwrap_or_else(|_| panic!("out of memory for the text of a number"))
}

/// A numeric's parts. The digits are of base 10000, in two bytes each, without zeros at either end.
struct Parts<'n> {
    negative: bool,
    scale: usize,
    weight: i32,
    digits: &'n [u8],
}

impl<'n> Parts<'n> {
    #[inline]
    fn of(bytes: &'n [u8]) -> Option<Parts<'n>> {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let head = word(0);
        Some(if head & SIGN_MASK == SIGN_MASK {
            return None;
        } else if head & SHORT != 0 {
            let low = (head & SHORT_WEIGHT_MASK) as i32;
            let weight = if head & SHORT_WEIGHT_SIGN != 0 { low - 64 } else { low };
            let scale = ((head >> SHORT_SCALE_SHIFT) & 0x3F) as usize;
            Parts { negative: head & SHORT_NEGATIVE != 0, scale, weight, digits: &bytes[2..] }
        } else {
            let scale = (head & 0x3FFF) as usize;
            Parts { negative: head & LONG_NEGATIVE != 0, scale, weight: i32::from(word(2) as i16), digits: &bytes[4..] }
        })
    }

    fn sign(&self) -> i32 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    /// The order without the sign, of numbers that are not zero.
    fn compare_size(&self, other: &Parts<'_>) -> Ordering {
        let digits = |parts: &Parts<'n>| parts.digits.as_chunks().0.iter().copied().map(u16::from_le_bytes);
        let other_digits = other.digits.as_chunks().0.iter().copied().map(u16::from_le_bytes);
        self.weight.cmp(&other.weight).then_with(|| digits(self).cmp(other_digits))
    }
}

/// The parts of a JSON number, as the parser found them.
pub(crate) struct Decimal<'a> {
    pub negative: bool,
    /// The digits before the point, at least one.
    pub integer: &'a [u8],
    /// The digits after the point.
    pub fraction: &'a [u8],
    /// The power of ten; `None` when it was too long for an `i64`.
    pub exponent: Option<i64>,
}

/// How many decimal digits, with three more zeros, fit into a `u64`.
const SMALL_DIGITS: usize = 16;

/// Appends the number as a numeric with its 4-byte length header. The digits, the short or long form and the
/// limits are those of `set_var_from_str` and `make_result`, so the bytes are PostgreSQL's.
///
/// # Errors
/// [`Limit::NumberOverflow`], [`Limit::OutOfMemory`].
#[inline]
pub(crate) fn encode(number: &Decimal<'_>, out: &mut Vec<u8>) -> Result<(), Limit> {
    if number.exponent == Some(0) && number.integer.len() + number.fraction.len() <= SMALL_DIGITS {
        encode_small(number, out)
    } else {
        encode_any(number, out)
    }
}

/// Writes a common number: without exponent, and with few enough digits for a `u64`. Always the short form.
fn encode_small(number: &Decimal<'_>, out: &mut Vec<u8>) -> Result<(), Limit> {
    let scale = number.fraction.len();
    let digits = number.integer.iter().chain(number.fraction);
    let value = digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));

    // The point falls between two base-10000 digits.
    let padding = scale.wrapping_neg() % 4;
    let mut value = value * [1, 10, 100, 1000][padding];
    let mut weight = -(((scale + padding) / 4) as i64);
    while value != 0 && value.is_multiple_of(10000) {
        value /= 10000;
        weight += 1;
    }
    if value == 0 {
        out.try_reserve(6)?;
        out.extend_from_slice(&(6u32 << 2).to_le_bytes());
        out.extend_from_slice(&short_header(false, scale as i64, 0).to_le_bytes());
        return Ok(());
    }
    // Written from the end: at most five digits, and the headers before them.
    let mut bytes = [0; 16];
    let mut at = bytes.len();
    weight -= 1;
    while value != 0 {
        at -= 2;
        bytes[at..at + 2].copy_from_slice(&((value % 10000) as u16).to_le_bytes());
        value /= 10000;
        weight += 1;
    }
    at -= 6;
    let length = (bytes.len() - at) as u32;
    bytes[at..at + 4].copy_from_slice(&(length << 2).to_le_bytes());
    let header = short_header(number.negative, scale as i64, weight);
    bytes[at + 4..at + 6].copy_from_slice(&header.to_le_bytes());
    out.try_reserve(bytes.len())?;
    out.extend_from_slice(&bytes[at..]);
    Ok(())
}

fn short_header(negative: bool, scale: i64, weight: i64) -> u16 {
    SHORT
        | (scale as u16) << SHORT_SCALE_SHIFT
        | if negative { SHORT_NEGATIVE } else { 0 }
        | if weight < 0 { SHORT_WEIGHT_SIGN } else { 0 }
        | weight as u16 & SHORT_WEIGHT_MASK
}

fn encode_any(number: &Decimal<'_>, out: &mut Vec<u8>) -> Result<(), Limit> {
    let exponent = match number.exponent {
        Some(e) if e.unsigned_abs() < (i32::MAX / 2) as u64 => e,
        _ => return Err(Limit::NumberOverflow),
    };
    let scale = (number.fraction.len() as i64 - exponent).max(0);
    if scale > LONG_SCALE_MAX {
        return Err(Limit::NumberOverflow);
    }

    // Aligns decimal digits to base-10000 digits: `lead` zeros go before the first.
    let (integer, fraction) = (number.integer, number.fraction);
    let decimal_weight = integer.len() as i64 - 1 + exponent;
    let mut weight = (decimal_weight + DEC_DIGITS).div_euclid(DEC_DIGITS) - 1;
    let lead = (weight + 1) * DEC_DIGITS - (decimal_weight + 1);
    let count = (integer.len() + fraction.len()) as i64;
    let groups = (lead + count + DEC_DIGITS - 1) / DEC_DIGITS;

    let start = out.len();
    out.try_reserve(groups as usize * 2 + 8)?;
    out.extend_from_slice(&[0; 8]);
    let digits_start = start + 8;

    let mut group = 0u16;
    let mut filled = lead;
    let mut leading = true;
    for byte in integer.iter().chain(fraction) {
        group = group * 10 + u16::from(byte - b'0');
        filled += 1;
        if filled == DEC_DIGITS {
            if leading && group == 0 {
                weight -= 1;
            } else {
                leading = false;
                out.extend_from_slice(&group.to_le_bytes());
            }
            (group, filled) = (0, 0);
        }
    }
    if group != 0 {
        for _ in filled..DEC_DIGITS {
            group *= 10;
        }
        out.extend_from_slice(&group.to_le_bytes());
    }
    while out.len() > digits_start && out.ends_with(&[0, 0]) {
        out.truncate(out.len() - 2);
    }
    let zero = out.len() == digits_start;
    if zero {
        weight = 0;
    }
    let negative = number.negative && !zero;

    let Ok(long_weight) = i16::try_from(weight) else { return Err(Limit::NumberOverflow) };
    let digits = out.len() - digits_start;
    let header = if scale <= SHORT_SCALE_MAX && (SHORT_WEIGHT_MIN..=SHORT_WEIGHT_MAX).contains(&weight) {
        let short = short_header(negative, scale, weight);
        out[start + 4..start + 6].copy_from_slice(&short.to_le_bytes());
        out.copy_within(digits_start.., start + 6);
        out.truncate(start + 6 + digits);
        6
    } else {
        let sign = if negative { LONG_NEGATIVE } else { 0 };
        out[start + 4..start + 6].copy_from_slice(&(sign | scale as u16).to_le_bytes());
        out[start + 6..start + 8].copy_from_slice(&long_weight.to_le_bytes());
        8
    };
    // A length beyond 30 bits would need more digits than a numeric's weight allows.
    out[start..start + 4].copy_from_slice(&(((header + digits) as u32) << 2).to_le_bytes());
    Ok(())
}

/// Appends the text of a numeric, as `numeric_out` writes it. `bytes` does not include the length header.
pub(crate) fn write(bytes: &[u8], out: &mut Out) -> Result<(), Limit> {
    let Some(Parts { negative, scale, weight, digits }) = Parts::of(bytes) else {
        // NaN and the infinities. PostgreSQL never puts them in jsonb, but other code might.
        out.room(4)?;
        out.put(b"null");
        return Ok(());
    };
    let count = digits.len() / 2;
    let digit = |at: i32| match usize::try_from(at) {
        Ok(at) if at < count => u16::from_le_bytes([digits[at * 2], digits[at * 2 + 1]]),
        _ => 0,
    };

    // Sign, digits before the point, point, digits after it and the rest of the last group.
    out.room(1 + (weight.max(0) as usize + 1) * 4 + 1 + scale + 4)?;
    if negative {
        out.put(b"-");
    }
    if weight < 0 {
        out.put(b"0");
    } else {
        put_first_group(digit(0), out);
        for at in 1..=weight {
            out.put(&four(digit(at)));
        }
    }
    if scale > 0 {
        out.put(b".");
        let end = out.len() + scale;
        let mut at = weight + 1;
        while out.len() < end {
            out.put(&four(digit(at)));
            at += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

/// The four decimal digits of a base-10000 digit.
#[inline]
fn four(group: u16) -> [u8; 4] {
    let [a, b] = PAIRS[usize::from(group / 100 % 100)];
    let [c, d] = PAIRS[usize::from(group % 100)];
    [a, b, c, d]
}

/// The first base-10000 digit, without leading zeros.
#[inline]
fn put_first_group(group: u16, out: &mut Out) {
    let text = u32::from_le_bytes(four(group));
    let digits = match group {
        0..10 => 1,
        10..100 => 2,
        100..1000 => 3,
        _ => 4,
    };
    out.put(&(text >> (8 * (4 - digits))).to_le_bytes());
    out.truncate(out.len() - (4 - digits));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_its_digits_as_a_whole_number_and_as_text() {
        for (negative, digits, exponent, text, whole, scale) in [
            (false, "0", 0, "0", 0, 0),
            (false, "0", -2, "0.00", 0, 2),
            (false, "150", -2, "1.50", 150, 2),
            (true, "15", 3, "-15000", -15_000, 0),
            (false, "123456789", -4, "12345.6789", 123_456_789, 4),
            (true, "1", -9, "-0.000000001", -1, 9),
            (false, "10000", 0, "10000", 10_000, 0),
            (
                false,
                "9999999999999999999999999999999999",
                -5,
                "99999999999999999999999999999.99999",
                10i128.pow(34) - 1,
                5,
            ),
        ] {
            let number = of_decimal(negative, digits.as_bytes(), exponent).unwrap();
            assert_eq!(scaled(&number), Some((whole, scale)), "{text}");
            let mut out = b"x".to_vec();
            write_text(&number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("x{text}"));
        }
        assert_eq!(scaled(&of_decimal(false, &[b'9'; 40], 0).unwrap()), None);
        assert_eq!(scaled(&of_decimal(false, b"1", 200).unwrap()), None);
    }
}
