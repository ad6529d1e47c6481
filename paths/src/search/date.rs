//! `date` parameters: ranges of time against ranges of time.

use super::value::{Prefix, Refused, shown};
use crate::item::{Item, Value};
use crate::model::TypeId;
use fhir_bulk_codec::instant::{Micros, range};
use fhir_bulk_codec::jsonb::walk::Container;

/// A wanted time.
#[derive(Clone, Debug, PartialEq)]
pub struct Date {
    pub prefix: Prefix,
    /// Its first microsecond, and the first one after it.
    pub from: Micros,
    pub until: Micros,
}

/// From the first to before the last; what has no start or end goes on for ever.
type Span = (Micros, Micros);

const ALWAYS: Span = (Micros::MIN, Micros::MAX);

impl Date {
    /// # Errors
    /// What is not a date or time.
    pub fn new(value: &str) -> Result<Date, Refused> {
        let (prefix, time) = Prefix::of(value)?;
        let (from, until) = range(time).ok_or_else(|| {
            Refused::invalid(format!("\"{}\" is not a date or time", shown(time))).hint(
                "Dates are YYYY, YYYY-MM or YYYY-MM-DD, times YYYY-MM-DDThh:mm with seconds and an offset if wanted.",
            )
        })?;
        Ok(Date { prefix, from, until })
    }

    /// Whether an item is at such a time: a date or time, a Period, or the outer limits of a Timing.
    pub fn matches(&self, item: &Item<'_>) -> bool {
        span(item).is_some_and(|span| self.is(span))
    }

    fn is(&self, (from, until): Span) -> bool {
        let within = self.from <= from && until <= self.until;
        match self.prefix {
            Prefix::Equal => within,
            Prefix::NotEqual => !within,
            Prefix::Greater => until > self.until,
            Prefix::Less => from < self.from,
            Prefix::GreaterOrEqual => until > self.until || within,
            Prefix::LessOrEqual => from < self.from || within,
            Prefix::StartsAfter => from >= self.until,
            Prefix::EndsBefore => until <= self.from,
        }
    }
}

fn span(item: &Item<'_>) -> Option<Span> {
    if let Value::Instant(at) = item.value {
        return Some((at, at.saturating_add(1)));
    }
    match item.text() {
        // Elements that may also be words, such as `performed[x]`.
        Some(_) if item.type_id == TypeId::STRING => None,
        Some(text) => time(text),
        None => item.object().and_then(|object| period(object.clone()).or_else(|| timing(object))),
    }
}

fn time(text: &[u8]) -> Option<Span> {
    str::from_utf8(text).ok().and_then(range)
}

/// A Period; `None` if it has neither end.
fn period(object: Container<'_>) -> Option<Span> {
    let end = |name: &[u8]| object.clone().member(name).and_then(|value| value.string()).map(time);
    let (start, end) = (end(b"start"), end(b"end"));
    if start.is_none() && end.is_none() {
        return None;
    }
    let span = (start.map_or(Some(ALWAYS.0), |time| Some(time?.0))?, end.map_or(Some(ALWAYS.1), |time| Some(time?.1))?);
    // What ends before it starts is at no time.
    (span.0 < span.1).then_some(span)
}

/// The outer limits of a Timing: of its events, else of its bounds.
fn timing<'j>(object: Container<'j>) -> Option<Span> {
    let outer = |a: Option<Span>, b: Span| Some(a.map_or(b, |a| (a.0.min(b.0), a.1.max(b.1))));
    let mut events = None;
    if let Some(event) = object.clone().member(b"event") {
        let mut array = event.container().filter(|container| !container.is_object()).unwrap_or(Container::empty());
        if let Some(at) = event.string().and_then(time) {
            events = Some(at);
        }
        while let Some(at) = array.next_element() {
            if let Some(at) = at.string().and_then(time) {
                events = outer(events, at);
            }
        }
    }
    events.or_else(|| {
        let inner = |object: Container<'j>, name: &[u8]| object.member(name)?.container().filter(Container::is_object);
        inner(inner(inner(object, b"repeat")?, b"bounds")?, b"Period").and_then(period)
    })
}
