//! Numbers and times with which views compute: the laws of arithmetic, and of what a precision leaves open.

use crate::reference;
use fhir_bulk_paths::decimal::Decimal;
use fhir_bulk_paths::temporal::Temporal;
use std::cmp::Ordering;

/// Checks two numbers or times, separated by a space.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (first, second) = text.split_once(' ').unwrap_or((text, "2.5"));
    if let (Some(a), Some(b)) = (decimal(first), decimal(second)) {
        decimals(a, b);
    }
    if let (Some(a), Some(b)) = (Temporal::parse(first.as_bytes()), Temporal::parse(second.as_bytes())) {
        assert_eq!(a.compare(&b), b.compare(&a).map(Ordering::reverse), "{text}");
        assert!(matches!(a.compare(&a), Some(Ordering::Equal)), "{first}");
        boundaries(first, a);
    }
}

/// A number, which may have a sign.
fn decimal(text: &str) -> Option<Decimal> {
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let read = Decimal::parse(digits)?;
    let mut written = Vec::new();
    read.write(&mut written);
    let written = String::from_utf8(written).expect("digits");
    let again = Decimal::parse(&written).unwrap_or_else(|| panic!("{digits} is written as {written}"));
    assert_eq!((again.whole(), again.scale()), (read.whole(), read.scale()), "{digits} is written as {written}");
    // As it is stored, where JSON has it.
    if let Some(stored) = reference::numeric_text(&written).map(|text| reference::numeric(&text)) {
        let stored = Decimal::of_numeric(&stored[4..]).map(|stored| (stored.whole(), stored.scale()));
        assert!(stored.is_none_or(|stored| stored == (read.whole(), read.scale())), "{digits}");
    }
    if is_negative { read.negated() } else { Some(read) }
}

fn decimals(a: Decimal, b: Decimal) {
    let same = |a: Option<Decimal>, b: Option<Decimal>| match (a, b) {
        (Some(a), Some(b)) => a.compare(b).is_none_or(Ordering::is_eq),
        // What has too many digits in between has no result.
        _ => true,
    };
    assert_eq!(a.compare(b), b.compare(a).map(Ordering::reverse));
    assert!(same(a.plus(b), b.plus(a)) && same(a.times(b), b.times(a)));
    if let Some(sum) = a.plus(b) {
        assert!(same(b.negated().and_then(|b| sum.plus(b)), Some(a)), "{a:?} + {b:?} - {b:?}");
    }
    if let Some(product) = a.times(b)
        && b.whole() != 0
        && a.scale() <= 16
    {
        assert!(same(product.divided_by(b), Some(a)), "{a:?} * {b:?} / {b:?}");
    }
    if let Some(quotient) = a.divided_by(b) {
        assert!(quotient.scale() <= 16 && (quotient.scale() == 0 || quotient.whole() % 10 != 0), "{quotient:?}");
        // Rounded by half a unit of the last of sixteen digits at most.
        let wrong = quotient.times(b).and_then(|back| back.plus(a.negated()?));
        let most = b.times(Decimal::new(5, 17));
        let size = |number: Decimal| if number.whole() < 0 { number.negated() } else { Some(number) };
        if let (Some(wrong), Some(most)) = (wrong.and_then(size), most.and_then(size)) {
            assert!(wrong.compare(most).is_none_or(Ordering::is_le), "{a:?} / {b:?} is {quotient:?}");
        }
    }
    for (high, order) in [(false, Ordering::Less), (true, Ordering::Greater)] {
        if let Some(bound) = a.boundary(high) {
            assert!(bound.compare(a).is_none_or(|found| found == order), "{a:?}");
        }
    }
    if let Some(whole) = a.as_integer() {
        assert!(a.compare(Decimal::new(whole.into(), 0)).is_none_or(Ordering::is_eq), "{a:?}");
    }
}

/// A time is between its boundaries, as far as it tells.
fn boundaries(text: &str, time: Temporal) {
    let is_time = text.starts_with('T') || text.get(2..3) == Some(":");
    for is_date in [false, true] {
        let bounds = [false, true].map(|high| time.boundary(high, is_date));
        let [low, high] = bounds.each_ref().map(|bound| {
            let read = Temporal::parse(bound.as_bytes());
            read.unwrap_or_else(|| panic!("{text}: {}", String::from_utf8_lossy(bound.as_bytes())))
        });
        // An impossible day, which is read, may be before the first or after the last one of its month.
        if text.get(8..10).is_none_or(|day| day <= "28") || is_time {
            assert!(low.compare(&high).is_none_or(Ordering::is_le), "{text}");
        }
    }
}
