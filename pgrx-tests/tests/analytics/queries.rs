//! Queries of the caller's that see views as tables, and have placeholders: `dump_sql` with `views` and `parameters`.

use super::{store, view};
use crate::support::{assert_error, assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use postgres::error::ErrorPosition;
use serde_json::{Value, json};

fn call(query: &str, options: &Value) -> String {
    let quoted = |text: &str| text.replace('\'', "''");
    format!("SELECT dump_sql('{}', 'csv', '{}')", quoted(query), quoted(&options.to_string()))
}

#[track_caller]
fn lines(client: &mut Client, query: &str, options: Value) -> Vec<String> {
    rows(client, &call(query, &options))
}

/// Two patients; one has a pulse of 50 and one of 90, the other one of 70.
fn pulses() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    let pulse = |id: &str, patient: &str, rate: i32, at: &str| {
        json!({"resourceType": "Observation", "id": id, "status": "final", "valueQuantity": {"value": rate},
            "subject": {"reference": format!("Patient/{patient}")}, "effectiveDateTime": at})
    };
    store(
        &mut client,
        &database,
        &[
            json!({"resourceType": "Patient", "id": "p1", "active": true}),
            json!({"resourceType": "Patient", "id": "p2", "active": false}),
            json!({"resourceType": "Group", "id": "g", "type": "person", "actual": true,
                "member": [{"entity": {"reference": "Patient/p2"}}]}),
            pulse("o1", "p1", 50, "2024-01-31"),
            pulse("o2", "p1", 90, "2024-02-01"),
            pulse("o3", "p2", 70, "2024-02-02"),
        ],
    );
    (database, client)
}

fn views() -> Value {
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let mut pulse = json(view(
        "Observation",
        &[("id", "id"), ("patient", "subject.getReferenceKey(Patient)"), ("rate", "value.ofType(Quantity).value")],
    ));
    let tagged = |name: &str, path: &str, ansi: &str| json!({"name": name, "path": path, "tag": [{"name": "ansi/type", "value": ansi}]});
    pulse["select"][0]["column"][2] = tagged("rate", "value.ofType(Quantity).value", "INTEGER");
    pulse["select"][0]["column"].as_array_mut().unwrap().push(tagged("day", "effective.ofType(dateTime)", "DATE"));
    json!({"pulse": pulse, "person": json(view("Patient", &[("id", "id"), ("active", "active")]))})
}

#[test]
fn views_are_tables_with_typed_columns() {
    let (_database, mut client) = pulses();
    let with_views = || json!({"views": views()});
    let of = |query: &str, client: &mut Client| lines(client, query, with_views());
    assert_eq!(of("SELECT sum(rate), pg_typeof(max(day)) FROM pulse", &mut client), ["210,date"]);
    let joined = "SELECT person.id, count(*) FROM person JOIN pulse ON patient = person.id WHERE active GROUP BY 1";
    assert_eq!(of(joined, &mut client), ["p1,2"]);
    // A WITH of the query's own, which may be recursive, and any statement that has rows.
    let own = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3), fast AS \
               (SELECT * FROM pulse WHERE rate > 60) SELECT i, fast.id FROM n, fast WHERE i = 3 ORDER BY 2";
    assert_eq!(of(own, &mut client), ["3,o2", "3,o3"]);
    assert_eq!(of("TABLE person ORDER BY id", &mut client), ["p1,t", "p2,f"]);
    assert_eq!(of("(SELECT id FROM person) UNION SELECT id FROM pulse ORDER BY 1 LIMIT 2", &mut client), ["o1", "o2"]);
    assert_eq!(of("VALUES ((SELECT count(*) FROM person))", &mut client), ["2"]);
    // Names are read as SQL reads them, and a table of the schema keeps its own where it is named.
    let options = json!({"views": {"PATIENT": views()["person"], "\"Two Words\"": views()["person"]}});
    let query = "SELECT (SELECT count(*) FROM Patient), (SELECT count(*) FROM \"Two Words\"), (SELECT count(txid) FROM public.patient)";
    assert_eq!(lines(&mut client, query, options), ["2,2,2"]);
}

#[test]
fn a_condition_on_an_id_finds_the_row_by_the_tables_key() {
    let (_database, mut client) = pulses();
    run(
        &mut client,
        "INSERT INTO patient (id, txid, status, resource) SELECT 'x' || i, 1, 'created', '{}' FROM generate_series(1, 5000) i;
         ANALYZE patient",
    );
    let read = "SELECT seq_tup_read::text FROM pg_stat_xact_user_tables WHERE relname = 'patient'";
    // The count has also what the session did before, until it is told to others, which is never within a transaction.
    run(&mut client, "BEGIN");
    let before = value(&mut client, read);
    assert_eq!(lines(&mut client, "SELECT id FROM person WHERE id = 'x7'", json!({"views": views()})), ["x7"]);
    assert_eq!(value(&mut client, read), before);
    run(&mut client, "COMMIT");
}

