//! jsonb beside PostgreSQL's own: the codec's bytes of a text are `jsonb_in`'s, or both refuse it; its text of bytes is
//! `jsonb_out`'s, also of documents that no encoder of ours has made. Documents are random. `scripts/fuzz.sh server` tries many.

use crate::documents::Random;
use crate::server::text;
use fhir_bulk_codec::error::{IdRule, Reason};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_pg::cursor::Cursor;
use fhir_bulk_pg::error::or_raise;
use fhir_bulk_pg::spi::Parameter;
use pgrx::{pg_schema, pg_sys};
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;

/// A jsonb, and its text by `jsonb_out`.
struct Theirs {
    bytes: Vec<u8>,
    text: String,
}

/// The one row of a query of a jsonb and its text; `None` for NULL.
fn row(query: &CStr, parameters: &[Parameter]) -> Option<Theirs> {
    let mut found = None;
    let mut cursor = Cursor::open(query, parameters);
    or_raise(cursor.fetch(|row| {
        found =
            row.jsonb(0).zip(row.text(1)).map(|(bytes, text)| Theirs { bytes: bytes.to_vec(), text: text.to_owned() });
        Ok(ControlFlow::Continue(()))
    }));
    cursor.close();
    found
}

/// `jsonb_in` of a text. An error of it is one of class 22 or 54.
fn read(text: &[u8]) -> Result<Theirs, String> {
    let text = CString::new(text).expect("no zero byte");
    match Parameter::read(pg_sys::JSONBOID, Some(&text)) {
        Ok(value) => Ok(row(c"SELECT $1, $1::text", &[value]).expect("a value")),
        Err(error) => {
            let sqlstate = error.sqlstate().to_owned();
            assert!(sqlstate.starts_with("22") || sqlstate.starts_with("54"), "{sqlstate}");
            Err(sqlstate)
        }
    }
}

/// What a load stores of `{"v": text}`.
fn ours(text: &[u8]) -> Result<Vec<u8>, Reason> {
    let line = [b"{\"id\":\"x\",\"v\":", text, b"}"].concat();
    let mut encoder = Encoder::new(IdRule::Aidbox, "");
    let encoded = encoder.encode(&line).map_err(|error| error.reason)?;
    let mut bytes = Vec::new();
    encoded.write(&mut bytes).map_err(|error| error.reason)?;
    Ok(bytes)
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(2000)]).into_owned()
}

/// Whether our text of a document is theirs, and the text is stored as the same bytes.
fn is_written_alike(theirs: &Theirs) {
    let mut text = Vec::new();
    TextWriter::new(Spacing::Postgres).write(&theirs.bytes, &mut text);
    assert!(text == theirs.text.as_bytes(), "{} is written as {}", theirs.text, shown(&text));
}

/// A text that may be JSON: equal bytes, or both refuse it. Returns whether it is stored.
fn is_read_alike(document: &[u8]) -> bool {
    let ours = ours(document);
    // A text with a zero byte has no C string, and one that is not UTF-8 is refused before it comes to jsonb.
    if document.contains(&0) || str::from_utf8(document).is_err() {
        assert!(ours.is_err(), "{} is stored", shown(document));
        return false;
    }
    if ours == Err(Reason::TooDeep) {
        assert!(document.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() >= 999, "{}", shown(document));
        return false;
    }
    let theirs = read(&[b"{\"v\":", document, b"}"].concat());
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            // A text may close the object and go on: then it has an id of its own.
            let theirs = if theirs.text.contains("\"id\": ") { without_identity(theirs) } else { theirs };
            assert!(ours == theirs.bytes, "other bytes for {}", shown(document));
            is_written_alike(&theirs);
            true
        }
        (Err(_), Err(_)) => false,
        (Ok(_), Err(sqlstate)) => panic!("{} is stored; jsonb_in: {sqlstate}", shown(document)),
        (Err(reason), Ok(_)) => {
            // The members that a row has as columns have rules of their own.
            assert!(has_identity(document), "{} is refused: {reason}", shown(document));
            false
        }
    }
}

/// Whether a text has the names of members that a row has as columns.
fn has_identity(document: &[u8]) -> bool {
    [&b"\"id\""[..], b"meta", b"resourceType"].iter().any(|name| document.windows(name.len()).any(|part| part == *name))
}

fn without_identity(theirs: Theirs) -> Theirs {
    let text = CString::new(theirs.text).expect("text has no zero byte");
    let value = or_raise(Parameter::read(pg_sys::JSONBOID, Some(&text)));
    row(c"SELECT $1 - 'id'::text, ($1 - 'id'::text)::text", &[value]).expect("a value")
}

