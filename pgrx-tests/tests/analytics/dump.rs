//! What `dump_view` and `dump_view_chunks` return, in each format.

use super::{lines, store, view};
use crate::support::{assert_error, fails, rows, run};
use fhir_bulk_tests::{Client, Database, gunzip};
use serde_json::json;

fn patients() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    store(
        &mut client,
        &database,
        &[
            json!({"resourceType": "Patient", "id": "a", "active": true, "birthDate": "1970-01-01",
                "name": [{"family": "it's, \"A\"", "given": ["x", "y"]}], "multipleBirthInteger": 2,
                "managingOrganization": {"reference": "Organization/o"}}),
            json!({"resourceType": "Patient", "id": "b", "name": [{"family": "tab\tline\nbackslash\\"}]}),
            json!({"resourceType": "Patient", "id": "c", "name": [{"family": ""}]}),
        ],
    );
    (database, client)
}

const COLUMNS: [(&str, &str); 6] = [
    ("id", "id"),
    ("active", "active"),
    ("family", "name.family.first()"),
    ("births", "multipleBirth.ofType(integer)"),
    ("organization", "managingOrganization"),
    ("reference", "managingOrganization.reference"),
];

#[test]
fn each_format_has_its_quotes_and_json_has_its_types() {
    let (_database, mut client) = patients();
    let view = view("Patient", &COLUMNS);
    let organization = r#"{"reference":"Organization/o"}"#;
    let csv = [
        "id,active,family,births,organization,reference".to_owned(),
        format!("a,true,\"it's, \"\"A\"\"\",2,\"{}\",Organization/o", organization.replace('"', "\"\"")),
        "b,,\"tab\tline\nbackslash\\\",,,".to_owned(),
        "c,,\"\",,,".to_owned(),
    ];
    assert_eq!(lines(&mut client, &view, "csv", r#"{"header": true}"#), csv);
    assert_eq!(lines(&mut client, &view, "csv", "{}"), csv[1..]);
    let tsv = lines(&mut client, &view, "tsv", r#"{"null": "\\N"}"#);
    assert_eq!(tsv[2], "c\t\\N\t\t\\N\t\\N\t\\N");
    let objects = [
        format!(r#"{{"id":"a","active":true,"family":"it's, \"A\"","births":2,"organization":{organization},"reference":"Organization/o"}}"#),
        r#"{"id":"b","active":null,"family":"tab\tline\nbackslash\\","births":null,"organization":null,"reference":null}"#.to_owned(),
        r#"{"id":"c","active":null,"family":"","births":null,"organization":null,"reference":null}"#.to_owned(),
    ];
    assert_eq!(lines(&mut client, &view, "ndjson", "{}"), objects);
    let array = lines(&mut client, &view, "json", "{}").concat();
    assert_eq!(array, format!("[{}]", objects.join(",")));
    let none =
        super::view("Patient", &[("id", "id")]).replace("\"select\"", "\"where\":[{\"path\":\"false\"}],\"select\"");
    assert_eq!(lines(&mut client, &none, "json", "{}"), ["[]"]);
    assert_eq!(lines(&mut client, &none, "csv", r#"{"header": true}"#), ["id"]);
    assert!(lines(&mut client, &none, "ndjson", "{}").is_empty());
    // What INSERTs make is what a view of SQL has.
    let statements = lines(&mut client, &view, "sql", r#"{"table": "public.flat_copy", "rows_per_insert": 2}"#);
    assert_eq!(statements.len(), 2);
    run(&mut client, &format!("SELECT bulk_create_view('flat', '{}')", view.replace('\'', "''")));
    run(&mut client, "CREATE TABLE flat_copy (LIKE flat)");
    run(&mut client, &statements.concat());
    let differ = "(TABLE flat EXCEPT ALL TABLE flat_copy) UNION ALL (TABLE flat_copy EXCEPT ALL TABLE flat)";
    assert!(rows(&mut client, &format!("SELECT d::text FROM ({differ}) d")).is_empty());
}

#[test]
fn chunks_are_the_lines_gzipped_or_not() {
    let (_database, mut client) = patients();
    let view = view("Patient", &COLUMNS).replace('\'', "''");
    for (format, options) in
        [("csv", r#"{"header": true}"#), ("ndjson", "{}"), ("json", "{}"), ("sql", r#"{"table": "t"}"#)]
    {
        let expected =
            lines(&mut client, &view, format, options).iter().map(|line| format!("{line}\n")).collect::<String>();
        for gzip in [false, true] {
            let sql = format!("SELECT dump_view_chunks('{view}', '{format}', {gzip}, '{options}', 1024)");
            let body: Vec<u8> =
                client.query(&sql, &[]).unwrap().iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect();
            let body = if gzip { gunzip(&body) } else { body };
            assert_eq!(String::from_utf8(body).unwrap(), expected, "{format} {gzip}");
        }
    }
}

#[test]
fn columns_of_the_row_are_seen_as_fhir_has_them() {
    let (_database, mut client) = patients();
    run(
        &mut client,
        "UPDATE patient SET txid = 481, ts = '2021-06-10 08:26:10.707454+00' WHERE id = 'a'; SET TimeZone = 'Asia/Kolkata'",
    );
    let columns = [("version", "meta.versionId"), ("at", "meta.lastUpdated"), ("meta", "meta")];
    let view = view("Patient", &columns).replace("\"select\"", "\"where\":[{\"path\":\"id = 'a'\"}],\"select\"");
    assert_eq!(
        lines(&mut client, &view, "ndjson", "{}"),
        [
            r#"{"version":"481","at":"2021-06-10T08:26:10.707454Z","meta":{"versionId":"481","lastUpdated":"2021-06-10T08:26:10.707454Z"}}"#
        ]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_way_out() {
    let (_database, mut client) = patients();
    let mut told = |sql: &str| {
        let error = fails(&mut client, sql);
        (
            error.code().code().to_owned(),
            error.message().to_owned(),
            error.detail().unwrap_or_default().to_owned(),
            error.hint().is_some(),
        )
    };
    let typo = super::dump_view(&view("Patient", &[("a", "id"), ("b", "name.famly")]), "csv", "{}");
    assert_eq!(
        told(&format!("SELECT {typo}")),
        (
            "22023".to_owned(),
            "invalid view: HumanName has no element famly".to_owned(),
            "It is about select[0].column[1].path, at byte 5 of the expression.".to_owned(),
            true,
        )
    );
    let several = super::dump_view(&view("Patient", &[("given", "name.given")]), "csv", "{}");
    assert_eq!(
        told(&format!("SELECT {several}")),
        (
            "21000".to_owned(),
            "column \"given\" has several values".to_owned(),
            "It is select[0].column[0].path of Patient \"a\".".to_owned(),
            true,
        )
    );
    let id = view("Patient", &[("id", "id")]);
    for (call, state, piece) in [
        ("dump_view('[]')".to_owned(), "22023", "invalid view: it is not a JSON object"),
        ("dump_view('{}')".to_owned(), "22023", "invalid view: it is missing"),
        ("dump_view(NULL)".to_owned(), "22004", "argument view must not be NULL"),
        (super::dump_view(&id, "xml", "{}"), "22023", "unknown format \"xml\""),
        (super::dump_view(&id, "csv", r#"{"heder": true}"#), "22023", "unknown option \"heder\""),
        (super::dump_view(&id, "ndjson", r#"{"header": true}"#), "22023", "unknown option \"header\""),
        (super::dump_view(&id, "sql", "{}"), "22023", "format sql needs the option table"),
        (super::dump_view(&id, "csv", r#"{"limit": -1}"#), "22023", "option limit is not a whole number"),
        (super::dump_view(&id, "csv", r#"{"since": "yesterday"}"#), "22023", "option since is not an instant"),
        (super::dump_view(&id, "csv", r#"{"patient": ["nobody"]}"#), "22023", "there is no Patient \"nobody\""),
        (super::dump_view(&id, "csv", r#"{"group": ["none"]}"#), "P0002", "there is no Group \"none\""),
        (
            super::dump_view(&id, "csv", r#"{"resources": [{}]}"#),
            "22023",
            "option resources: resource 0: it has no resourceType",
        ),
        (super::dump_view(&view("Device", &[("id", "id")]), "csv", "{}"), "42P01", "Device"),
    ] {
        let error = fails(&mut client, &format!("SELECT {call}"));
        assert_error(&error, state, &[piece]);
        assert!(error.hint().is_some() || state == "22004" || piece.starts_with("option"), "{call}");
    }
    let error = fails(&mut client, &format!("SELECT {}", super::dump_view(&id, "csv", r#"{"x": 1}"#)));
    assert!(error.hint().unwrap().contains("header, delimiter, null, patient, group, since, limit, resources"));
}