#[test]
fn a_view_may_be_a_query_with_views_of_its_own() {
    let (_database, mut client) = pulses();
    let fast = json!({"query": "WITH mean AS (SELECT avg(rate) AS m FROM pulse) SELECT pulse.* FROM pulse, mean WHERE rate > m",
        "views": {"pulse": views()["pulse"]}});
    let options = json!({"views": {"fast": fast, "twice": {"query": "SELECT a.id FROM fast a, fast b", "views": {"fast": fast}}}});
    assert_eq!(lines(&mut client, "SELECT id FROM fast", options.clone()), ["o2"]);
    assert_eq!(lines(&mut client, "SELECT count(*) FROM twice", options), ["1"]);
    // What is wrong with it has its place in its own text.
    let options = json!({"views": {"v": {"query": "SELECT nothing FROM pulse", "views": {"pulse": views()["pulse"]}}}});
    let error = fails(&mut client, &call("SELECT 1", &options));
    assert_error(&error, "42703", &["nothing"]);
    let Some(ErrorPosition::Internal { position: 8, query }) = error.position() else { panic!("{error:?}") };
    assert_eq!(query, "SELECT nothing FROM pulse");
    for (query, state) in [
        ("SELECT 1; SELECT 2", "42601"),
        ("DELETE FROM patient", "25006"),
        ("WITH gone AS (DELETE FROM patient RETURNING 1) SELECT * FROM gone", "0A000"),
        ("SELECT 1 INTO TEMP t", "42601"),
        ("SELECT $1", "42P02"),
        ("", "42601"),
    ] {
        let error =
            fails(&mut client, &call("SELECT * FROM v", &json!({"views": {"v": {"query": query}}, "parameters": {}})));
        assert!([state, "25006"].contains(&error.code().code()), "{query}: {error:?}");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "2");
}

#[test]
fn placeholders_are_bound_with_their_types_and_are_never_text_of_the_query() {
    let (_database, mut client) = pulses();
    let typed =
        |query: &str, parameters: Value, client: &mut Client| lines(client, query, json!({"parameters": parameters}));
    let types = "SELECT pg_typeof(:a), pg_typeof(:b), pg_typeof(:c), pg_typeof(:d), pg_typeof(:e), :c + 1";
    let values = json!({"a": "x", "b": true, "c": 1, "d": 12345678901i64, "e": 1.50});
    assert_eq!(typed(types, values, &mut client), ["text,boolean,integer,bigint,numeric,2"]);
    let of_type = |name: &str, value: Value| json!({"v": {"type": name, "value": value}});
    for (name, value, shown) in [
        ("date", json!("2024-02-29"), "date,2024-02-29"),
        ("dateTime", json!("2024-02-29T12:00:00+01:00"), "timestamp with time zone,2024-02-29 11:00:00+00"),
        ("instant", json!("2024-02-29T11:00:00Z"), "timestamp with time zone,2024-02-29 11:00:00+00"),
        ("decimal", json!("1.10"), "numeric,1.10"),
        ("integer64", json!(7), "bigint,7"),
        ("code", json!("a"), "text,a"),
        ("boolean", json!(null), "boolean,"),
    ] {
        run(&mut client, "SET TimeZone = 'UTC'");
        assert_eq!(typed("SELECT pg_typeof(:v), :v", of_type(name, value), &mut client), [shown], "{name}");
    }
    let hostile = "x'; DROP TABLE patient; --";
    assert_eq!(typed("SELECT :v", json!({"v": hostile}), &mut client), [hostile]);
    // More than nine of one letter, and one of them several times.
    let many: serde_json::Map<String, Value> =
        ('a'..='z').map(|name| (name.to_string(), json!(name.to_string()))).collect();
    let query = format!("SELECT {}, :z||:a", ('a'..='z').map(|name| format!(":{name}")).collect::<Vec<_>>().join("||"));
    assert_eq!(typed(&query, many.into(), &mut client), ["abcdefghijklmnopqrstuvwxyz,za"]);
    // With views, as in the query of a Library.
    let query = "SELECT id FROM pulse WHERE rate >= :low AND day < :until ORDER BY id";
    let parameters = json!({"low": 60, "until": {"type": "date", "value": "2024-02-02"}});
    assert_eq!(lines(&mut client, query, json!({"views": views(), "parameters": parameters})), ["o2"]);
}

