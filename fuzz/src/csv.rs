//! Rows of text: CSV, JSON, INSERTs and `_bulk` actions, each read back by its own rules.

use fhir_bulk_codec::rows::bulk::{Action, Actions};
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_codec::rows::json::{member_name, read_base64, write_base64, write_json, write_number, write_string};
use fhir_bulk_codec::rows::sql::{write_identifier, write_literal};
use serde_json::Value;

/// Checks fields, separated by zeros, after three bytes: the delimiter, the text for NULL, and which fields are NULL.
pub fn check(data: &[u8]) {
    let Some((&[delimiter, null, nulls], rest)) = data.split_first_chunk() else { return };
    let delimiter = char::from(delimiter).to_string();
    let null = ["", "NULL", "\\N", "a"][usize::from(null % 4)];
    let fields: Vec<Option<&[u8]>> = rest
        .split(|byte| *byte == 0)
        .enumerate()
        .map(|(at, field)| (nulls >> (at % 8) & 1 == 0).then_some(field))
        .collect();
    if let Ok(csv) = Csv::new(&delimiter, null) {
        let mut line = b"x".to_vec();
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                csv.delimiter(&mut line);
            }
            match field {
                Some(text) => csv.field(text, fields.len() == 1, &mut line),
                None => csv.null(&mut line),
            }
        }
        let read = by_definition(&line[1..], delimiter.as_bytes()[0], null);
        assert_eq!(read, fields.iter().map(|field| field.map(<[u8]>::to_vec)).collect::<Vec<_>>());
        let mut header = Vec::new();
        csv.header(fields.iter().map(|field| field.unwrap_or_default()), &mut header);
    }
    for field in fields.into_iter().flatten() {
        values(field);
    }
}

/// The fields of a line of CSV, as `COPY … FROM` reads them.
pub(crate) fn by_definition(line: &[u8], delimiter: u8, null: &str) -> Vec<Option<Vec<u8>>> {
    let (mut fields, mut at) = (Vec::new(), 0);
    loop {
        let (mut field, mut is_quoted, mut is_open) = (Vec::new(), false, false);
        while at < line.len() && (is_open || line[at] != delimiter) {
            match line[at] {
                b'"' if is_open && line.get(at + 1) == Some(&b'"') => {
                    field.push(b'"');
                    at += 1;
                }
                b'"' => {
                    is_open = !is_open;
                    is_quoted = true;
                }
                byte => {
                    assert!(is_open || !b"\r\n".contains(&byte), "an end of a line without quotes");
                    field.push(byte);
                }
            }
            at += 1;
        }
        assert!(!is_open, "a quote is open");
        fields.push((is_quoted || field != null.as_bytes()).then_some(field));
        if at == line.len() {
            return fields;
        }
        at += 1;
    }
}

fn values(bytes: &[u8]) {
    let mut out = Vec::new();
    write_base64(bytes, &mut out);
    let text = str::from_utf8(&out[1..out.len() - 1]).expect("base64 is ASCII");
    assert_eq!(read_base64(text).as_deref(), Some(bytes));
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Some(read) = read_base64(text) {
        let mut again = Vec::new();
        write_base64(&read, &mut again);
        assert_eq!(read_base64(str::from_utf8(&again[1..again.len() - 1]).expect("ASCII")), Some(read));
    }
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8 stays UTF-8")
    };
    let string = written(&|out| write_string(bytes, out));
    assert_eq!(serde_json::from_str::<Value>(&string).ok(), Some(Value::from(text)));
    assert_eq!(String::from_utf8(member_name(text)).ok(), Some(format!("{string}:")));
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let line = written(&|out| write_json(bytes, out));
        assert!(!line.contains(['\n', '\r']) && serde_json::from_str::<Value>(&line).ok() == Some(value));
    }
    let number = written(&|out| write_number(bytes, out));
    assert!(number == text || number == string);
    quoted(text, &written(&|out| write_identifier(text, out)), '"', false);
    let literal = written(&|out| write_literal(bytes, out));
    match literal.strip_prefix('E') {
        Some(literal) => quoted(text, literal, '\'', true),
        None => {
            assert!(!literal.contains('\\'), "a backslash that may or may not be one");
            quoted(text, &literal, '\'', false);
        }
    }
    if let Ok(actions) = Actions::new(Action::Index, text) {
        let line = written(&|out| actions.line(Some(bytes), out));
        let action: Value = serde_json::from_str(&line).expect("an action is JSON");
        assert!(
            line.trim_end().lines().count() == 1 && action["index"]["_id"] == text && action["index"]["_index"] == text
        );
    }
}

/// Whether `written` is `text` in quotes, which are doubled in it, as backslashes are if they are special.
fn quoted(text: &str, written: &str, quote: char, has_escapes: bool) {
    let inner = written.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).expect("quotes around it");
    let mut characters = inner.chars();
    let mut read = String::new();
    while let Some(character) = characters.next() {
        if character == quote || has_escapes && character == '\\' {
            assert_eq!(characters.next(), Some(character), "{written}");
        }
        read.push(character);
    }
    assert_eq!(read, text);
}
