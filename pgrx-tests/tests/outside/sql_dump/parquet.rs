//! Format `parquet`, read back by pyarrow and DuckDB.

use super::{every_type, literal};
use crate::support::{assert_error, assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::tools::{compare_parquet, python};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

fn file(client: &mut Client, query: &str) -> Vec<u8> {
    let sql = format!("SELECT dump_sql_chunks({}, 'parquet', chunk_bytes => 1024)", literal(query));
    let chunks = client.query(&sql, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    chunks.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect()
}

/// How a type is compared, and its column as text.
fn way(name: &str, kind: &str, category: &str) -> (&'static str, String) {
    match kind {
        "boolean" => ("bool", format!("CASE WHEN {name} THEN 't' WHEN NOT {name} THEN 'f' END")),
        "real" => ("real", format!("{name}::text")),
        "double precision" => ("float", format!("{name}::text")),
        "date" => ("days", format!("({name} - '1970-01-01')::text")),
        "time without time zone" | "timestamp without time zone" | "timestamp with time zone" => {
            ("micros", format!("(extract(epoch FROM {name}) * 1000000)::bigint::text"))
        }
        "uuid" => ("hex", format!("replace({name}::text, '-', '')")),
        "bytea" => ("hex", format!("encode({name}, 'hex')")),
        _ if ["A", "C"].contains(&category) => ("nested", String::new()),
        // As its type writes it; a cast of inet adds the length.
        _ => ("text", format!("CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END")),
    }
}

#[test]
fn pyarrow_and_duckdb_read_back_every_value_of_every_type() {
    let (database, mut client) = every_type::database();
    run(&mut client, "SET DateStyle = ISO");
    let columns = client
        .query(
            "SELECT quote_ident(attname), format_type(atttypid, NULL), typcategory::text, attname::text FROM pg_attribute a
             JOIN pg_type t ON t.oid = atttypid WHERE attrelid = 'every_type'::regclass AND attnum > 0 ORDER BY attnum",
            &[],
        )
        .unwrap();
    let (mut selected, mut ways, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for column in &columns {
        let [name, kind, category, plain]: [String; 4] = [0, 1, 2, 3].map(|at| column.get(at));
        let infinite = ["date", "timestamp without time zone", "timestamp with time zone"].contains(&kind.as_str());
        let finite = if infinite { format!("NULLIF(NULLIF({name}, 'infinity'), '-infinity')") } else { name.clone() };
        selected.push(format!("{finite} AS {name}"));
        let (way, text) = way(&finite, &kind, &category);
        ways.push(json!([plain, way]));
        // Arrays and composites are those of ndjson.
        let of_ndjson = format!("(line::jsonb -> {})::text", literal(&plain));
        texts.push(if way == "nested" { format!("NULLIF({of_ndjson}, 'null')") } else { text });
    }
    let query = format!("SELECT {} FROM every_type ORDER BY n", selected.join(", "));
    let path = database.path("every_type.parquet");
    std::fs::write(&path, file(&mut client, &query)).unwrap();
    run(
        &mut client,
        &format!(
            "CREATE TABLE numbered AS SELECT *, row_number() OVER (ORDER BY n) AS row FROM every_type;
             CREATE TABLE lines AS SELECT line, row_number() OVER () AS row FROM (SELECT dump_sql({}, 'ndjson') AS line) d",
            literal(&query)
        ),
    );
    let sql = format!("SELECT to_json(ARRAY[{}]) FROM numbered JOIN lines USING (row) ORDER BY row", texts.join(", "));
    let found: Vec<Value> = rows(&mut client, &sql).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(found.len(), 4);
    compare_parquet(&path, &ways, &found);
}

#[test]
fn declared_numerics_are_decimals_of_their_digits() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE DOMAIN price AS numeric(12,3);
         CREATE TABLE n (small numeric(9,2), middle numeric(18,0), large numeric(38,10), whole numeric(20), hundreds numeric(3,-2),
             tiny numeric(2,5), price price, huge numeric(1000,2), free numeric);
         INSERT INTO n VALUES
             (1234567.89, 999999999999999999, 1234567890123456789012345678.0123456789, 12345678901234567890, 12345, 0.00012, 1.5, 0.10, 1.10),
             (-9999999.99, -999999999999999999, -9999999999999999999999999999.9999999999, -1, -99900, -0.00099, 0, -1, 'NaN'),
             (0, 0, 0, 0, 0, 0, -999999999.999, 0, 0), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    let kinds = [
        ("small", "decimal128(9, 2)"),
        ("middle", "decimal128(18, 0)"),
        ("large", "decimal128(38, 10)"),
        ("whole", "decimal128(20, 0)"),
        ("hundreds", "decimal128(5, 0)"),
        ("tiny", "decimal128(5, 5)"),
        ("price", "decimal128(12, 3)"),
        ("huge", "string"),
        ("free", "string"),
    ];
    let path = database.path("n.parquet");
    std::fs::write(&path, file(&mut client, "TABLE n")).unwrap();
    let schema =
        "import pyarrow.parquet as pq, sys\nfor field in pq.read_schema(sys.argv[1]): print(field.name, field.type)";
    let found = python(schema, &[&path]);
    let expected: Vec<String> = kinds.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    let texts: Vec<String> = kinds.iter().map(|(name, _)| format!("{name}::text")).collect();
    let texts = rows(&mut client, &format!("SELECT to_json(ARRAY[{}]) FROM n", texts.join(", ")));
    let texts: Vec<Value> = texts.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let ways: Vec<Value> =
        kinds.iter().map(|(name, kind)| json!([name, if *kind == "string" { "text" } else { "decimal" }])).collect();
    compare_parquet(&path, &ways, &texts);
}

#[test]
fn the_types_of_columns_are_those_of_the_documentation() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "CREATE TYPE mood AS ENUM ('fine'); CREATE TYPE pair AS (a int, b text)");
    let kinds = [
        ("boolean", "bool"),
        ("smallint", "int32"),
        ("integer", "int32"),
        ("bigint", "int64"),
        ("real", "float"),
        ("double precision", "double"),
        ("date", "date32[day]"),
        ("time", "time64[us]"),
        ("timestamp", "timestamp[us]"),
        ("timestamptz", "timestamp[us, tz=UTC]"),
        ("bytea", "binary"),
        ("text", "string"),
        ("varchar(3)", "string"),
        ("mood", "string"),
        ("interval", "string"),
        ("numeric", "string"),
        ("numeric(5,2)", "decimal128(5, 2)"),
    ];
    let columns: Vec<String> =
        kinds.iter().enumerate().map(|(at, (kind, _))| format!("NULL::{kind} AS c{at}")).collect();
    for (rows, suffix) in [(1, ""), (0, " WHERE false")] {
        let path = database.path("types.parquet");
        std::fs::write(&path, file(&mut client, &format!("SELECT {}{suffix}", columns.join(", ")))).unwrap();
        let script = "import duckdb, pyarrow.parquet as pq, sys\n\
            read = pq.read_table(sys.argv[1])\n\
            assert duckdb.sql(f\"SELECT count(*) FROM '{sys.argv[1]}'\").fetchall()[0][0] == read.num_rows\n\
            print(read.num_rows, *[field.type for field in read.schema], sep='\\n')";
        let found = python(script, &[&path]);
        let expected: Vec<String> =
            [rows.to_string()].into_iter().chain(kinds.iter().map(|(_, kind)| (*kind).to_owned())).collect();
        assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    }
    let query =
        "SELECT '{}'::jsonb AS a, '{}'::json AS b, ARRAY[1] AS c, ROW(1, 'x')::pair AS d, gen_random_uuid() AS e";
    let path = database.path("named.parquet");
    std::fs::write(&path, file(&mut client, query)).unwrap();
    let script = "import duckdb, sys\nprint(*duckdb.sql(f\"SELECT * FROM '{sys.argv[1]}'\").types)";
    assert_eq!(python(script, &[&path]).trim(), "JSON JSON JSON JSON UUID");
}

