//! The forms of a source, and the counts in the result.

use crate::support::{assert_error_with_hint, count, load, load_fails, patient, patients, rows, run, value};
use fhir_bulk_tests::{Database, gzip};

/// Three types, 2,500 lines, mixed.
fn mixed() -> String {
    (0..2500)
        .map(|n| {
            let resource_type = ["Patient", "Observation", "Observation", "Individual", "Observation"][n % 5];
            format!("{{\"id\":\"x-{n}\",\"n\":{n},\"resourceType\":\"{resource_type}\"}}\n")
        })
        .collect()
}

#[test]
fn a_typed_load_answers_its_total_and_an_untyped_one_the_count_of_each_type() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("all.ndjson", mixed());
    assert_eq!(load(&mut client, &url, ""), r#"{"Patient": 500, "Individual": 500, "Observation": 1500}"#);
    let url = database.file("patients.ndjson", patients(1..=124));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 124}"#);
    assert_eq!(load(&mut client, &url, "resource_type => 'Patient', fhir => true"), r#"{"total": 124}"#);
    assert_eq!(load(&mut client, &url, "NULL, true, '{}'"), r#"{"Patient": 124}"#);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 624);
    let kind = format!("SELECT jsonb_typeof(bulk_load('{url}', 'Patient') -> 'total')");
    assert_eq!(value(&mut client, &kind), "number");
}

#[test]
fn counts_are_lines_also_where_ids_repeat() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("twice.ndjson", patients(1..=1500) + &patients(1..=300));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 1800}"#);
    assert_eq!(load(&mut client, &url, ""), r#"{"Patient": 1800}"#);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 1500);
}

