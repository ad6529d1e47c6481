//! Input that cannot be loaded: the error says which line of which source and why, with a SQLSTATE of bad data or
//! of a limit; nothing is loaded, no table is made, and the session goes on.

use crate::support::{count, fails, load, load_fails, patient, patients, relations, rows, run};
use fhir_bulk_tests::{Client, Database, DbError, gzip};

/// The bad line comes after this many good ones: more than a batch, so that rows have been written already.
const BEFORE: usize = 1501;
const LINE: &str = "line 1502 ";

/// Runs a load that must fail, with all ways to call it, and asserts what holds for all bad input.
fn refused(database: &Database, client: &mut Client, name: &str, content: &[u8], fhir: bool) -> DbError {
    let tables = relations(client);
    let mut last = None;
    for (compressed, typed) in [(false, true), (true, false)] {
        let url = database.file("bad.ndjson", if compressed { gzip(content) } else { content.to_vec() });
        let resource_type = if typed { "'Patient'" } else { "NULL" };
        let error = load_fails(client, &url, &format!("{resource_type}, {fhir}"));
        let class = &error.code().code()[..2];
        assert!(["22", "54"].contains(&class), "{name}: {error:?}");
        assert!(error.message().contains(LINE), "{name}: no line number in {error:?}");
        assert!(error.message().contains(&url), "{name}: no source in {error:?}");
        assert_eq!(relations(client), tables, "{name}: a table was made");
        last = Some(error);
    }
    assert_eq!(rows(client, "SELECT 1"), ["1"]);
    last.unwrap()
}

fn behind_good_lines(line: &[u8]) -> Vec<u8> {
    [patients(1..=BEFORE).as_bytes(), line, b"\n", patients(BEFORE + 1..=BEFORE + 10).as_bytes()].concat()
}

