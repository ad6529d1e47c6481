//! Analytics tools can read the output: pandas and DuckDB, which `scripts/setup.sh --tests` installs into `target/venv`.

use super::{body, every_type};
use crate::support::{rows, value};
use fhir_bulk_tests::Database;
use fhir_bulk_tests::tools::python;
use serde_json::Value;

#[test]
fn pandas_reads_back_every_value_of_csv_and_tsv() {
    let (database, mut client) = every_type::database();
    let expected = rows(&mut client, "SELECT * FROM every_type ORDER BY n");
    for (format, delimiter) in [("csv", ","), ("tsv", "\\t")] {
        let options = r#"{"header": true, "null": "∅"}"#;
        let path = database.path(format);
        std::fs::write(&path, body(&mut client, "SELECT * FROM every_type ORDER BY n", format, options)).unwrap();
        let script = format!(
            "import json, pandas, sys\n\
             read = pandas.read_csv(sys.argv[1], sep='{delimiter}', dtype=str, keep_default_na=False)\n\
             print(json.dumps(['|'.join(row) for row in read.itertuples(index=False, name=None)]))"
        );
        let read: Vec<String> = serde_json::from_str(&python(&script, &[&path])).unwrap();
        assert_eq!(read, expected, "{format}");
    }
}

#[test]
fn pandas_and_duckdb_compute_from_csv_and_ndjson_what_postgresql_does() {
    let database = Database::new();
    let mut client = database.connect();
    let query = "SELECT g AS id, CASE g % 3 WHEN 0 THEN NULL ELSE 'ward \"' || g % 3 || '\",\n x' END AS ward, g * 1.25 AS cost,
                 timestamptz '2024-01-01 00:00Z' + g * interval '1 hour' AS at, jsonb_build_object('n', g) AS doc
                 FROM generate_series(1, 3000) AS g";
    let [csv, ndjson] = [("csv", r#"{"header": true}"#), ("ndjson", "{}")].map(|(format, options)| {
        let path = database.path(&format!("costs.{format}"));
        std::fs::write(&path, body(&mut client, query, format, options)).unwrap();
        path
    });
    let expected: Value = serde_json::from_str(&value(
        &mut client,
        &format!("SELECT json_agg(json_build_array(ward, n, cost) ORDER BY ward) FROM (SELECT ward, count(*) AS n, sum(cost)::float8 AS cost FROM ({query}) AS q WHERE at >= '2024-02-01 00:00Z' GROUP BY ward) AS q"),
    ))
    .unwrap();
    let pandas = "import json, pandas, sys\n\
        costs = pandas.read_csv(sys.argv[1], parse_dates=['at'])\n\
        costs = costs[costs['at'] >= '2024-02-01 00:00+00']\n\
        sums = costs.groupby('ward', dropna=False)['cost'].agg(['size', 'sum'])\n\
        print(json.dumps([[None if pandas.isna(w) else w, int(n), float(c)] for w, n, c in sums.itertuples()]))";
    let duckdb = "import duckdb, json, sys\n\
        table = 'read_csv' if sys.argv[1].endswith('csv') else 'read_json'\n\
        print(json.dumps(duckdb.sql(f\"\"\"SELECT ward, count(*), sum(cost)::double FROM {table}('{sys.argv[1]}')\n\
            WHERE \"at\" >= TIMESTAMPTZ '2024-02-01 00:00:00+00' GROUP BY ward ORDER BY ward NULLS LAST\"\"\").fetchall()))";
    for (script, path) in [(pandas, &csv), (duckdb, &csv), (duckdb, &ndjson)] {
        let read: Value = serde_json::from_str(&python(script, &[path])).unwrap();
        let plain = |value: &Value| {
            let rows = value.as_array().unwrap().iter();
            rows.map(|row| (row[0].clone(), row[1].as_i64(), row[2].as_f64())).collect::<Vec<_>>()
        };
        assert_eq!(plain(&read), plain(&expected), "{script}");
    }
}
