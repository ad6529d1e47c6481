//! Numbers that expressions compute: exact, with as many digits behind the point as FHIR's decimals say.

use fhir_bulk_codec::jsonb::numeric;
use std::cmp::Ordering;

/// A whole number divided by a power of ten. What has more digits than fit is not computed: FHIRPath's result is empty then.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    /// The whole number, in halves, so that an item is aligned to 8 bytes.
    low: u64,
    high: u64,
    scale: u16,
}

/// How many digits a quotient may have behind the point.
const QUOTIENT_SCALE: u16 = 16;

impl Decimal {
    /// `whole / 10^scale`.
    pub fn new(whole: i128, scale: u16) -> Decimal {
        Decimal { low: whole as u64, high: (whole >> 64) as u64, scale }
    }

    /// A number in PostgreSQL's numeric bytes.
    pub fn of_numeric(bytes: &[u8]) -> Option<Decimal> {
        numeric::scaled(bytes).map(|(whole, scale)| Decimal::new(whole, scale))
    }

    /// Reads digits with a point among them, as FHIRPath has them.
    pub fn parse(text: &str) -> Option<Decimal> {
        let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
        let scale = u16::try_from(fraction.len()).ok()?;
        let mut whole: i128 = 0;
        for digit in integer.bytes().chain(fraction.bytes()) {
            let digit = digit.is_ascii_digit().then(|| i128::from(digit - b'0'))?;
            whole = whole.checked_mul(10)?.checked_add(digit)?;
        }
        Some(Decimal::new(whole, scale))
    }

    /// The whole number.
    pub fn whole(self) -> i128 {
        (i128::from(self.high) << 64) | i128::from(self.low)
    }

    /// How many digits are behind the point.
    pub fn scale(self) -> u16 {
        self.scale
    }

    /// The same number with more digits behind the point.
    fn at_scale(self, scale: u16) -> Option<i128> {
        let more = u32::from(scale.checked_sub(self.scale)?);
        self.whole().checked_mul(10i128.checked_pow(more)?)
    }

    fn aligned(self, other: Decimal) -> Option<(i128, i128, u16)> {
        let scale = self.scale.max(other.scale);
        Some((self.at_scale(scale)?, other.at_scale(scale)?, scale))
    }

    /// The order of two numbers; `None` if they are too far apart in size and precision.
    pub fn compare(self, other: Decimal) -> Option<Ordering> {
        self.aligned(other).map(|(a, b, _)| a.cmp(&b))
    }

    /// `self + other`
    pub fn plus(self, other: Decimal) -> Option<Decimal> {
        let (a, b, scale) = self.aligned(other)?;
        Some(Decimal::new(a.checked_add(b)?, scale))
    }

    /// `-self`
    pub fn negated(self) -> Option<Decimal> {
        Some(Decimal::new(self.whole().checked_neg()?, self.scale))
    }

    /// `self * other`
    pub fn times(self, other: Decimal) -> Option<Decimal> {
        let whole = self.whole().checked_mul(other.whole())?;
        Some(Decimal::new(whole, self.scale.checked_add(other.scale)?))
    }

    /// `self / other`, rounded to sixteen digits behind the point, without zeros at the end. `None` for a division by zero.
    pub fn divided_by(self, other: Decimal) -> Option<Decimal> {
        if other.whole() == 0 {
            return None;
        }
        let shift = (u32::from(QUOTIENT_SCALE) + u32::from(other.scale)).checked_sub(self.scale.into())?;
        let dividend = self.whole().checked_mul(10i128.checked_pow(shift)?)?;
        let (quotient, rest) = (dividend.checked_div(other.whole())?, dividend % other.whole());
        let away = if (dividend < 0) == (other.whole() < 0) { 1 } else { -1 };
        let is_half = rest.unsigned_abs() >= other.whole().unsigned_abs().div_ceil(2);
        Some(Decimal::new(quotient + if is_half { away } else { 0 }, QUOTIENT_SCALE).shortened())
    }