/// Lines that are bad in both forms.
const BAD_LINES: &[(&str, &str, &[u8])] = &[
    ("broken JSON", "22P02", br#"{"id":"x","resourceType":"Patient""#),
    ("a half line", "22P02", br#"{"id":"x","name":[{"fam"#),
    ("not JSON at all", "22P02", b"id,name"),
    ("single quotes", "22P02", b"{'id':'x'}"),
    ("a trailing comma", "22P02", br#"{"id":"x",}"#),
    ("a comma too much in an array", "22P02", br#"{"id":"x","a":[1,]}"#),
    ("a key without quotes", "22P02", br#"{id:"x"}"#),
    ("a bad escape", "22P02", br#"{"id":"x","a":"\x"}"#),
    ("a short escape", "22P02", br#"{"id":"x","a":"\u12"}"#),
    ("a raw control character", "22P02", b"{\"id\":\"x\",\"a\":\"\x01\"}"),
    ("a raw tab in a string", "22P02", b"{\"id\":\"x\",\"a\":\"\t\"}"),
    ("a leading zero", "22P02", br#"{"id":"x","a":01}"#),
    ("a lone point", "22P02", br#"{"id":"x","a":1.}"#),
    ("a plus sign", "22P02", br#"{"id":"x","a":+1}"#),
    ("NaN", "22P02", br#"{"id":"x","a":NaN}"#),
    ("a comment", "22P02", br#"{"id":"x"/**/}"#),
    ("two values", "22P02", br#"{"id":"x"} {"id":"y"}"#),
    ("two values without a space", "22P02", br#"{"id":"x"}{"id":"y"}"#),
    ("a comma behind", "22P02", br#"{"id":"x"},"#),
    ("a mark within", "22P02", b"\xEF\xBB\xBF{\"id\":\"x\"}"),
    ("a raw NUL", "22", b"{\"id\":\"x\",\"a\":\"\0\"}"),
    ("a NUL between", "22", b"{\"id\":\"x\",\0\"a\":1}"),
    ("an escaped NUL", "22P05", br#"{"id":"x","a":"\u0000"}"#),
    ("an escaped NUL in a key", "22P05", br#"{"id":"x","a\u0000":1}"#),
    ("an escaped NUL in the id", "22P05", br#"{"id":"x\u0000"}"#),
    ("bad UTF-8", "22021", b"{\"id\":\"x\",\"a\":\"\xFF\"}"),
    ("Latin-1", "22021", b"{\"id\":\"x\",\"a\":\"Zo\xEB\"}"),
    ("overlong UTF-8", "22021", b"{\"id\":\"x\",\"a\":\"\xC0\xAF\"}"),
    ("a surrogate in UTF-8", "22021", b"{\"id\":\"x\",\"a\":\"\xED\xA0\x80\"}"),
    ("beyond Unicode", "22021", b"{\"id\":\"x\",\"a\":\"\xF4\x90\x80\x80\"}"),
    ("a cut character", "22021", b"{\"id\":\"x\",\"a\":\"\xE2\x82\"}"),
    ("UTF-16", "22", b"{\0\"\0i\0d\0\"\0:\0\"\0x\0\"\0}\0"),
    ("a lone high surrogate", "22P02", br#"{"id":"x","a":"\ud83d"}"#),
    ("a lone low surrogate", "22P02", br#"{"id":"x","a":"\ude00 x"}"#),
    ("surrogates the wrong way round", "22P02", br#"{"id":"x","a":"\ude00\ud83d"}"#),
    ("a lone surrogate in a key", "22P02", br#"{"id":"x","\ud83d":1}"#),
    ("two high surrogates", "22P02", br#"{"id":"x","a":"\ud83d\ud83d"}"#),
    ("a number beyond numeric", "22003", br#"{"id":"x","a":1e131072}"#),
    ("digits beyond numeric", "22003", br#"{"id":"x","a":1e-16384}"#),
    ("an exponent beyond everything", "22003", br#"{"id":"x","a":1e99999999999999999999}"#),
    ("an array", "22023", b"[]"),
    ("an array of resources", "22023", br#"[{"id":"x"}]"#),
    ("a string", "22023", br#""x""#),
    ("a number", "22023", b"1"),
    ("null", "22023", b"null"),
    ("no id", "22023", b"{}"),
    ("no id either", "22023", br#"{"resourceType":"Patient","meta":{"id":"x"}}"#),
    ("an id that is a number", "22023", br#"{"id":1}"#),
    ("an id that is null", "22023", br#"{"id":null}"#),
    ("an id that is an object", "22023", br#"{"id":{}}"#),
    ("an id that is a list", "22023", br#"{"id":["x"]}"#),
    ("an empty id", "22023", br#"{"id":""}"#),
    ("a line break in the id", "22023", br#"{"id":"a\nb"}"#),
    ("a C1 control in the id", "22023", br#"{"id":"a\u0085b"}"#),
    ("a DEL in the id", "22023", b"{\"id\":\"a\x7Fb\"}"),
    ("the last of repeated ids is bad", "22023", br#"{"id":"x","id":7}"#),
    ("a resourceType that is a number", "22023", br#"{"id":"x","resourceType":1}"#),
    ("a resourceType that is null", "22023", br#"{"id":"x","resourceType":null}"#),
    ("meta that is a string", "22023", br#"{"id":"x","resourceType":"Patient","meta":"m"}"#),
    ("meta that is a list", "22023", br#"{"id":"x","resourceType":"Patient","meta":[]}"#),
    ("createdAt that is a number", "22", br#"{"id":"x","resourceType":"Patient","meta":{"createdAt":1}}"#),
    (
        "createdAt that is no instant",
        "22007",
        br#"{"id":"x","resourceType":"Patient","meta":{"createdAt":"yesterday"}}"#,
    ),
    ("createdAt without a time", "22007", br#"{"id":"x","resourceType":"Patient","meta":{"createdAt":"2021-01-01"}}"#),
    (
        "createdAt without an offset",
        "22007",
        br#"{"id":"x","resourceType":"Patient","meta":{"createdAt":"2021-01-01T00:00:00"}}"#,
    ),
    (
        "createdAt on no day",
        "22007",
        br#"{"id":"x","resourceType":"Patient","meta":{"createdAt":"2021-02-30T00:00:00Z"}}"#,
    ),
    ("createdAt that is infinite", "22007", br#"{"id":"x","resourceType":"Patient","meta":{"createdAt":"infinity"}}"#),
    (
        "a createdAt extension that is no instant",
        "22007",
        br#"{"id":"x","resourceType":"Patient","meta":{"extension":[{"url":"ex:createdAt","valueInstant":"now"}]}}"#,
    ),
];

#[test]
fn every_kind_of_bad_line_is_refused_with_its_number_and_leaves_nothing() {
    let database = Database::new();
    let mut client = database.connect();
    for (name, state, line) in BAD_LINES {
        for fhir in [false, true] {
            let error = refused(&database, &mut client, name, &behind_good_lines(line), fhir);
            assert!(error.code().code().starts_with(state), "{name}: {error:?}");
        }
    }
}

#[test]
fn a_bad_line_leaves_a_table_that_was_there_as_it_was() {
    let database = Database::new();
    let mut client = database.connect();
    let good = database.file("good.ndjson", patients(1..=100));
    load(&mut client, &good, "'Patient'");
    let state = "SELECT * FROM patient ORDER BY id";
    let before = rows(&mut client, state);
    for (name, _, line) in BAD_LINES {
        let url = database.file("bad.ndjson", behind_good_lines(line));
        let error = load_fails(&mut client, &url, "'Patient'");
        assert!(error.message().contains(LINE), "{name}: {error:?}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 100, "{name}");
    }
    assert_eq!(rows(&mut client, state), before);
    assert_eq!(load(&mut client, &good, "'Patient'"), r#"{"total": 100}"#);
}

#[test]
fn ids_that_break_the_rule_of_their_form_are_refused() {
    let database = Database::new();
    let mut client = database.connect();
    let long = "x".repeat(65);
    for id in [&long, "a b", "a_b", "ünï", "a/b", "a:b", "*", " a", "a\u{2028}"] {
        let line = format!("{{\"id\":\"{id}\",\"resourceType\":\"Patient\"}}");
        let error = refused(&database, &mut client, id, &behind_good_lines(line.as_bytes()), true);
        assert_eq!(error.code().code(), "22023");
        assert!(error.hint().is_some_and(|hint| hint.contains("64")), "{error:?}");
        let url = database.file("aidbox.ndjson", line);
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 1}"#, "{id} in Aidbox form");
        run(&mut client, "DROP TABLE patient, patient_history");
    }
    for id in ["x".repeat(256), "é".repeat(128), "a\\u0001b".into(), "\\t".into()] {
        let line = format!("{{\"id\":\"{id}\",\"resourceType\":\"Patient\"}}");
        let error = refused(&database, &mut client, &id, &behind_good_lines(line.as_bytes()), false);
        assert_eq!(error.code().code(), "22023");
        assert!(error.hint().is_some_and(|hint| hint.contains("255")), "{error:?}");
    }
}

#[test]
fn errors_of_a_line_say_where_in_it_and_what_to_do() {
    let database = Database::new();
    let mut client = database.connect();
    let line = "{\"id\":\"x\",\"name\":[{\"family\":\"ü\"}],\"a\":tru}";
    let error = refused(&database, &mut client, "broken", &behind_good_lines(line.as_bytes()), true);
    let at = line.find("tru").unwrap();
    let place = error.detail().unwrap_or_default();
    assert!((at..at + 5).any(|byte| place.contains(&format!("byte {byte} "))), "{error:?}");
    for line in [&b"[]"[..], b"{}", b"{\"id\":1}", b"{\"id\":\"\"}", b"{\"id\":\"x\"}{}", b"{\"id\":\"\xFF\"}"] {
        let error = refused(&database, &mut client, "hint", &behind_good_lines(line), true);
        assert!(error.hint().is_some(), "{error:?}");
    }
}

#[test]
fn what_an_error_quotes_of_a_line_is_short_and_printable() {
    let database = Database::new();
    let mut client = database.connect();
    let long = "x\\ty".repeat(100_000);
    for line in [
        format!("{{\"id\":\"{long}\"}}"),
        format!("{{\"id\":\"x\",\"resourceType\":\"{long}\"}}"),
        format!("{{\"id\":\"x\",\"resourceType\":\"Patient\",\"meta\":{{\"createdAt\":\"{long}\"}}}}"),
    ] {
        let url = database.file("bad.ndjson", line);
        let error = load_fails(&mut client, &url, "'Patient'");
        assert!(error.message().len() < url.len() + 400, "{} bytes", error.message().len());
        assert!(error.detail().is_none_or(|detail| detail.len() < url.len() + 400));
    }
}

fn nested(levels: usize) -> String {
    // The resource itself is the first level.
    let half = (levels - 1) / 2;
    let (open, close) = ("[{\"a\":".repeat(half), "}]".repeat(half));
    let (open, close) = if levels.is_multiple_of(2) { (open + "[", format!("]{close}")) } else { (open + "1", close) };
    format!("{{\"id\":\"deep\",\"resourceType\":\"Patient\",\"x\":{open}{close}}}")
}

#[test]
fn deep_nesting_loads_and_comes_back_and_too_deep_nesting_is_a_limit() {
    let database = Database::new();
    let mut client = database.connect();
    let error = refused(&database, &mut client, "1001 levels", &behind_good_lines(nested(1001).as_bytes()), true);
    assert_eq!(&error.code().code()[..2], "54", "{error:?}");
    for bomb in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 20)] {
        let line = format!("{{\"id\":\"x\",\"a\":{bomb}");
        let error = refused(&database, &mut client, "a bomb", &behind_good_lines(line.as_bytes()), true);
        assert_eq!(&error.code().code()[..2], "54", "{error:?}");
    }
    for levels in [500, 501] {
        let line = nested(levels);
        let url = database.file("deep.ndjson", &line);
        assert_eq!(load(&mut client, &url, "'Patient', true"), r#"{"total": 1}"#);
        let dumped = rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)");
        let inner = &line[line.find("\"x\":").unwrap()..line.len() - 1];
        assert!(dumped[0].contains(inner), "{levels} levels");
        // PostgreSQL's own functions can handle what was stored.
        assert_eq!(rows(&mut client, "SELECT resource::text::jsonb = resource FROM patient"), ["t"]);
    }
}

#[test]
fn a_line_over_max_line_bytes_is_a_limit_with_the_setting_in_the_hint() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.max_line_bytes = '1MB'");
    let with_length = |length: usize| {
        let line = patient("long", 1);
        line[..line.len() - 1].to_owned() + &format!(",\"x\":\"{}\"}}", "y".repeat(length - line.len() - 7))
    };
    assert_eq!(with_length(1 << 20).len(), 1 << 20);
    let error =
        refused(&database, &mut client, "long", &behind_good_lines(with_length((1 << 20) + 1).as_bytes()), true);
    assert_eq!(error.code().code(), "54000");
    assert!(error.hint().unwrap().contains("fhir_bulk.max_line_bytes"));
    // Without any newline, and much longer: it is not read to its end.
    let endless = [patients(1..=BEFORE).as_bytes(), &vec![b' '; 64 << 20]].concat();
    assert_eq!(refused(&database, &mut client, "endless", &endless, true).code().code(), "54000");
    let url = database.file("good.ndjson", behind_good_lines(with_length(1 << 20).as_bytes()));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 1512}"#);
}

#[test]
fn truncated_and_corrupt_gzip_is_refused_wherever_it_breaks() {
    let database = Database::new();
    let mut client = database.connect();
    let plain = patients(1..=5000);
    let whole = gzip(plain.as_bytes());
    let mut cases: Vec<(String, Vec<u8>)> =
        [3, 5, 10, 18, whole.len() / 2, whole.len() - 9, whole.len() - 8, whole.len() - 4, whole.len() - 1]
            .iter()
            .map(|length| (format!("cut at {length} of {}", whole.len()), whole[..*length].to_vec()))
            .collect();
    for at in [2, whole.len() / 3, whole.len() / 2, whole.len() - 8, whole.len() - 4, whole.len() - 1] {
        let mut corrupt = whole.clone();
        corrupt[at] ^= 0x55;
        cases.push((format!("changed at {at} of {}", whole.len()), corrupt));
    }
    cases.push(("zeros behind".into(), [&whole[..], &[0; 1000]].concat()));
    cases.push(("text behind".into(), [&whole[..], b"{\"id\":\"x\"}\n"].concat()));
    cases.push(("a second member cut".into(), [&whole[..], &whole[..whole.len() - 100]].concat()));
    cases.push((
        "a second member corrupt".into(),
        [&whole[..], b"\x1f\x8b\x08\0garbage that is no deflate stream"].concat(),
    ));
    cases.push(("the magic number alone".into(), b"\x1f\x8b".to_vec()));
    for (name, content) in cases {
        let tables = relations(&mut client);
        let url = database.file("bad.ndjson.gz", content);
        let error = load_fails(&mut client, &url, "'Patient'");
        assert_eq!(&error.code().code()[..2], "22", "{name}: {error:?}");
        assert!(error.message().contains("line ") && error.message().contains(&url), "{name}: {error:?}");
        assert_eq!(relations(&mut client), tables, "{name}");
    }
}

#[test]
fn the_error_of_a_truncated_gzip_names_the_line_where_it_broke() {
    let database = Database::new();
    let mut client = database.connect();
    // The first member is whole and ends with line 1501; the second is not.
    let second = gzip(patients(1..=10).as_bytes());
    let url = database.file("bad.gz", [gzip(patients(1..=BEFORE).as_bytes()), second[..12].to_vec()].concat());
    let error = load_fails(&mut client, &url, "'Patient'");
    assert_eq!(error.code().code(), "22P04", "{error:?}");
    assert!(error.message().contains(LINE) && error.hint().is_some(), "{error:?}");
}

#[test]
fn other_archives_and_binary_files_are_bad_input_and_not_a_crash() {
    let database = Database::new();
    let mut client = database.connect();
    let binary: Vec<u8> = (0..1u32 << 16).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, content) in [
        ("zip", b"PK\x03\x04\x14\0\0\0".to_vec()),
        ("bzip2", b"BZh91AY&SY".to_vec()),
        ("zstd", b"\x28\xB5\x2F\xFD\x04\0".to_vec()),
        ("binary", binary),
        ("zeros", vec![0; 100_000]),
    ] {
        let url = database.file("bad", content);
        let error = load_fails(&mut client, &url, "'Patient'");
        assert_eq!(&error.code().code()[..2], "22", "{name}: {error:?}");
        assert!(error.message().contains("line 1 "), "{name}: {error:?}");
    }
    assert_eq!(rows(&mut client, "SELECT to_regclass('patient') IS NULL"), ["t"]);
}

#[test]
fn bad_lines_in_places_of_their_own_are_found_there() {
    let database = Database::new();
    let mut client = database.connect();
    for (name, content, line) in [
        ("the first", "{\n".to_owned() + &patients(1..=5), 1),
        ("the last without a newline", patients(1..=5) + "{\"id\":\"6\"", 6),
        ("behind blank lines", "\n\r\n\n{}\n".to_owned(), 4),
        ("behind a mark", "\u{FEFF}[]\n".to_owned(), 1),
        ("behind two batches", patients(1..=2000) + "{\n", 2001),
    ] {
        let url = database.file("bad.ndjson", content);
        let error = load_fails(&mut client, &url, "'Patient'");
        assert!(error.message().contains(&format!("line {line} of {url}")), "{name}: {error:?}");
    }
}

#[test]
fn an_argument_that_is_nested_too_deeply_is_a_mistake_of_its_sender() {
    let database = Database::new();
    let mut client = database.connect();
    let deep = r#"('{"a": ' || repeat('[', 200) || repeat(']', 200) || '}')::jsonb"#;
    for call in [
        "bulk_load('file:///x', options => $)",
        "bulk_import($)",
        "bulk_export($)",
        "bulk_export_identifiers($)",
        "bulk_export_part($)",
        "bulk_sql_run($)",
        "bulk_submit($)",
        "bulk_submit_status($)",
        "bulk_set_source_credential($)",
        "bulk_remove_source_credential($)",
        "dump_csv('Patient', $)",
        "dump_csv_chunks('Patient', options => $)",
        "dump_sql('SELECT 1', 'csv', $)",
        "dump_sql_chunks('SELECT 1', options => $)",
        "dump_view($)",
        r#"dump_view('{"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]}', options => $)"#,
        "dump_view_chunks($)",
        "bulk_create_view('v', $)",
    ] {
        let call = format!("SELECT {}", call.replace('$', deep));
        let error = fails(&mut client, &call);
        assert_eq!(error.code().code(), "22023", "{call}: {error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("deep")), "{call}: {error:?}");
    }
    // Whoever may write search parameters hears it, too.
    let error = fails(&mut client, &format!("INSERT INTO bulk_search_parameter VALUES ('urn:x', {deep})"));
    assert_eq!(error.code().code(), "22023", "{error:?}");
    // No function with such an argument is left out here.
    let with = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname ~ '^(bulk|dump)_'
                AND 'jsonb'::regtype = ANY (proargtypes) AND proname NOT IN ('bulk_view_rows', 'bulk_belongs_to')";
    assert_eq!(count(&mut client, with), 17);
}