#[test]
fn row_groups_have_statistics_and_are_compressed() {
    let database = Database::new();
    let mut client = database.connect();
    let path = database.path("groups.parquet");
    let query = "SELECT g AS n, 'text ' || g AS t, NULLIF(g % 10, 0) AS fewer FROM generate_series(1, 300000) AS g";
    std::fs::write(&path, file(&mut client, query)).unwrap();
    let script = "import duckdb, pyarrow.parquet as pq, sys\n\
        file = pq.ParquetFile(sys.argv[1]).metadata\n\
        groups = [file.row_group(at) for at in range(file.num_row_groups)]\n\
        print([group.num_rows for group in groups], {group.column(at).compression for group in groups for at in range(3)})\n\
        print([(g.column(0).statistics.min, g.column(0).statistics.max, g.column(2).statistics.null_count) for g in groups])\n\
        print(duckdb.sql(f\"SELECT count(*), sum(n), count(fewer), max(t) FROM '{sys.argv[1]}' WHERE n > 250000\").fetchall())";
    assert_eq!(
        python(script, &[&path]).lines().collect::<Vec<_>>(),
        [
            "[122880, 122880, 54240] {'ZSTD'}",
            "[(1, 122880, 12288), (122881, 245760, 12288), (245761, 300000, 5424)]",
            "[(50000, 13750025000, 45000, 'text 300000')]",
        ]
    );
}

#[test]
fn what_has_no_place_in_a_file_is_an_error_that_names_it() {
    let database = Database::new();
    let mut client = database.connect();
    let mut refused =
        |query: &str| fails(&mut client, &format!("SELECT dump_sql_chunks({}, 'parquet')", literal(query)));
    for (value, state) in [
        ("date 'infinity'", "22008"),
        ("timestamp '-infinity'", "22008"),
        ("timestamptz 'infinity'", "22008"),
        ("timestamp '294270-01-01'", "22008"),
        ("time '24:00'", "22008"),
        ("'NaN'::numeric(5,2)", "22003"),
    ] {
        let error = refused(&format!("SELECT 1 AS fine, {value} AS \"a column\""));
        assert_error_with_hint(&error, state, &["\"a column\"", "none in Parquet"]);
    }
    assert_error_with_hint(&refused("SELECT 1 AS a, 2 AS a"), "42701", &["column \"a\""]);
    assert_error(&refused("SELECT"), "22023", &["format parquet needs a query with columns"]);
    assert_error(&refused("SELECT nothing"), "42703", &["nothing"]);
    for (call, piece) in [
        ("dump_sql('SELECT 1 AS a', 'parquet')", "has no lines"),
        ("dump_sql_chunks('SELECT 1 AS a', 'parquet', gzip => true)", "no gzip"),
        ("dump_sql_chunks('SELECT 1 AS a', 'parquet', options => '{\"header\": true}')", "unknown option"),
    ] {
        assert_error_with_hint(&fails(&mut client, &format!("SELECT {call}")), "22023", &[piece]);
    }
    // An error in the middle is no whole file.
    let late = "SELECT dump_sql_chunks('SELECT 1 / (200000 - g) AS n FROM generate_series(1, 300000) g', 'parquet')";
    assert_error(&fails(&mut client, late), "22012", &[]);
    assert_eq!(value(&mut client, "SELECT 1"), "1");
}