/// Expressions of jsonb: `$1` and `$2` are documents, `$3` is a numeric.
const MADE: [&CStr; 26] = [
    c"$1 || $2",
    c"$2 || $1 || $1",
    c"jsonb_build_array($1, $2, $3, NULL)",
    c"jsonb_build_object('a', $1, 'b', $2, 'bb', $3, '', $1)",
    c"jsonb_set(jsonb_build_object('a', $1), '{a,0}', $2, true)",
    c"jsonb_insert(jsonb_build_array($1, $2), '{1}', to_jsonb($3))",
    c"jsonb_build_array($1, $2) - 0",
    c"$1 - 'a'",
    c"$1 #- '{a,b}'",
    c"jsonb_strip_nulls($1)",
    c"to_jsonb(ARRAY[$3, $3 / 3, $3 * $3, -$3, 0])",
    c"to_jsonb($3 * 1e-100)",
    c"to_jsonb(round($3, 3))",
    c"to_jsonb(trim_scale($3))",
    c"to_jsonb($3 * 0)",
    c"to_jsonb(power(10::numeric, 300) + $3)",
    c"to_jsonb(power(2::numeric, 400) / 7)",
    c"to_jsonb(sqrt(abs($3)))",
    c"to_jsonb(mod($3, 7))",
    c"to_jsonb(ARRAY['NaN'::numeric, 1e-300, 'NaN'])",
    c"to_jsonb($3::float8)",
    c"to_jsonb(ARRAY['2020-02-29 12:00:00.5+01'::timestamptz, 'infinity'])",
    c"to_jsonb(row($1, $3, 'a', true, ARRAY[[1, 2], [3, NULL]]))",
    c"(SELECT jsonb_agg(value) FROM generate_series(1, 40) n, jsonb_build_array($1, n, $3) AS value)",
    c"(SELECT jsonb_object_agg('k' || n, $2) FROM generate_series(1, 70) n)",
    c"jsonb_path_query_array($1, '$.** ? (@ != null)')",
];

/// A document that PostgreSQL makes of others.
fn is_made_and_written_alike(random: &mut Random) {
    let mut value = |type_oid, make: &dyn Fn(&mut Random) -> Vec<u8>| loop {
        let text = make(random);
        let Ok(text) = CString::new(text) else { continue };
        if text.to_str().is_err() {
            continue;
        }
        if let Ok(value) = Parameter::read(type_oid, Some(&text)) {
            break value;
        }
    };
    let document = |random: &mut Random| random.document();
    let first = value(pg_sys::JSONBOID, &document);
    let second = value(pg_sys::JSONBOID, &document);
    // Larger ones overflow in half of the expressions.
    let small = |random: &mut Random| {
        let number = random.number();
        let is_small = number.split_once(['e', 'E']).is_none_or(|(_, exponent)| exponent.len() < 4);
        if is_small { number.into_bytes() } else { b"1.500".to_vec() }
    };
    let number = value(pg_sys::NUMERICOID, &small);
    let expression = random.pick(&MADE).to_str().expect("ASCII");
    let query =
        CString::new(format!("SELECT j, j::text FROM (SELECT {expression} AS j) AS made")).expect("no zero byte");
    let made = fhir_bulk_pg::subtransaction::unless(
        &[
            // Of a scalar there is nothing to take away, and of an array no name.
            pgrx::PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            pgrx::PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            pgrx::PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
        ],
        || row(&query, &[first, second, number]),
    );
    if let Some(theirs) = made.flatten() {
        is_written_alike(&theirs);
    }
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::{pg_extern, pg_test};

    /// Tries so many documents of a seed. Returns how many were stored.
    #[pg_extern]
    fn documents(seed: i64, count: i32) -> i64 {
        let mut random = Random(seed as u64);
        let mut stored = 0;
        for _ in 0..count {
            let document = random.document();
            stored += i64::from(is_read_alike(&document));
        }
        for _ in 0..count / 4 {
            is_made_and_written_alike(&mut random);
        }
        stored
    }

    #[pg_test]
    fn random_documents_have_the_bytes_of_jsonb_in_and_the_text_of_jsonb_out() {
        let setting = |name: &str, default: i64| {
            let value = text(&format!("SELECT coalesce(nullif(current_setting('{name}', true), ''), '{default}')"));
            value.parse::<i64>().expect("a number")
        };
        let (seed, hundreds) = (setting("fuzz.seed", 1), setting("fuzz.hundreds", 40));
        // Each row's memory is given back.
        let stored = text(&format!(
            "SELECT sum(tests.documents({seed}::bigint * 1000003 + n, 100))::text FROM generate_series(1, {hundreds}) n"
        ));
        let stored: i64 = stored.parse().expect("a number");
        assert!(stored > 30 * hundreds, "only {stored} of {hundreds} hundred documents were JSON");
    }
}