#[test]
fn gzip_of_one_or_several_members_is_told_by_content_and_not_by_name() {
    let database = Database::new();
    let mut client = database.connect();
    let plain = patients(1..=2000);
    let half = plain.len() / 2 + 37; // within a line
    let members = [gzip(&plain.as_bytes()[..half]), gzip(b""), gzip(&plain.as_bytes()[half..])].concat();
    let per_line: Vec<u8> = patients(1..=50).lines().flat_map(|line| gzip(format!("{line}\n").as_bytes())).collect();
    for (name, content, lines) in [
        ("plain.ndjson", plain.clone().into_bytes(), 2000),
        ("plain-named.gz", plain.clone().into_bytes(), 2000),
        ("gzip.ndjson.gz", gzip(plain.as_bytes()), 2000),
        ("gzip-named.ndjson", gzip(plain.as_bytes()), 2000),
        ("members", members, 2000),
        ("member-per-line.txt", per_line, 50),
    ] {
        let url = database.file(name, content);
        run(&mut client, "DROP TABLE IF EXISTS patient, patient_history");
        assert_eq!(load(&mut client, &url, "'Patient'"), format!("{{\"total\": {lines}}}"), "{name}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), lines, "{name}");
        assert_eq!(
            count(&mut client, "SELECT sum((resource ->> 'multipleBirthInteger')::int) FROM patient"),
            lines * (lines + 1) / 2
        );
    }
}

#[test]
fn files_from_windows_and_hand_edited_ones_load() {
    let database = Database::new();
    let mut client = database.connect();
    let (one, two, three) = (patient("1", 1), patient("2", 2), patient("3", 3));
    for (name, content) in [
        ("crlf", format!("{one}\r\n{two}\r\n{three}\r\n")),
        ("no last newline", format!("{one}\n{two}\n{three}")),
        ("no last newline after CR", format!("{one}\n{two}\n{three}\r")),
        ("a byte order mark", format!("\u{FEFF}{one}\n{two}\n{three}\n")),
        ("blank lines", format!("\n\n{one}\n\n \t \n{two}\n\r\n{three}\n\n\n")),
        ("a mark and blank lines", format!("\u{FEFF}\r\n\r\n{one}\r\n{two}\r\n{three}")),
        ("white space around", format!("  {one}\n\t{two} \t\n {three} ")),
    ] {
        run(&mut client, "DROP TABLE IF EXISTS patient, patient_history");
        for content in [content.clone().into_bytes(), gzip(content.as_bytes())] {
            let url = database.file("patients", content);
            assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#, "{name}");
            assert_eq!(rows(&mut client, "SELECT id FROM patient ORDER BY id"), ["1", "2", "3"], "{name}");
        }
    }
}

#[test]
fn sources_without_a_single_resource_load_nothing_and_say_so() {
    let database = Database::new();
    let mut client = database.connect();
    for content in [Vec::new(), b"\n".to_vec(), b"\xEF\xBB\xBF".to_vec(), b"\r\n \n".to_vec(), gzip(b""), gzip(b"\n\n")]
    {
        let url = database.file("empty", &content);
        assert_eq!(load(&mut client, &url, ""), "{}", "{content:?}");
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 0}"#, "{content:?}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn a_line_longer_than_every_buffer_loads_among_short_ones() {
    let database = Database::new();
    let mut client = database.connect();
    let long = format!("{{\"id\":\"long\",\"resourceType\":\"Binary\",\"data\":\"{}\"}}\n", "QUJD".repeat(5 << 20));
    let short = |n: usize| format!("{{\"id\":\"s{n}\",\"resourceType\":\"Binary\",\"data\":\"QUJD\"}}\n");
    let url = database.file("long", short(1) + &long + &short(2));
    assert_eq!(load(&mut client, &url, ""), r#"{"Binary": 3}"#);
    assert_eq!(
        rows(&mut client, r#"SELECT id, length(resource ->> 'data') FROM "binary" ORDER BY id"#),
        ["long|20971520", "s1|4", "s2|4"]
    );
}

#[test]
fn paths_with_spaces_and_other_letters_can_be_loaded() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("with space & ünï.ndjson", patients(1..=2));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 2}"#);
    let encoded = url.replace(' ', "%20").replace('ü', "%C3%BC").replace('ï', "%c3%af");
    assert_eq!(load(&mut client, &encoded, "'Patient'"), r#"{"total": 2}"#);
    let local = url.replace("file:///", "file://localhost/");
    assert_eq!(load(&mut client, &local, "'Patient'"), r#"{"total": 2}"#);
}

#[test]
fn a_source_that_is_not_there_or_no_file_is_named_in_the_error() {
    let database = Database::new();
    let mut client = database.connect();
    let good = database.file("good", patients(1..=2));
    let folder = good.trim_end_matches("/good").to_owned();
    for (url, state) in [
        (format!("{folder}/absent"), "58P01"),
        ("file://relative/path".into(), "22023"),
        ("good.ndjson".into(), "22023"),
        (String::new(), "22023"),
        ("ftp://example.org/x".into(), "22023"),
        ("file://".into(), "22023"),
    ] {
        assert_error_with_hint(&load_fails(&mut client, &url, "'Patient'"), state, &[&url]);
    }
    let error = load_fails(&mut client, &folder, "'Patient'");
    assert_eq!(error.code().code(), "42809", "{error:?}");
    assert!(error.message().contains(&folder));
    let error = load_fails(&mut client, "file:///dev/zero", "'Patient'");
    assert_eq!(error.code().code(), "42809", "{error:?}");
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
}

#[test]
fn null_arguments_and_unknown_options_are_refused_by_name() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("good", patients(1..=2));
    for (sql, state, piece) in [
        ("SELECT bulk_load(NULL)".to_owned(), "22004", "source"),
        (format!("SELECT bulk_load('{url}', fhir => NULL)"), "22004", "fhir"),
        (format!("SELECT bulk_load('{url}', options => NULL)"), "22004", "options"),
        (format!("SELECT bulk_load('{url}', options => '[]')"), "22023", "options"),
        (format!("SELECT bulk_load('{url}', options => '{{\"upate\": true}}')"), "22023", "upate"),
        (format!("SELECT bulk_load('{url}', 'no such;type')"), "22023", "no such;type"),
        (format!("SELECT bulk_load('{url}', '')"), "22023", "resource type"),
        (format!("SELECT bulk_load('{url}', '{}')", "A".repeat(56)), "22023", "AAAA"),
    ] {
        let error = crate::support::fails(&mut client, &sql);
        crate::support::assert_error(&error, state, &[piece]);
    }
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
}
