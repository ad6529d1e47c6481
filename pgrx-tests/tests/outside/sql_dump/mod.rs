//! `dump_sql` and `dump_sql_chunks`: the output of each format, what a query may do, and errors.

mod bulk;
mod csv;
mod errors;
mod every_type;
mod identity;
mod json;
mod parquet;
mod read_only;
mod rights;
mod sql;
mod stream;
mod tools;

use fhir_bulk_tests::Client;
use std::io::Read as _;

/// A string constant of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `dump_sql(query, format, options)`, to be called in a target list.
fn dump_sql(query: &str, format: &str, options: &str) -> String {
    format!("dump_sql({}, {}, {})", literal(query), literal(format), literal(options))
}

/// The whole body, from its rows; that its chunks make the same is asserted.
fn body(client: &mut Client, query: &str, format: &str, options: &str) -> String {
    let rows = client.query("SELECT dump_sql($1, $2, ($3::text)::jsonb)", &[&query, &format, &options]);
    let rows = rows.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let body: String = rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect();
    let sql = "SELECT dump_sql_chunks($1, $2, options => ($3::text)::jsonb, chunk_bytes => 1024)";
    let chunks: Vec<Vec<u8>> =
        client.query(sql, &[&query, &format, &options]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(chunks.concat() == body.as_bytes(), "the chunks are not the rows: {query}");
    body
}

/// What COPY sends.
fn copied(client: &mut Client, sql: &str) -> String {
    let mut text = String::new();
    client.copy_out(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}")).read_to_string(&mut text).unwrap();
    text
}
