//! Views as Parquet files, read back by pyarrow and DuckDB.

use super::{store, view};
use crate::support::{assert_error_with_hint, fails, rows, run};
use fhir_bulk_tests::tools::{compare_parquet, python};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};
use std::path::PathBuf;

fn call(view: &str) -> String {
    format!("dump_view_chunks('{}', 'parquet', chunk_bytes => 1024)", view.replace('\'', "''"))
}

/// The file of a call.
fn file(database: &Database, client: &mut Client, name: &str, call: &str) -> PathBuf {
    let chunks = client.query(&format!("SELECT {call}"), &[]).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    let bytes: Vec<u8> = chunks.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect();
    let path = database.path(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn tagged(name: &str, path: &str, ansi: &str) -> Value {
    json!({"name": name, "path": path, "tag": [{"name": "ansi/type", "value": ansi}]})
}

/// A column of each type, by the path of an extension where FHIR has no such element.
fn every_type() -> Value {
    let of = |name: &str, of: &str| format!("extension('http://x/{name}').value.ofType({of})");
    let column = |name: &str, path: &str| json!({"name": name, "path": path});
    json!({"resource": "Patient", "select": [{"column": [
        column("id", "id"), column("active", "active"), column("births", "multipleBirth.ofType(integer)"),
        column("at", "meta.lastUpdated"), column("seen", &of("seen", "instant")), column("photo", "photo.data.first()"),
        column("born", "birthDate"), column("cost", &of("cost", "decimal")), column("organization", "managingOrganization"),
        {"name": "families", "path": "name.family", "collection": true},
        {"name": "large", "path": of("large", "decimal"), "type": "integer64"},
        tagged("small", "multipleBirth.ofType(integer)", "SMALLINT"), tagged("big", "multipleBirth.ofType(integer)", "BIGINT"),
        tagged("real", &of("cost", "decimal"), "REAL"), tagged("double", &of("cost", "decimal"), "DOUBLE PRECISION"),
        tagged("exact", &of("cost", "decimal"), "DECIMAL(10, 2)"), tagged("digits", &of("cost", "decimal"), "NUMERIC"),
        tagged("day", "birthDate.lowBoundary()", "DATE"), tagged("hour", &of("hour", "time"), "TIME"),
        tagged("local", "deceased.ofType(dateTime)", "TIMESTAMP"), tagged("moment", "deceased.ofType(dateTime)", "TIMESTAMPTZ"),
        tagged("short", "name.first().family", "VARCHAR(3)"), tagged("padded", "gender", "CHAR(8)"),
        tagged("yes", "name.first().use", "BOOLEAN"), tagged("text", "active", "TEXT"), tagged("json", "birthDate", "JSON")]}]})
}

fn patients() -> (Database, Client) {
    let extension = |values: Value| {
        let values = values.as_object().unwrap().iter();
        let one = |(name, value): (&String, &Value)| {
            let mut one = value.clone();
            one["url"] = format!("http://x/{name}").into();
            one
        };
        values.map(one).collect::<Vec<Value>>()
    };
    let database = Database::new();
    let mut client = database.connect();
    let of_a: Value = serde_json::from_str(
        r#"{"cost": {"valueDecimal": 1234.565}, "seen": {"valueInstant": "2021-06-10T08:26:10.7074545+03:00"},
            "hour": {"valueTime": "23:59:59.5"}, "large": {"valueDecimal": 9007199254740993}}"#,
    )
    .unwrap();
    let of_b = json!({"cost": {"valueDecimal": -0.50}, "seen": {"valueInstant": "1969-12-31T23:59:60Z"}});
    store(
        &mut client,
        &database,
        &[
            json!({"resourceType": "Patient", "id": "a", "active": true, "birthDate": "1970-06", "gender": "female",
                "multipleBirthInteger": 2, "name": [{"use": "true", "family": "Ødegård, \"the\" first\n"}, {"family": "Meier"}],
                "photo": [{"data": "aGVs bG8="}], "managingOrganization": {"reference": "Organization/o"},
                "deceasedDateTime": "2021-06-10T08:26:10.707454+03:00", "extension": extension(of_a)}),
            json!({"resourceType": "Patient", "id": "b", "active": false, "birthDate": "1969-12-31", "gender": "male",
                "multipleBirthInteger": -3, "name": [{"use": "off", "family": ""}], "photo": [{"data": ""}],
                "deceasedDateTime": "1901-01-01", "extension": extension(of_b)}),
            json!({"resourceType": "Patient", "id": "c"}),
        ],
    );
    (database, client)
}

/// How a column of a type is compared, and its text.
fn way(name: &str, kind: &str) -> (&'static str, String) {
    let quoted = format!("\"{name}\"");
    match kind {
        "boolean" => ("bool", format!("CASE WHEN {quoted} THEN 't' WHEN NOT {quoted} THEN 'f' END")),
        "real" => ("real", format!("{quoted}::text")),
        "double precision" => ("float", format!("{quoted}::text")),
        "date" => ("days", format!("({quoted} - '1970-01-01')::text")),
        "bytea" => ("hex", format!("encode({quoted}, 'hex')")),
        "jsonb" => ("nested", format!("{quoted}::text")),
        "numeric(10,2)" => ("decimal", format!("{quoted}::text")),
        _ if kind.starts_with("time") => ("micros", format!("(extract(epoch FROM {quoted}) * 1000000)::bigint::text")),
        // A cast of a padded text takes its blanks away.
        _ => ("text", format!("CASE WHEN {quoted} IS NOT NULL THEN format('%s', {quoted}) END")),
    }
}

#[test]
fn cells_are_those_of_the_view_of_sql_in_every_type() {
    let (database, mut client) = patients();
    // What FHIR's JSON is as text is none of jsonb's.
    let mut created = every_type();
    created["select"][0]["column"].as_array_mut().unwrap().pop();
    let file = file(&database, &mut client, "every_type.parquet", &call(&every_type().to_string()));
    run(&mut client, &format!("SELECT bulk_create_view('flat', '{}')", created.to_string().replace('\'', "''")));
    let types = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'flat'::regclass AND attnum > 0 ORDER BY attnum";
    let columns: Vec<(String, String)> =
        client.query(types, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let (mut ways, mut texts) = (Vec::new(), Vec::new());
    for (name, kind) in &columns {
        let (way, text) = way(name, kind);
        ways.push(json!([name, way]));
        texts.push(text);
    }
    ways.push(json!(["json", "nested"]));
    texts.push("to_json(born)::text".to_owned());
    let sql = format!("SELECT to_json(ARRAY[{}]) FROM flat ORDER BY id", texts.join(", "));
    let expected: Vec<Value> = rows(&mut client, &sql).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(expected.len(), 3);
    compare_parquet(&file, &ways, &expected);
    let script = "import duckdb, pyarrow.parquet as pq, sys\n\
        schema = pq.read_schema(sys.argv[1])\n\
        print(*[f'{field.name} {field.type}' for field in schema if str(field.type) != 'string'], sep='\\n')\n\
        print(*duckdb.sql(f\"SELECT organization, families FROM '{sys.argv[1]}'\").types)";
    let binary = "active bool|births int32|at timestamp[us, tz=UTC]|seen timestamp[us, tz=UTC]|photo binary|\
        organization extension<arrow.json>|families extension<arrow.json>|large int64|small int32|big int64|real float|\
        double double|exact decimal128(10, 2)|day date32[day]|hour time64[us]|local timestamp[us]|moment timestamp[us, tz=UTC]|\
        yes bool|json extension<arrow.json>|JSON JSON";
    assert_eq!(python(script, &[&file]).trim().replace('\n', "|"), binary);
}

#[test]
fn a_value_that_is_none_of_its_columns_type_is_an_error_that_names_both() {
    let (_database, mut client) = patients();
    let mut refused = |column: Value| {
        let view = json!({"resource": "Patient", "select": [{"column": [column]}]}).to_string();
        fails(&mut client, &format!("SELECT {}", call(&view)))
    };
    for (column, state, resource) in [
        (tagged("x", "birthDate", "DATE"), "22007", "a"),
        (tagged("x", "name.family.first()", "INTEGER"), "22P02", "a"),
        (tagged("x", "40000", "SMALLINT"), "22003", "a"),
        (tagged("x", "1000", "NUMERIC(4, 1)"), "22003", "a"),
        (tagged("x", "'NaN'", "NUMERIC(4, 1)"), "22003", "a"),
        (tagged("x", "'infinity'", "TIMESTAMPTZ"), "22008", "a"),
        (json!({"name": "x", "path": "gender", "type": "base64Binary"}), "22P02", "a"),
        (json!({"name": "x", "path": "1.5", "type": "integer"}), "22P02", "a"),
    ] {
        let shown = column.to_string();
        let error = refused(column);
        assert_error_with_hint(&error, state, &[&format!("column \"x\" of Patient \"{resource}\": ")]);
        assert!(!error.message().is_empty(), "{shown}");
    }
    let error = refused(tagged("x", "id", "MONEY"));
    assert_error_with_hint(&error, "22023", &["ansi/type \"MONEY\" is not known"]);
    let ids = view("Patient", &[("id", "id")]);
    for (sql, piece) in [
        (format!("dump_view('{ids}', 'parquet')"), "format parquet is binary, and has no lines"),
        (format!("dump_view_chunks('{ids}', 'parquet', true)"), "takes no gzip"),
        (
            format!("dump_view_chunks('{ids}', 'parquet', options => '{{\"header\": true}}')"),
            "unknown option \"header\"",
        ),
        (
            format!(
                "bulk_sql_run('{{\"subjectResource\": {}, \"_format\": \"parquet\"}}', true)",
                ids.replacen('{', "{\"resourceType\": \"ViewDefinition\", ", 1)
            ),
            "takes no gzip",
        ),
    ] {
        assert_error_with_hint(&fails(&mut client, &format!("SELECT {sql}")), "22023", &[piece]);
    }
}

#[test]
fn row_groups_of_one_resource_and_of_many_are_whole() {
    let database = Database::new();
    let mut client = database.connect();
    let names: Vec<Value> = (0..550).map(|n| json!({"family": format!("family {n}")})).collect();
    store(&mut client, &database, &[json!({"resourceType": "Patient", "id": "p", "name": names})]);
    let each = |name: &str| json!({"forEach": "name", "column": [{"name": name, "path": "family"}]});
    let product = json!({"resource": "Patient", "select": [{"column": [{"name": "none", "path": "gender"}]}, each("a"), each("b")]});
    let call = call(&product.to_string());
    let script = "import duckdb, pyarrow.parquet as pq, sys\n\
        file = pq.ParquetFile(sys.argv[1]).metadata\n\
        groups = [file.row_group(at) for at in range(file.num_row_groups)]\n\
        print([group.num_rows for group in groups], {group.column(at).compression for group in groups for at in range(3)})\n\
        print([(g.column(1).statistics.min, g.column(1).statistics.max, g.column(0).statistics.null_count) for g in groups[:1]])\n\
        print(*duckdb.sql(f\"SELECT count(*), count(DISTINCT a || b), count(none) FROM '{sys.argv[1]}'\").fetchall())";
    let product = file(&database, &mut client, "product.parquet", &call);
    let found = python(script, &[&product]);
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        ["[122880, 122880, 56740] {'ZSTD'}", "[('family 0', 'family 99', 122880)]", "(302500, 302500, 0)"]
    );
    let none = file(&database, &mut client, "none.parquet", &call.replace("1024", "1024, options => '{\"limit\": 0}'"));
    assert_eq!(python(script, &[&none]).lines().last(), Some("(0, 0, 0)"));
}

#[test]
fn sql_run_makes_files_of_views_and_of_queries() {
    let (database, mut client) = patients();
    let mut subject: Value = serde_json::from_str(&view("Patient", &[("id", "id"), ("active", "active")])).unwrap();
    subject["resourceType"] = "ViewDefinition".into();
    subject["url"] = "http://example.org/active".into();
    let query = "SELECT id AS id, active AS active FROM v";
    let data: String = rows(&mut client, &format!("SELECT encode('{query}', 'base64')")).remove(0);
    let library = json!({"resourceType": "Library", "type": {"coding": [{"code": "sql-query"}]},
        "content": [{"contentType": "application/sql", "data": data}],
        "relatedArtifact": [{"type": "depends-on", "label": "v", "resource": "http://example.org/active"}]});
    for (name, request) in [
        ("view.parquet", json!({"subjectResource": subject, "_format": "parquet"})),
        ("query.parquet", json!({"subjectResource": library, "context": [subject], "_format": "parquet"})),
    ] {
        let call = format!("bulk_sql_run('{}', chunk_bytes => 1024)", request.to_string().replace('\'', "''"));
        let file = file(&database, &mut client, name, &call);
        let expected = [json!(["a", "t"]), json!(["b", "f"]), json!(["c", null])];
        compare_parquet(&file, &[json!(["id", "text"]), json!(["active", "bool"])], &expected);
    }
}
