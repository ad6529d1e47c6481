//! The errors that the author of a query gets.

use super::dump_sql;
use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, fails, rows, run};
use fhir_bulk_tests::{Client, Database, DbError};
use postgres::error::ErrorPosition;

fn refused(client: &mut Client, query: &str) -> DbError {
    fails(client, &format!("SELECT {}", dump_sql(query, "csv", "{}")))
}

#[test]
fn a_mistake_is_shown_at_its_place_in_the_callers_query() {
    let mut client = Database::new().connect();
    run(&mut client, "CREATE TABLE t (a integer)");
    for (query, state, wrong) in [
        ("SELECT a frm t t", "42601", "t t"),
        ("SELECT a,\n  größe, b FROM t", "42703", "größe"),
        ("SELECT * FROM nowhere", "42P01", "nowhere"),
        ("SELECT 1 + 'x'", "22P02", "'x'"),
        ("SELECT nothing(1)", "42883", "nothing"),
        ("SELECT $1", "42P02", "$1"),
        ("SELECT 'open", "42601", "'open"),
        ("SELECT a FROM t ORDER BY 2", "42P10", "2"),
    ] {
        let error = refused(&mut client, query);
        assert_error(&error, state, &[]);
        let Some(ErrorPosition::Internal { position, query: shown }) = error.position() else {
            panic!("no position: {error:?}")
        };
        assert_eq!(shown, query);
        // Counted in characters, from 1.
        let place: String = query.chars().skip(*position as usize - 1).collect();
        assert!(place.starts_with(wrong), "{query}: {place}");
    }
}

#[test]
fn psql_prints_the_line_and_the_caret() {
    let database = Database::new();
    let sql = format!("SELECT {}", dump_sql("SELECT id\nFROM patients", "csv", "{}"));
    let output = database.cluster().psql("postgres", database.name(), &["-c", &sql]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        printed,
        "ERROR:  relation \"patients\" does not exist\nLINE 2: FROM patients\n             ^\nQUERY:  SELECT id\nFROM patients\n"
    );
}

#[test]
fn an_error_that_a_function_raises_arrives_with_all_that_it_says() {
    let mut client = Database::new().connect();
    run(
        &mut client,
        "CREATE FUNCTION picky(n integer) RETURNS integer LANGUAGE plpgsql AS $$
         BEGIN
           IF n = 3 THEN
             RAISE EXCEPTION 'not %', n USING ERRCODE = 'PT409', DETAIL = 'a detail', HINT = 'a hint',
               TABLE = 'a_table', CONSTRAINT = 'a_constraint', COLUMN = 'a_column', DATATYPE = 'a_type', SCHEMA = 'a_schema';
           END IF;
           RETURN n;
         END $$;
         CREATE FUNCTION careless() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1 frm x y'; RETURN 1; END $$;
         CREATE TABLE checked (n integer CONSTRAINT positive CHECK (n > 0))",
    );
    let error = refused(&mut client, "SELECT picky(g) FROM generate_series(1, 5) AS g");
    assert_error(&error, "PT409", &["not 3"]);
    assert_eq!((error.detail(), error.hint()), (Some("a detail"), Some("a hint")));
    assert_eq!((error.table(), error.constraint()), (Some("a_table"), Some("a_constraint")));
    assert_eq!(
        (error.column(), error.datatype(), error.schema()),
        (Some("a_column"), Some("a_type"), Some("a_schema"))
    );
    assert_eq!(error.where_(), Some("PL/pgSQL function picky(integer) line 4 at RAISE"));
    let error = refused(&mut client, "SELECT careless()");
    let Some(ErrorPosition::Internal { query, .. }) = error.position() else { panic!("{error:?}") };
    assert_eq!(query, "SELECT 1 frm x y");
    // Around it, the caller's own context; what came before does not stick to later errors.
    let sql = format!("DO $$ BEGIN PERFORM {}; END $$", dump_sql("SELECT picky(3)", "csv", "{}"));
    let context = fails(&mut client, &sql).where_().unwrap().to_owned();
    assert!(context.starts_with("PL/pgSQL function picky(integer) line 4 at RAISE\nSQL statement"), "{context}");
    assert_eq!(context.matches("inline_code_block").count(), 1, "{context}");
    let error = fails(&mut client, "SELECT dump_sql('SELECT 1', 'xml')");
    assert_eq!((error.where_(), error.table(), error.position()), (None, None, None), "{error:?}");
    let error = fails(&mut client, "SELECT 1 / 0");
    assert_eq!((error.where_(), error.table()), (None, None));
}

