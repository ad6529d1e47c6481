//! Lines that must not be loaded: the reason a user reads, and the byte it points to.

mod common;

use common::encode;
use fhir_bulk_codec::Reason;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::jsonb::MAX_DEPTH;

/// Every kind of token, escapes and nesting.
const DOCUMENT: &str = r#"{"id":"x","a":[1,-2.5e+3,true,false,null,"é\n\u00e9\ud83d\ude00\"\\"],"b":{"c":{},"d":[]}}"#;

fn refusal(line: impl AsRef<[u8]>) -> Option<(Reason, usize)> {
    encode(IdRule::Aidbox, line).err().map(|error| (error.reason, error.offset))
}

#[track_caller]
fn syntax(line: &str, offset: usize) {
    match refusal(line) {
        Some((Reason::Syntax(_), found)) => assert_eq!(found, offset, "{line}"),
        other => panic!("{line}: {other:?}"),
    }
}

/// Puts a value where a member's value belongs; it starts at byte 14.
fn line(value: &str) -> String {
    format!("{{\"id\":\"x\",\"a\":{value}}}")
}

#[test]
fn a_download_that_broke_off_is_refused_wherever_it_broke() {
    assert_eq!(refusal(DOCUMENT), None);
    for length in 0..DOCUMENT.len() {
        let cut = &DOCUMENT.as_bytes()[..length];
        match refusal(cut) {
            Some((Reason::Syntax(_), offset)) => assert!(offset <= length, "cut at {length}: byte {offset}"),
            Some((Reason::Encoding, offset)) => assert!(std::str::from_utf8(&cut[..offset]).is_ok()),
            // Cut between the two halves of 😀.
            Some((Reason::LoneSurrogate, _)) => assert!(cut.strip_suffix(b"\\").unwrap_or(cut).ends_with(b"\\ud83d")),
            other => panic!("cut at {length}: {other:?}"),
        }
    }
}

#[test]
fn one_byte_too_many_is_refused_wherever_it_stands() {
    for at in 0..DOCUMENT.len() {
        let mut line = DOCUMENT.as_bytes().to_vec();
        line.insert(at, 0x01);
        assert!(refusal(&line).is_some(), "control character at {at}");
    }
}

#[test]
fn numbers_that_json_does_not_have_are_refused() {
    for (number, offset) in [
        ("01", 14),
        ("-01", 14),
        ("00", 14),
        ("1.", 16),
        (".5", 14),
        ("-.5", 15),
        ("+1", 14),
        ("-", 15),
        ("1e", 16),
        ("1e+", 17),
        ("1.e1", 16),
        ("1.5.5", 17),
        ("1e5.5", 17),
        ("0x1F", 15),
        ("1a", 15),
        ("1_000", 15),
        ("--1", 15),
        ("NaN", 14),
        ("Infinity", 14),
        ("-Infinity", 15),
    ] {
        syntax(&line(number), offset);
    }
}

#[test]
fn words_that_json_does_not_have_are_refused() {
    for word in ["truex", "true1", "true_", "True", "nul", "nulll", "undefined", "'a'", "tru", "fals"] {
        syntax(&line(word), 14);
    }
}