#[test]
fn a_placeholder_is_where_postgresql_sees_a_colon_before_a_name() {
    let mut client = Database::new().connect();
    let options = |names: &[&str]| {
        let values: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!(2))).collect();
        json!({"parameters": values})
    };
    for (query, names, found) in [
        ("SELECT ':a', E'\\':a', $q$:a$q$, $$ :a $$ /* :a /* :a */ :a */ -- :a\n, :a", &["a"][..], "':a'"),
        ("SELECT 'x'::text, :a::text", &["a"], "x,2"),
        ("SELECT \":a\".c FROM (SELECT :a AS c) AS \":a\"", &["a"], "2"),
        ("SELECT (ARRAY[10, 20, 30])[1:(:a)]", &["a"], "\"{10,20}\""),
        ("SELECT x[1:n] FROM (SELECT ARRAY[10, 20, 30], 2) AS t (x, n)", &[], "\"{10,20}\""),
        ("SELECT arrays[1:n] FROM (SELECT ARRAY[10, 20, 30], 2) AS t (arrays, n)", &[], "\"{10,20}\""),
        ("SELECT ARRAY[:a, :b], array[[:a], [:b]]", &["a", "b"], "\"{2,2}\",\"{{2},{2}}\""),
        ("SELECT make_date(year => :a, month := :a, day=>:a)", &["a"], "0002-02-02"),
        ("SELECT :größe_a", &[], ""),
    ] {
        let sql = call(query, &options(names));
        match found {
            "" => assert_error(&fails(&mut client, &sql), "42601", &["syntax error"]),
            "':a'" => assert_eq!(rows(&mut client, &sql), [":a,':a,:a, :a ,2"]),
            found => assert_eq!(rows(&mut client, &sql), [found], "{query}"),
        }
    }
    // Without the option a colon is SQL's.
    assert_error(&fails(&mut client, &call("SELECT :a", &json!({}))), "42601", &["\":\""]);
    // Positions in errors are those of the caller's text.
    let query = "SELECT 'ä', :long_name, nothing";
    let error = fails(&mut client, &call(query, &options(&["long_name"])));
    let Some(ErrorPosition::Internal { position: 25, query: shown }) = error.position() else { panic!("{error:?}") };
    assert_eq!(shown, query);
    let error = fails(&mut client, &call("SELECT 1 :a", &options(&["a"])));
    let Some(ErrorPosition::Internal { position: 10, .. }) = error.position() else { panic!("{error:?}") };
    assert_error(&error, "42601", &[]);
    let error = fails(&mut client, &call("SELECT :a, 'open", &options(&["a"])));
    assert_error(&error, "42601", &["unterminated"]);
}

#[test]
fn what_is_missing_unused_or_wrong_is_named() {
    let (_database, mut client) = pulses();
    let pulse = views()["pulse"].clone();
    let of_device: Value = serde_json::from_str(&view("Device", &[("id", "id")])).unwrap();
    for (query, options, state, pieces) in [
        ("SELECT :min", json!({"parameters": {"max": 1}}), "22023", &[":min"][..]),
        ("SELECT 1", json!({"parameters": {"max": 1}}), "22023", &["\"max\"", "does not use"]),
        ("SELECT :a", json!({"parameters": {"a": null}}), "22023", &["\"a\"", "null"]),
        ("SELECT :a", json!({"parameters": {"a": [1]}}), "22023", &["\"a\""]),
        ("SELECT :a", json!({"parameters": {"a": {"type": "Quantity", "value": 1}}}), "22023", &["\"a\"", "type"]),
        (
            "SELECT :a",
            json!({"parameters": {"a": {"type": "date", "value": "2024-02-30"}}}),
            "22023",
            &["\"a\"", "date"],
        ),
        ("SELECT :a", json!({"parameters": {"a": {"type": "date", "value": "today"}}}), "22023", &["\"a\"", "date"]),
        ("SELECT :a", json!({"parameters": {"a": {"type": "integer", "value": 3000000000i64}}}), "22023", &["\"a\""]),
        ("SELECT :a", json!({"parameters": {"a": {"type": "decimal", "value": "NaN"}}}), "22023", &["\"a\""]),
        ("SELECT :a", json!({"parameters": {"a": {"type": "boolean", "value": "yes"}}}), "22023", &["\"a\""]),
        ("SELECT :a", json!({"parameters": {"a": {"value": 1}}}), "22023", &["\"a\""]),
        ("SELECT :a", json!({"parameters": [1]}), "22023", &["parameters"]),
        ("SELECT 1", json!({"views": ["x"]}), "22023", &["views"]),
        ("SELECT 1", json!({"views": {"a.b": pulse}}), "22023", &["a.b"]),
        ("SELECT 1", json!({"views": {"": pulse}}), "22023", &["table name"]),
        ("SELECT 1", json!({"views": {"a": pulse, "A": pulse}}), "22023", &["two views"]),
        ("SELECT 1", json!({"views": {"a": {"resource": "Patient"}}}), "22023", &["views, a", "invalid view"]),
        ("SELECT 1", json!({"views": {"a": {"query": "SELECT 1", "x": 1}}}), "22023", &["\"x\""]),
        ("SELECT 1", json!({"views": {"a": {"query": 1}}}), "22023", &["query"]),
        ("SELECT 1", json!({"since": "2024-01-01T00:00:00Z"}), "22023", &["since"]),
        ("SELECT 1", json!({"patient": ["p1"]}), "22023", &["patient"]),
        ("SELECT 1", json!({"views": views(), "patient": ["nobody"]}), "22023", &["nobody"]),
        ("SELECT 1", json!({"views": views(), "resources": []}), "22023", &["resources"]),
        ("SELECT 1", json!({"view": views()}), "22023", &["\"view\""]),
        ("SELECT 1", json!({"views": {"a": of_device}}), "42P01", &["Device"]),
        ("WITH pulse AS (SELECT 1) SELECT 1", json!({"views": {"pulse": pulse}}), "42712", &["pulse"]),
    ] {
        let error = fails(&mut client, &call(query, &options));
        assert_error(&error, state, pieces);
        assert_ne!(error.message(), "", "{query}");
    }
    assert_error_with_hint(&fails(&mut client, &call("SELECT :b", &json!({"parameters": {"a": 1}}))), "22023", &[":b"]);
    // A chain of queries that is too deep.
    let mut deep = json!({"query": "SELECT 1 AS one"});
    for _ in 0..20 {
        deep = json!({"query": "SELECT one FROM v", "views": {"v": deep}});
    }
    assert_error(&fails(&mut client, &call("SELECT 1", &json!({"views": {"v": deep}}))), "22023", &["nested"]);
}