#[test]
fn an_error_in_the_middle_is_no_shorter_success() {
    let mut client = Database::new().connect();
    let query = "SELECT 1 / (90000 - g), repeat('x', 50) FROM generate_series(1, 100000) AS g";
    let call = format!("SELECT {}", dump_sql(query, "csv", "{}"));
    for sql in [
        call.clone(),
        call.replace("dump_sql(", "dump_sql_chunks(query => ").replace(", 'csv', '{}'", ", gzip => true"),
        format!("COPY ({call}) TO STDOUT"),
    ] {
        let error = match sql.starts_with("COPY") {
            false => fails(&mut client, &sql),
            true => {
                let mut reader = client.copy_out(&sql).unwrap();
                let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
                drop(reader);
                let error = error.into_inner().unwrap();
                error.downcast_ref::<postgres::Error>().and_then(postgres::Error::as_db_error).unwrap().clone()
            }
        };
        assert_error(&error, "22012", &["division by zero"]);
    }
    assert_eq!(rows(&mut client, "SELECT 1"), ["1"]);
}

#[test]
fn what_is_not_one_query_is_named() {
    let mut client = Database::new().connect();
    for (query, message) in [
        ("", "the query is empty"),
        ("  -- nothing\n;", "the query is empty"),
        ("SELECT 1; SELECT 2", "the query has 2 statements"),
        ("SELECT 1; DROP TABLE t", "the query has 2 statements"),
    ] {
        assert_error_with_hint(&refused(&mut client, query), "42601", &[message]);
    }
    let error = fails(&mut client, "SELECT dump_sql('SELECT 1', 'xlsx')");
    assert_error_with_hint(&error, "22023", &["unknown format \"xlsx\""]);
    assert_eq!(error.hint(), Some("The formats are csv, tsv, ndjson, json, sql, elastic-bulk, parquet."));
    for sql in [
        "dump_sql(NULL)",
        "dump_sql('SELECT 1', NULL)",
        "dump_sql('SELECT 1', 'csv', NULL)",
        "dump_sql_chunks('SELECT 1', gzip => NULL)",
        "dump_sql_chunks('SELECT 1', chunk_bytes => NULL)",
    ] {
        assert_error(&fails(&mut client, &format!("SELECT {sql}")), "22004", &["must not be NULL"]);
    }
    for size in [1023, 16_777_217] {
        let error = fails(&mut client, &format!("SELECT dump_sql_chunks('SELECT 1', chunk_bytes => {size})"));
        assert_error_with_hint(&error, "22023", &["chunk_bytes"]);
    }
}

#[test]
fn bulk_dump_too_keeps_what_a_policy_raises() {
    let database = Database::new();
    let mut client = database.connect();
    let role = database.role("reader");
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        &format!(
            "INSERT INTO patient (id, txid, status, resource) VALUES ('a', 1, 'created', '{{}}');
             CREATE FUNCTION checks() RETURNS boolean LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'no consent' USING ERRCODE = 'PT403'; END $$;
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON patient USING (checks());
             GRANT SELECT ON patient TO {role}"
        ),
    );
    for sql in ["SELECT bulk_dump('Patient')", "SELECT bulk_dump_chunks('Patient')"] {
        let error = fails(&mut database.connect_as(&role), sql);
        assert_error(&error, "PT403", &["no consent"]);
        assert_eq!(error.where_(), Some("PL/pgSQL function checks() line 1 at RAISE"));
    }
}