    fn shortened(self) -> Decimal {
        let (mut whole, mut scale) = (self.whole(), self.scale);
        while scale > 0 && whole % 10 == 0 {
            (whole, scale) = (whole / 10, scale - 1);
        }
        Decimal::new(whole, scale)
    }

    /// The least or greatest number that is written like this one with so many digits: half a unit of the last digit away.
    pub fn boundary(self, high: bool) -> Option<Decimal> {
        let half = if high { 5 } else { -5 };
        Some(Decimal::new(self.whole().checked_mul(10)?.checked_add(half)?, self.scale.checked_add(1)?))
    }

    /// The number as an index or count.
    pub fn as_integer(self) -> Option<i64> {
        let (whole, power) = (self.whole(), 10i128.checked_pow(self.scale.into())?);
        if whole % power == 0 { i64::try_from(whole / power).ok() } else { None }
    }

    /// Appends the number's text.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut digits = [b'0'; 40];
        let (mut at, mut rest) = (digits.len(), self.whole().unsigned_abs());
        while rest > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let scale = usize::from(self.scale);
        if self.whole() < 0 {
            out.push(b'-');
        }
        let known = &digits[at..];
        let integer = &known[..known.len().saturating_sub(scale)];
        out.extend_from_slice(if integer.is_empty() { b"0" } else { integer });
        if scale > 0 {
            out.push(b'.');
            out.extend(std::iter::repeat_n(b'0', scale.saturating_sub(known.len())));
            out.extend_from_slice(&known[integer.len()..]);
        }
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        (self.whole(), self.scale) == (other.whole(), other.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        match text.strip_prefix('-') {
            Some(text) => Decimal::parse(text).unwrap().negated().unwrap(),
            None => Decimal::parse(text).unwrap(),
        }
    }

    fn text(number: Option<Decimal>) -> String {
        let mut out = Vec::new();
        match number {
            Some(number) => number.write(&mut out),
            None => return "none".to_owned(),
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_computed_exactly() {
        for (a, b, sum, product, quotient) in [
            ("2", "3", "5", "6", "0.6666666666666667"),
            ("3", "2", "5", "6", "1.5"),
            ("0.1", "0.20", "0.30", "0.020", "0.5"),
            ("-1", "3", "2", "-3", "-0.3333333333333333"),
            ("-2", "-3", "-5", "6", "0.6666666666666667"),
            ("1", "0", "1", "0", "none"),
            ("0", "7", "7", "0", "0"),
            (
                "100000000000000000000000000000000000000",
                "1",
                "100000000000000000000000000000000000001",
                "100000000000000000000000000000000000000",
                "none",
            ),
        ] {
            let (a, b) = (number(a), number(b));
            assert_eq!(text(a.plus(b)), sum);
            assert_eq!(text(a.times(b)), product);
            assert_eq!(text(a.divided_by(b)), quotient);
        }
        assert_eq!(number("1.0").compare(number("1.00")), Some(Ordering::Equal));
        assert_eq!(number("-0.5").compare(number("0.25")), Some(Ordering::Less));
        let wide = number(&"9".repeat(38));
        assert_eq!((wide.times(wide), wide.plus(wide)), (None, None));
        assert_eq!(Decimal::parse(&"9".repeat(40)), None);
        assert_eq!(Decimal::new(i128::MIN, 0).negated(), None);
        assert_eq!(Decimal::new(i128::MIN, 0).divided_by(number("-1")), None);
        // A literal with as many digits as an expression may have.
        assert_eq!(number("1").divided_by(number(&format!("0.{}1", "0".repeat(65_534)))), None);
    }

    #[test]
    fn boundaries_are_half_a_digit_away() {
        for (value, low, high) in
            [("1.0", "0.95", "1.05"), ("1", "0.5", "1.5"), ("-1.5", "-1.55", "-1.45"), ("0", "-0.5", "0.5")]
        {
            assert_eq!(text(number(value).boundary(false)), low);
            assert_eq!(text(number(value).boundary(true)), high);
        }
        assert_eq!((number("1.00").as_integer(), number("1.5").as_integer()), (Some(1), None));
    }
}
