//! Walks over jsonb that no encoder of ours made: by position and by name, they find what is there, and nothing else.

use crate::reference;
use fhir_bulk_codec::jsonb::numeric::write_text;
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::jsonb::walk::{Container, Name, Shape, Value as Found};
use fhir_bulk_codec::rows::csv::Csv;
use serde_json::{Map, Value};

/// Checks the jsonb of a value.
pub fn check(value: &Value, jsonb: &[u8]) {
    let root = Container::new(jsonb);
    assert_eq!(root.is_scalar(), !value.is_object() && !value.is_array());
    for (spacing, spaced) in [(Spacing::Postgres, true), (Spacing::Compact, false)] {
        let (mut ours, mut theirs) = (Vec::new(), String::new());
        TextWriter::new(spacing).write(jsonb, &mut ours);
        reference::text(value, spaced, &mut theirs).expect("its jsonb was made");
        assert!(ours == theirs.as_bytes(), "{} is written as {}", theirs, String::from_utf8_lossy(&ours));
    }
    match value {
        Value::Object(members) => object(members, root),
        Value::Array(elements) => array(elements, root),
        scalar => array(std::slice::from_ref(scalar), root),
    }
}

fn array(elements: &[Value], mut container: Container<'_>) {
    assert!(!container.is_object());
    for element in elements {
        found(element, container.next_element().expect("an element"));
    }
    assert!(container.next_element().is_none());
}

fn object(members: &Map<String, Value>, mut container: Container<'_>) {
    assert!(container.is_object());
    let whole = container.clone();
    let mut in_order: Vec<_> = members.iter().collect();
    in_order.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
    let mut named = container.clone();
    for (name, value) in in_order {
        let (stored, item) = container.next_member().expect("a member");
        assert_eq!(stored.as_bytes(), name.as_bytes());
        found(value, item);
        found(value, whole.clone().member(name.as_bytes()).expect("a member by its name"));
        // Names that are not there, on the way to one that is.
        let absent = format!("{name}\u{0}");
        assert!(members.contains_key(&absent) || whole.clone().member(absent.as_bytes()).is_none());
        assert!(Name::new(name).order(stored).is_eq());
        if let Some(before) = name.get(1..).filter(|before| !members.contains_key(*before)) {
            assert!(named.next_named(&Name::new(before)).is_none() && Name::new(before).order(stored).is_gt());
        }
        found(value, named.next_named(&Name::new(name)).expect("a member in order"));
    }
    assert!(container.next_member().is_none() && named.next_named(&Name::new("")).is_none());
}

fn found(value: &Value, item: Found<'_>) {
    let shape = match value {
        Value::Null => Shape::Null,
        Value::Object(_) => Shape::Object,
        Value::Array(_) => Shape::Array,
        _ => Shape::Scalar,
    };
    assert_eq!((item.shape(), item.is_null()), (shape, value.is_null()));
    assert_eq!(item.boolean(), value.as_bool());
    assert_eq!(item.string(), value.as_str().map(str::as_bytes));
    let number = item.number().map(|bytes| {
        let mut text = Vec::new();
        write_text(bytes, &mut text);
        String::from_utf8(text).expect("digits")
    });
    assert_eq!(number, value.as_number().and_then(|number| reference::numeric_text(number.as_str())));
    // As a field of CSV, which structures and nulls are not.
    let mut field = Vec::new();
    let is_field = Csv::new("\t", "").expect("a tab").value(item, true, &mut field);
    assert_eq!(is_field, shape == Shape::Scalar);
    if let Some(text) = number.or(value.as_bool().map(|value| value.to_string())) {
        assert_eq!(field, text.as_bytes());
    }
    match (value, item.container()) {
        (Value::Object(members), Some(container)) => object(members, container),
        (Value::Array(elements), Some(container)) => array(elements, container),
        (_, container) => assert!(container.is_none()),
    }
}
