//! Short helpers for tests of a server.

use crate::{Client, DbError, error};
use postgres::SimpleQueryMessage;

/// The rows of the last statements, columns as psql prints them, joined by `|`; NULL is `∅`.
pub fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    try_rows(client, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

fn try_rows(client: &mut Client, sql: &str) -> Result<Vec<String>, postgres::Error> {
    let text = |row: &postgres::SimpleQueryRow| {
        (0..row.len()).map(|at| row.get(at).unwrap_or("∅")).collect::<Vec<_>>().join("|")
    };
    let messages = client.simple_query(sql)?;
    Ok(messages
        .iter()
        .filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(text(row)) } else { None })
        .collect())
}

/// The only row of a query.
pub fn value(client: &mut Client, sql: &str) -> String {
    let mut rows = rows(client, sql);
    assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
    rows.remove(0)
}

/// A number.
pub fn count(client: &mut Client, sql: &str) -> i64 {
    value(client, sql).parse().unwrap()
}

/// Runs statements that must work.
pub fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// The error of a statement that must fail.
pub fn fails(client: &mut Client, sql: &str) -> DbError {
    let result = try_rows(client, sql);
    assert!(result.is_err(), "this must fail: {sql}\n{result:?}");
    error(result)
}

/// Asserts the SQLSTATE and pieces of the message.
#[track_caller]
pub fn assert_error(error: &DbError, state: &str, pieces: &[&str]) {
    assert_eq!(error.code().code(), state, "{error:?}");
    for piece in pieces {
        assert!(error.message().contains(piece), "no {piece:?} in {error:?}");
    }
}

/// As [`assert_error`], and that there is a HINT.
#[track_caller]
pub fn assert_error_with_hint(error: &DbError, state: &str, pieces: &[&str]) {
    assert_error(error, state, pieces);
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "no HINT in {error:?}");
}

/// `SELECT bulk_load('url', arguments)`, with arguments such as `'Patient', fhir => true`.
pub fn load(client: &mut Client, url: &str, arguments: &str) -> String {
    value(client, &load_sql(url, arguments))
}

/// The error of a load.
pub fn load_fails(client: &mut Client, url: &str, arguments: &str) -> DbError {
    fails(client, &load_sql(url, arguments))
}

/// The statement of a load.
pub fn load_sql(url: &str, arguments: &str) -> String {
    let separator = if arguments.is_empty() { "" } else { ", " };
    format!("SELECT bulk_load('{url}'{separator}{arguments})::text")
}

/// Resource tables as Aidbox makes them, on its own, before this extension is there.
pub fn aidbox_tables(client: &mut Client, types: &[&str]) {
    run(
        client,
        "CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated');
         CREATE SEQUENCE IF NOT EXISTS transaction_id_seq",
    );
    for resource_type in types {
        let table = resource_type.to_lowercase();
        for (name, key) in [(table.clone(), "id"), (format!("{table}_history"), "id, txid")] {
            run(
                client,
                &format!(
                    "CREATE TABLE \"{name}\" (id text, txid bigint NOT NULL,
                     cts timestamptz DEFAULT current_timestamp, ts timestamptz DEFAULT current_timestamp,
                     resource_type text DEFAULT '{resource_type}', status resource_status NOT NULL,
                     resource jsonb NOT NULL, PRIMARY KEY ({key}))"
                ),
            );
        }
    }
}

/// Lines of patients `p-<first>` to `p-<last>`, of some 200 bytes each.
pub fn patients(numbers: std::ops::RangeInclusive<usize>) -> String {
    numbers.map(|n| patient(&format!("p-{n}"), n) + "\n").collect()
}

/// One patient's line.
pub fn patient(id: &str, number: usize) -> String {
    format!(
        "{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"active\":true,\"name\":[{{\"family\":\"Family {number}\",\
         \"given\":[\"Zoë\",\"Ødegård\"]}}],\"birthDate\":\"1970-01-01\",\"multipleBirthInteger\":{number}}}"
    )
}

/// Every table, index, view and sequence that is neither PostgreSQL's nor an extension's; to see that nothing was made.
pub fn relations(client: &mut Client) -> Vec<String> {
    rows(
        client,
        "SELECT relnamespace::regnamespace, relname, relkind FROM pg_class
         WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)' AND NOT EXISTS
           (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e' AND objid IN
             (pg_class.oid, (SELECT indrelid FROM pg_index WHERE indexrelid = pg_class.oid)))
         ORDER BY 1, 2",
    )
}

/// The folder with more real data; says so where the checkout has none beside it, also when tests print nothing else.
pub fn shared_data_or_say_so(what: &str) -> Option<std::path::PathBuf> {
    let folder = crate::shared_data();
    if folder.is_none() {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: no folder with {what} beside the checkout");
    }
    folder
}