#[test]
fn views_are_narrowed_to_patients_and_times_and_rows_are_limited() {
    let (database, mut client) = pulses();
    run(&mut client, "UPDATE observation SET ts = '2020-01-01Z' WHERE id = 'o1'");
    for (options, expected) in [
        (json!({"patient": ["p1"]}), &["o1", "o2"][..]),
        (json!({"patient": ["Patient/p2"]}), &["o3"]),
        (json!({"group": ["g"]}), &["o3"]),
        (json!({"patient": ["p1"], "group": ["g"]}), &[]),
        (json!({"since": "2021-01-01T00:00:00Z"}), &["o2", "o3"]),
        (json!({"since": "2021-01-01T00:00:00Z", "patient": ["p1"]}), &["o2"]),
        (json!({"limit": 2}), &["o1", "o2"]),
        (json!({"limit": 0}), &[]),
        (json!({"limit": 9}), &["o1", "o2", "o3"]),
    ] {
        let mut all = options.clone();
        all["views"] = views();
        assert_eq!(lines(&mut client, "SELECT id FROM pulse ORDER BY id", all), expected, "{options}");
    }
    // A limit ends the query: PostgreSQL would warn of what is left open.
    for limit in 0..=1 {
        let view = view("Observation", &[("id", "id")]);
        for sql in [
            format!("SELECT dump_sql('SELECT id FROM observation', 'csv', '{{\"limit\": {limit}}}')"),
            format!("SELECT {}", super::dump_view(&view, "csv", &format!("{{\"limit\": {limit}}}"))),
        ] {
            let output = database.cluster().psql("postgres", database.name(), &["-c", &sql]);
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{sql}");
        }
    }
    // The end of a format comes after the last row.
    for limit in 0..=4 {
        let array = rows(
            &mut client,
            &format!("SELECT dump_sql('SELECT i FROM generate_series(1, 3) i', 'json', '{{\"limit\": {limit}}}')"),
        );
        let array: Value = serde_json::from_str(&array.concat()).unwrap();
        assert_eq!(array.as_array().unwrap().len(), limit.min(3));
    }
}

#[test]
fn views_have_the_rights_of_the_caller() {
    let (database, mut admin) = pulses();
    let (reader, stranger) = (database.role("reader"), database.role("stranger"));
    run(
        &mut admin,
        &format!(
            "ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON patient USING (id = 'p2');
             GRANT SELECT ON patient TO {reader}"
        ),
    );
    let options = json!({"views": {"person": views()["person"]}});
    assert_eq!(lines(&mut database.connect_as(&reader), "SELECT id FROM person", options.clone()), ["p2"]);
    let error = fails(&mut database.connect_as(&stranger), &call("SELECT id FROM person", &options));
    assert_error(&error, "42501", &["permission denied"]);
    // The query only reads, as without views.
    let error = fails(&mut admin, &call("SELECT set_config('role', id, false) FROM person", &options));
    assert_error(&error, "25006", &["set_config"]);
}
