//! Search queries as filters of dumps: which rows come, by which plan, under whose rights, and what is refused.

use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, count, fails, load, rows, run, value};
use fhir_bulk_tests::{Client, Database, bin};
use std::process::Command;

/// 2,000 Observations, of which every hundredth has code `rare`, with a category, a subject and a day of 2024 each.
fn observations() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    let line = |n: usize| {
        let code = if n.is_multiple_of(100) { "rare" } else { "common" };
        let category = ["laboratory", "vital-signs", "survey"][n % 3];
        format!(
            r#"{{"resourceType":"Observation","id":"o-{n}","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}},"category":[{{"coding":[{{"system":"urn:c","code":"{category}"}}]}}],"subject":{{"reference":"Patient/p-{}"}},"effectiveDateTime":"2024-{:02}-{:02}T10:00:00Z","valueQuantity":{{"value":{n}.50,"unit":"cm","system":"http://unitsofmeasure.org","code":"cm"}}}}"#,
            n % 7,
            n % 12 + 1,
            n % 28 + 1,
        ) + "\n"
    };
    let url = database.file("observations", (1..=2000).map(line).collect::<String>());
    load(&mut client, &url, "'Observation', fhir => true");
    (database, client)
}

/// The ids that a dump with a filter has, sorted.
fn ids(client: &mut Client, resource_type: &str, filter: &str) -> Vec<String> {
    let dump = format!("SELECT bulk_dump('{resource_type}', filter => '{filter}') AS line");
    rows(client, &format!("SELECT line::jsonb ->> 'id' FROM ({dump}) d ORDER BY 1"))
}