#[test]
fn missing_and_surplus_punctuation_is_refused() {
    for (text, offset) in [
        (r#"{"id" "x"}"#, 6),
        (r#"{"id":"x" "a":1}"#, 10),
        (r#"{"id":"x",}"#, 10),
        (r#"{"id":"x","a":1,}"#, 16),
        (r#"{,"id":"x"}"#, 1),
        (r#"{"id":"x","a":}"#, 14),
        (r#"{"id":"x","a"}"#, 13),
        (r#"{"id":"x",a:1}"#, 10),
        (r#"{"id":"x",1:1}"#, 10),
        (r#"{"id":"x","a":[1,]}"#, 17),
        (r#"{"id":"x","a":[,1]}"#, 15),
        (r#"{"id":"x","a":[1 2]}"#, 17),
        (r#"{"id":"x","a":[1}"#, 16),
        (r#"{"id":"x","a":{"b":1]"#, 20),
        (r#"{"id":"x","a"::1}"#, 14),
        (r#"{"id":"x","a":1,,"b":2}"#, 16),
        (r#"{"id":"x"]"#, 9),
        ("}", 0),
        ("é", 0),
        ("\u{FEFF}{\"id\":\"x\"}", 0),
        ("{\"id\":\"x\"/* comment */}", 9),
        ("{\"id\":\"x\",\u{A0}\"a\":1}", 10),
    ] {
        syntax(text, offset);
    }
}

#[test]
fn strings_with_raw_control_characters_are_refused() {
    for control in 1..0x20u8 {
        // In strings of every length around the block that is looked at as one.
        for length in 0..20 {
            let text = format!("\"{}{}{}\"", "x".repeat(length), control as char, "y".repeat(20));
            syntax(&line(&text), 15 + length);
        }
    }
    assert_eq!(refusal(line("\"a\0\"")), Some((Reason::NulCharacter, 16)));
    assert_eq!(refusal(line("\"\u{7F}\"")), None);
}

#[test]
fn escapes_that_json_does_not_have_are_refused() {
    for (text, offset) in [
        (r#""\a""#, 15),
        (r#""\x41""#, 15),
        (r#""\'""#, 15),
        (r#""\U0041""#, 15),
        (r#""\u004""#, 20),
        (r#""\u00g0""#, 19),
        (r#""\u{41}""#, 17),
        (r#""\u 041""#, 17),
        (r#""\u+041""#, 17),
        (r#""xyz\é""#, 18),
    ] {
        syntax(&line(text), offset);
    }
}

#[test]
fn text_that_postgresql_cannot_store_is_refused_with_its_own_reason() {
    for (text, reason, offset) in [
        (r#""a\u0000""#, Reason::NulCharacter, 16),
        (r#""\ud800""#, Reason::LoneSurrogate, 15),
        (r#""a\ud800b""#, Reason::LoneSurrogate, 16),
        (r#""\ud800\n""#, Reason::LoneSurrogate, 15),
        (r#""\ud800\u0041""#, Reason::LoneSurrogate, 15),
        (r#""\ud800\ud800""#, Reason::LoneSurrogate, 15),
        (r#""\udbff\ue000""#, Reason::LoneSurrogate, 15),
        (r#""\udbff\udbff""#, Reason::LoneSurrogate, 15),
        (r#""\udc00""#, Reason::LoneSurrogate, 15),
        (r#""\udc00\ud800""#, Reason::LoneSurrogate, 15),
        (r#"{"\u0000":1}"#, Reason::NulCharacter, 16),
        (r#"{"\udfff":1}"#, Reason::LoneSurrogate, 16),
    ] {
        assert_eq!(refusal(line(text)), Some((reason, offset)), "{text}");
    }
    for text in [r#""\ud7ff\ue000""#, r#""\ud800\udc00\udbff\udfff""#, r#""\uFFFF\u0001""#] {
        assert_eq!(refusal(line(text)), None, "{text}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused_where_they_start() {
    for bytes in [
        &b"\xFF"[..],
        b"\x80",
        b"\xC3",
        b"\xC0\xAF",
        b"\xE2\x82",
        b"\xED\xA0\x80",
        b"\xF0\x8F\xBF\xBF",
        b"\xF4\x90\x80\x80",
        b"\xF8\x88\x80\x80\x80",
    ] {
        for length in [0, 1, 15, 16, 40, 100] {
            let before = [b"{\"id\":\"x\",\"a\":\"".to_vec(), vec![b'x'; length]].concat();
            let line = [&before[..], bytes, b"\"}"].concat();
            assert_eq!(refusal(line), Some((Reason::Encoding, before.len())));
        }
    }
}

#[test]
fn a_second_value_on_the_line_is_refused_and_space_is_not() {
    for (rest, offset) in [("{}", 10), (" {\"id\":\"y\"}", 11), (",", 10), ("}", 10), ("\t1", 11), ("\0", 10)] {
        let line = format!("{{\"id\":\"x\"}}{rest}");
        assert_eq!(refusal(line), Some((Reason::TrailingData, offset)), "{rest}");
    }
    assert_eq!(refusal(" \t{ \"id\" : \"x\" } \r"), None);
}

#[test]
fn what_is_no_object_is_refused() {
    for text in ["[]", "[{\"id\":\"x\"}]", "\"x\"", "1", "-1", "true", "false", "null"] {
        assert_eq!(refusal(text), Some((Reason::NotAnObject, 0)), "{text}");
    }
}

#[test]
fn nesting_is_allowed_to_its_limit_and_refused_beyond() {
    let nested = |levels: usize| line(&format!("{}{}", "[".repeat(levels - 1), "]".repeat(levels - 1)));
    assert_eq!(refusal(nested(MAX_DEPTH)), None);
    assert_eq!(refusal(nested(MAX_DEPTH + 1)), Some((Reason::TooDeep, 14 + MAX_DEPTH - 1)));
    let objects = |levels: usize| line(&format!("{}1{}", "{\"a\":".repeat(levels - 1), "}".repeat(levels - 1)));
    assert_eq!(refusal(objects(MAX_DEPTH)), None);
    assert!(matches!(refusal(objects(MAX_DEPTH + 1)), Some((Reason::TooDeep, _))));
    // Not closed, and far too many.
    assert!(matches!(refusal(line(&"[".repeat(1_000_000))), Some((Reason::TooDeep, _))));
}

#[test]
fn a_refused_line_leaves_nothing_behind_for_the_next() {
    let mut encoder = fhir_bulk_codec::resource::Encoder::new(IdRule::Aidbox, common::CREATED_AT_URL);
    let expected = encode(IdRule::Aidbox, DOCUMENT).unwrap();
    let bad = r#"{"id":"y","meta":{"createdAt":"2020-01-01T00:00:00Z"},"z":[{"\n":["\t",12.5,{"a":"#;
    for length in 0..bad.len() {
        assert!(encoder.encode(&bad.as_bytes()[..length]).is_err());
        assert_eq!(common::encode_with(&mut encoder, DOCUMENT.as_bytes()).unwrap(), expected);
    }
}

/// Takes gigabytes: `FHIR_BULK_LARGE_TESTS=1 cargo test -p fhir_bulk_codec what_jsonb`.
#[test]
fn what_jsonb_has_no_room_for_is_refused() {
    if std::env::var_os("FHIR_BULK_LARGE_TESTS").is_none() {
        println!("skipped: no FHIR_BULK_LARGE_TESTS");
        return;
    }
    let half = "x".repeat(134_217_730);
    assert_eq!(refusal(line(&format!("[\"{half}\"]"))), None);
    assert_eq!(refusal(line(&format!("[\"{half}\",\"{half}\"]"))), Some((Reason::TooLarge, 0)));
    // 67 million JEntries of nothing, and 25 million of a number each.
    assert_eq!(refusal(line(&format!("[{}0]", "\"\",".repeat(67_200_000)))), Some((Reason::TooLarge, 0)));
    assert_eq!(refusal(line(&format!("[{}0]", "[1],".repeat(25_000_000)))), Some((Reason::TooLarge, 0)));
}