/// A filter, and a condition of SQL on table observation that says the same.
const SAME: [(&str, &str); 12] = [
    ("code=rare", r#"resource @> '{"code": {"coding": [{"code": "rare"}]}}'"#),
    ("code=http://loinc.org|rare", r#"resource @> '{"code": {"coding": [{"code": "rare"}]}}'"#),
    ("code=urn:other|rare", "false"),
    ("category=laboratory,survey", "resource #>> '{category,0,coding,0,code}' IN ('laboratory', 'survey')"),
    ("category=laboratory&category=survey", "false"),
    ("category:not=laboratory", "resource #>> '{category,0,coding,0,code}' <> 'laboratory'"),
    ("subject=p-1", "resource #>> '{subject,id}' = 'p-1'"),
    ("patient=Patient/p-1", "resource #>> '{subject,id}' = 'p-1'"),
    (
        "date=ge2024-06&date=lt2024-09",
        "substr(resource #>> '{effective,dateTime}', 1, 7) BETWEEN '2024-06' AND '2024-08'",
    ),
    ("value-quantity=gt1999||cm", "(resource #>> '{value,Quantity,value}')::numeric > 1999"),
    ("_id=o-1,o-2,none", "id IN ('o-1', 'o-2')"),
    ("status=final", "true"),
];

#[test]
fn a_filter_finds_the_rows_that_a_condition_of_sql_finds_with_and_without_an_index() {
    let (_database, mut client) = observations();
    for index in ["", "resource jsonb_path_ops", "resource", "(resource -> 'code')"] {
        if !index.is_empty() {
            run(
                &mut client,
                &format!(
                    "DROP INDEX IF EXISTS found; CREATE INDEX found ON observation USING gin ({index}); ANALYZE observation"
                ),
            );
        }
        for (filter, condition) in SAME {
            let expected = rows(&mut client, &format!("SELECT id FROM observation WHERE {condition} ORDER BY 1"));
            assert_eq!(ids(&mut client, "Observation", filter), expected, "{filter}, index {index:?}");
        }
    }
}

#[test]
fn chunks_and_copy_have_the_lines_that_rows_have() {
    let (database, mut client) = observations();
    run(&mut client, &format!("ALTER DATABASE \"{}\" SET session_preload_libraries = 'fhir_bulk'", database.name()));
    for fhir in ["false", "true"] {
        let dump = format!("SELECT bulk_dump('Observation', fhir => {fhir}, filter => 'code=rare&date=ge2024-03')");
        let lines = rows(&mut client, &dump);
        assert!(!lines.is_empty());
        let body = lines.join("\n") + "\n";
        let chunks = dump.replace("bulk_dump(", "bulk_dump_chunks(");
        let chunks: Vec<Vec<u8>> = client.query(&chunks, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(String::from_utf8(chunks.concat()).unwrap(), body);
        let format = if fhir == "true" { "fhir" } else { "aidbox" };
        let copy = format!("COPY observation TO STDOUT (FORMAT {format}, FILTER 'code=rare&date=ge2024-03')");
        assert_eq!(String::from_utf8(database.psql(&copy)).unwrap(), body);
    }
    let since = "SELECT bulk_dump('Observation', since => now() - interval '1 hour', filter => 'code=rare')";
    assert_eq!(rows(&mut client, since).len(), 20);
    let since = "SELECT bulk_dump('Observation', since => now() + interval '1 hour', filter => 'code=rare')";
    assert_eq!(rows(&mut client, since).len(), 0);
}

/// How often the index `found` has been used.
fn scans(client: &mut Client) -> i64 {
    run(client, "SELECT pg_stat_force_next_flush()");
    count(client, "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'found'")
}

#[test]
fn an_index_that_can_find_the_rows_is_used_but_not_where_policies_come_first() {
    let (database, mut client) = observations();
    for (index, filter, found) in [
        ("USING gin (resource jsonb_path_ops)", "code=rare", 20),
        ("USING gin ((resource -> 'code'))", "code=rare", 20),
        ("USING gin (resource)", "subject=Patient/p-1&code=rare", 3),
        ("(ts)", "_lastUpdated=lt2020", 0),
    ] {
        run(
            &mut client,
            &format!("DROP INDEX IF EXISTS found; CREATE INDEX found ON observation {index}; ANALYZE observation"),
        );
        let before = scans(&mut client);
        assert_eq!(ids(&mut client, "Observation", filter).len(), found, "{filter}");
        assert!(scans(&mut client) > before, "{filter} does not use the index {index}");
    }
    // The key of the table.
    let reads = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'observation'";
    run(&mut client, "SELECT pg_stat_force_next_flush()");
    let before = value(&mut client, reads);
    assert_eq!(ids(&mut client, "Observation", "_id=o-1000"), ["o-1000"]);
    run(&mut client, "SELECT pg_stat_force_next_flush()");
    assert_eq!(value(&mut client, reads), before);
    // Under a policy, an index of containment could tell of rows that the policy hides.
    let role = database.role("nurse");
    run(
        &mut client,
        &format!(
            "DROP INDEX found; CREATE INDEX found ON observation USING gin (resource jsonb_path_ops); ANALYZE observation;
             GRANT SELECT ON observation TO {role}; ALTER TABLE observation ENABLE ROW LEVEL SECURITY;
             CREATE POLICY a_few ON observation USING (id IN ('o-100', 'o-200', 'o-1'))"
        ),
    );
    let before = scans(&mut client);
    let mut nurse = database.connect_as(&role);
    assert_eq!(ids(&mut nurse, "Observation", "code=rare"), ["o-100", "o-200"]);
    assert_eq!(ids(&mut nurse, "Observation", "_id=o-1,o-2"), ["o-1"]);
    assert_eq!(scans(&mut client), before);
}

#[test]
fn rows_of_any_content_are_decided_and_none_is_an_error() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Observation"]);
    run(
        &mut client,
        r#"INSERT INTO observation (id, txid, status, ts, resource) VALUES
           ('whole', 1, 'created', now(), '{"code": {"coding": [{"code": "a"}]}, "effective": {"dateTime": "2024"}}'),
           ('object', 1, 'created', now(), '{"code": {"coding": {"code": "a"}}, "effective": {"dateTime": 2024}}'),
           ('text', 1, 'created', 'infinity', '{"code": "a", "effective": "2024"}'),
           ('nested', 1, 'created', NULL, '{"code": [[{"coding": [[{"code": "a"}]]}]], "effective": {"Period": []}}'),
           ('null', 1, 'created', now(), '{"code": null, "effective": {"dateTime": null}}'),
           ('empty', 1, 'created', now(), '{}'),
           ('wrong', 1, 'created', now(), '{"code": {"coding": [1, true, null, "a", {"code": ["a"]}]}, "effective": {"dateTime": "2024-99"}}'),
           ('gone', 1, 'deleted', now(), '{"code": {"coding": [{"code": "a"}]}}')"#,
    );
    let found = |client: &mut Client, filter: &str| ids(client, "Observation", filter).join(" ");
    // An index finds only what the definitions say, so without one nothing else is found, either.
    for index in ["", "CREATE INDEX ON observation USING gin (resource jsonb_path_ops); SET enable_seqscan = off"] {
        run(&mut client, index);
        assert_eq!(found(&mut client, "code=a"), "whole", "{index}");
        assert_eq!(found(&mut client, "code:not=a"), "empty nested null object text wrong");
        assert_eq!(found(&mut client, "code:missing=true"), "empty nested null");
        assert_eq!(found(&mut client, "date=2024"), "whole");
        assert_eq!(found(&mut client, "date:missing=false"), "object whole wrong");
        assert_eq!(found(&mut client, "_lastUpdated:missing=true"), "nested text");
        assert_eq!(found(&mut client, "_lastUpdated=ge2020"), "empty null object whole wrong");
    }
}

#[test]
fn what_is_no_filter_is_refused_with_the_name_of_the_parameter() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Observation"]);
    let many = format!("code={}", vec!["x"; 10_000].join(","));
    let long = format!("code={}", "x".repeat(1 << 20));
    let deep = format!("subject.{}name=x", "subject.".repeat(1000));
    for (filter, state, piece) in [
        ("nothing=1", "0A000", "\"nothing\""),
        ("code:in=http://x", "0A000", "\"code:in\""),
        ("date=ap2024", "0A000", "\"date\""),
        ("subject.name=x", "0A000", "\"subject.name\""),
        ("_has:Provenance:target:agent=x", "0A000", "\"_has"),
        ("_sort=date", "0A000", "\"_sort\""),
        ("_text=x", "0A000", "\"_text\""),
        ("date=yesterday", "22023", "\"date\""),
        ("date=2024-13", "22023", "\"date\""),
        ("value-quantity=many", "22023", "\"value-quantity\""),
        ("code:missing=maybe", "22023", "\"code:missing\""),
        ("code-value-quantity=a", "22023", "\"code-value-quantity\""),
        ("code", "22023", "\"code\""),
        ("code=%", "22023", "\"code\""),
        ("code=%ff", "22023", "\"code\""),
        (&many, "22023", "10000 values"),
        (&long, "22023", "bytes"),
        (&deep, "0A000", "subject.subject."),
    ] {
        for call in ["bulk_dump('Observation', filter =>", "bulk_dump_chunks('Observation', filter =>"] {
            assert_error(&fails(&mut client, &format!("SELECT {call} '{filter}')")), state, &[piece]);
        }
        let copy = format!("COPY observation TO STDOUT (FORMAT fhir, FILTER '{filter}')");
        let error = fails(&mut client, &copy);
        assert_error(&error, state, &[piece]);
        assert!(error.position().is_some(), "{error:?}");
    }
    assert_error_with_hint(
        &fails(&mut client, "SELECT bulk_dump('Observation', filter => 'date=ap2024')"),
        "0A000",
        &["ap"],
    );
    for copy in [
        "COPY observation FROM STDIN (FORMAT fhir, FILTER 'code=x')",
        "COPY observation TO STDOUT (FORMAT ndjson, FILTER 'code=x')",
    ] {
        assert_error(&fails(&mut client, copy), "0A000", &["FILTER"]);
    }
    // An empty value means nothing, and is said to.
    run(&mut client, "SET client_min_messages = error");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Observation', filter => 'code=&status=')").len(), 0);
}

#[test]
fn an_empty_value_is_a_warning() {
    let (database, _client) = observations();
    let output = database.cluster().psql(
        "postgres",
        database.name(),
        &["-c", "SELECT count(*) FROM (SELECT bulk_dump('Observation', filter => 'code=&status=final,')) d"],
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("2000"), "{output:?}");
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warnings.contains("WARNING") && warnings.contains("code") && warnings.contains("status"), "{warnings}");
}

/// A SearchParameter of one's own.
fn parameter(url: &str, code: &str, kind: &str, base: &str, expression: &str) -> String {
    format!(
        r#"INSERT INTO bulk_search_parameter VALUES ('{url}', jsonb_build_object('resourceType', 'SearchParameter',
           'url', '{url}', 'code', '{code}', 'type', '{kind}', 'base', jsonb_build_array('{base}'), 'expression', $${expression}$$))"#
    )
}

#[test]
fn parameters_of_ones_own_are_checked_when_they_are_written_and_then_everybodys() {
    let (database, mut client) = observations();
    assert_error(&fails(&mut client, "SELECT bulk_dump('Observation', filter => 'unit=cm')"), "0A000", &["unit"]);
    let unit = parameter("urn:unit", "unit", "string", "Observation", "Observation.value.ofType(Quantity).unit");
    run(&mut client, &unit);
    assert_eq!(ids(&mut client, "Observation", "unit=CM").len(), 2000);
    let role = database.role("reader");
    run(
        &mut client,
        &format!("GRANT SELECT ON observation TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
    );
    let mut reader = database.connect_as(&role);
    assert_eq!(ids(&mut reader, "Observation", "unit=c").len(), 2000);
    for statement in [
        parameter("urn:other", "other", "string", "Observation", "Observation.status").as_str(),
        "UPDATE bulk_search_parameter SET resource = '{}'",
        "DELETE FROM bulk_search_parameter",
        "TRUNCATE bulk_search_parameter",
    ] {
        assert_error_with_hint(&fails(&mut reader, statement), "42501", &["bulk_search_parameter"]);
    }
    for (code, kind, base, expression, piece) in [
        ("code", "token", "Observation", "Observation.status", "already"),
        ("_id", "token", "Individual", "Individual.name", "already"),
        ("a b", "token", "Observation", "Observation.status", "not a code"),
        ("x", "thing", "Observation", "Observation.status", "type thing"),
        ("x", "special", "Observation", "Observation.status", "special"),
        ("x", "token", "Observation", "Observation.nothing", "nothing"),
        ("x", "token", "Observation", "Patient.gender", "finds nothing"),
        ("x", "token", "Observation", "Observation.(", "expected"),
        ("x", "token", "Observation", "Observation.status.matches($$x$$)", "matches"),
        ("x", "composite", "Observation", "Observation", "composite"),
    ] {
        let insert = parameter("urn:x", code, kind, base, &expression.replace("$$", "'"));
        assert_error(&fails(&mut client, &insert), "22023", &["urn:x", piece]);
    }
    let other_url = unit.replacen("'urn:unit'", "'urn:other'", 1);
    assert_error(&fails(&mut client, &other_url), "22023", &["urn:unit"]);
    assert_error(&fails(&mut client, "INSERT INTO bulk_search_parameter VALUES ('urn:y', '[]')"), "22023", &["urn:y"]);
    let listed = "SELECT name, kind, url FROM bulk_search_parameters() WHERE resource_type = 'Observation' AND name IN ('unit', 'code', '_text', '_has')";
    let expected = ["code|token|http://hl7.org/fhir/SearchParameter/clinical-code", "unit|string|urn:unit"];
    assert_eq!(rows(&mut reader, listed), expected);
    // A type that is not FHIR's.
    run(&mut client, &parameter("urn:nick", "nick", "string", "Individual", "Individual.nick"));
    let url = database.file("individuals", "{\"resourceType\":\"Individual\",\"id\":\"i\",\"nick\":[\"Zoë\"]}\n");
    load(&mut client, &url, "'Individual'");
    assert_eq!(ids(&mut client, "Individual", "nick=zoe"), ["i"]);
    run(&mut client, "DELETE FROM bulk_search_parameter WHERE url = 'urn:unit'");
    assert_error(&fails(&mut client, "SELECT bulk_dump('Observation', filter => 'unit=cm')"), "0A000", &["unit"]);
}

#[test]
fn a_dump_of_the_database_has_the_parameters_and_restores_them() {
    let (database, mut client) = observations();
    run(
        &mut client,
        &parameter("urn:unit", "unit", "string", "Observation", "Observation.value.ofType(Quantity).unit"),
    );
    let mut dump = Command::new(bin("pg_dump"));
    let dumped = dump.args(["-d", &database.cluster().dsn("postgres", database.name())]).output().unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    let copy = Database::new();
    run(&mut copy.connect(), "DROP EXTENSION fhir_bulk");
    let script = copy.path("dump.sql");
    std::fs::write(&script, &dumped.stdout).unwrap();
    let restored =
        copy.cluster().psql("postgres", copy.name(), &["-v", "ON_ERROR_STOP=1", "-q", "-f", script.to_str().unwrap()]);
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(ids(&mut copy.connect(), "Observation", "unit=cm").len(), 2000);
}

#[test]
fn references_to_our_own_server_are_references_to_our_resources() {
    let database = Database::new();
    let mut client = database.connect();
    let line = |id: &str, reference: &str| {
        format!("{{\"resourceType\":\"Observation\",\"id\":\"{id}\",\"subject\":{{\"reference\":\"{reference}\"}}}}\n")
    };
    let lines = line("plain", "Patient/p")
        + &line("ours", "https://ours.example/fhir/Patient/p")
        + &line("theirs", "https://other.example/Patient/p");
    load(&mut client, &database.file("o", lines), "'Observation', fhir => true");
    assert_eq!(ids(&mut client, "Observation", "patient=p"), ["plain"]);
    run(&mut client, "SET fhir_bulk.base_url = 'https://else.example, https://ours.example/fhir/'");
    for patient in ["p", "Patient/p", "https://ours.example/fhir/Patient/p"] {
        assert_eq!(ids(&mut client, "Observation", &format!("patient={patient}")), ["ours", "plain"], "{patient}");
    }
    assert_eq!(ids(&mut client, "Observation", "patient=https://other.example/Patient/p"), ["theirs"]);
    run(&mut client, "CREATE INDEX ON observation USING gin (resource jsonb_path_ops); SET enable_seqscan = off");
    assert_eq!(ids(&mut client, "Observation", "patient=p"), ["ours", "plain"]);
    let role = database.role("app");
    let mut app = database.connect_as(&role);
    run(&mut app, "SELECT * FROM bulk_resource_types()");
    assert_error(&fails(&mut app, "SET fhir_bulk.base_url = 'https://x.example'"), "42501", &["base_url"]);
}
