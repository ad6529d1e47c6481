//! Views of SQL: their columns' types, what PostgreSQL does with them, and what stands in their way.

use super::{store, view};
use crate::support::{assert_error, fails, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

fn create(view: &Value) -> String {
    format!("SELECT bulk_create_view('flat', '{}')", view.to_string().replace('\'', "''"))
}

fn patients(count: usize) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    let resources: Vec<Value> = (0..count)
        .map(|n| json!({"resourceType": "Patient", "id": format!("p{n}"), "active": n % 2 == 0, "birthDate": "1970-01-01",
            "multipleBirthInteger": n, "photo": [{"data": "aGVsbG8="}], "name": [{"family": format!("f{n}"), "given": ["a", "b"]}]}))
        .collect();
    store(&mut client, &database, &resources);
    run(&mut client, "ANALYZE patient");
    (database, client)
}

#[test]
fn columns_have_the_types_of_sql_on_fhir() {
    let (_database, mut client) = patients(1);
    let column = |name: &str, path: &str| json!({"name": name, "path": path});
    let tagged = |name: &str, path: &str, ansi: &str| json!({"name": name, "path": path, "tag": [{"name": "ansi/type", "value": ansi}]});
    let view = json!({"resource": "Patient", "select": [{"column": [
        column("id", "id"), column("active", "active"), column("births", "multipleBirth.ofType(integer)"),
        column("at", "meta.lastUpdated"), column("photo", "photo.data"), column("born", "birthDate"),
        {"name": "given", "path": "name.given", "collection": true}, column("name", "name.first()"),
        tagged("day", "birthDate", "DATE"), tagged("short", "name.family", "CHARACTER VARYING(1)"),
        tagged("exact", "multipleBirth.ofType(integer)", "DECIMAL(10, 2)")]}]});
    run(&mut client, &create(&view));
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'flat'::regclass AND attnum > 0";
    assert_eq!(
        value(&mut client, types),
        "text, boolean, integer, timestamp with time zone, bytea, text, jsonb, jsonb, date, character varying(1), numeric(10,2)"
    );
    let row = "SELECT id, active, births, at = p.ts, convert_from(photo, 'UTF8'), born, given, name ->> 'family', day, short, exact
        FROM flat JOIN patient p USING (id)";
    assert_eq!(
        rows(&mut client, &format!("SELECT r::text FROM ({row}) r")),
        ["(p0,t,0,t,hello,1970-01-01,\"[\"\"a\"\", \"\"b\"\"]\",f0,1970-01-01,f,0.00)"]
    );
    let unknown =
        json!({"resource": "Patient", "select": [{"column": [tagged("x", "id", "MONEY; DROP TABLE patient")]}]});
    let error = fails(&mut client, &create(&unknown).replace("'flat'", "'other'"));
    assert_error(&error, "22023", &["ansi/type \"MONEY; DROP TABLE patient\" is not known"]);
}

#[test]
fn a_condition_on_the_id_finds_the_row_by_the_tables_key() {
    let (_database, mut client) = patients(2000);
    run(
        &mut client,
        &format!(
            "SELECT bulk_create_view('flat', '{}')",
            view("Patient", &[("id", "id"), ("births", "multipleBirth.ofType(integer)")])
        ),
    );
    let plan = rows(&mut client, "EXPLAIN (COSTS OFF) SELECT births FROM flat WHERE id = 'p77'").join("\n");
    assert!(plan.contains("Index Scan using patient_pkey") && plan.contains("bulk_view_rows"), "{plan}");
    assert_eq!(rows(&mut client, "SELECT births FROM flat WHERE id = 'p77'"), ["77"]);
    let joined = "SELECT count(*) FROM flat JOIN (VALUES ('p1'), ('p2')) AS v (id) USING (id)";
    assert_eq!(value(&mut client, joined), "2");
    assert_eq!(rows(&mut client, "SELECT dump_sql('SELECT sum(births) FROM flat')"), ["1999000"]);
}

#[test]
fn what_is_kept_for_a_query_is_that_of_its_constants() {
    let (_database, mut client) = patients(1);
    let (id, active) = (view("Patient", &[("a", "id")]), view("Patient", &[("a", "active")]));
    let of_row = "'4.0.1', 'x', 1, now(), 'Patient', '{\"active\": true}'";
    // Views and patients that differ by row, and others in the same place of the next query.
    let views =
        format!("SELECT bulk_view_rows(v, {of_row})::text FROM (VALUES ('{id}'), ('{active}'), ('{id}')) AS t (v)");
    assert_eq!(rows(&mut client, &views), ["{x}", "{true}", "{x}"]);
    let patients = "SELECT bulk_belongs_to(p, 'Patient', 'x', '{}') FROM (VALUES ('[\"x\"]'), ('[\"y\"]')) AS t (p)";
    assert_eq!(rows(&mut client, patients), ["t", "f"]);
    run(
        &mut client,
        &format!("PREPARE q (text) AS SELECT r::text FROM generate_series(1, 2), bulk_view_rows($1, {of_row}) AS r"),
    );
    for (view, cell) in [(&id, "{x}"), (&active, "{true}"), (&id, "{x}")] {
        assert_eq!(rows(&mut client, &format!("EXECUTE q ('{view}')")), [cell, cell]);
    }
    let error = fails(&mut client, &format!("SELECT bulk_view_rows(NULL, {of_row})"));
    assert_error(&error, "22004", &["argument view must not be NULL"]);
}

#[test]
fn a_view_of_sql_stands_on_its_own() {
    let (_database, mut client) = patients(2);
    let of_ids = view("Patient", &[("id", "id")]);
    run(&mut client, &format!("SELECT bulk_create_view('flat', '{of_ids}')"));
    let error = fails(&mut client, &format!("SELECT bulk_create_view('flat', '{of_ids}')"));
    assert_error(&error, "42P07", &["relation \"flat\" already exists"]);
    // Names as in SQL, and none that ends the statement.
    run(&mut client, "CREATE SCHEMA s");
    for (name, stored) in [("s.flat", "s.flat"), ("\"Odd \"\"Name\"", "\"Odd \"\"Name\""), ("Flat2", "flat2")] {
        assert_eq!(rows(&mut client, &format!("SELECT bulk_create_view('{name}', '{of_ids}')")), [stored]);
        assert_eq!(value(&mut client, &format!("SELECT count(*) FROM {stored}")), "2");
    }
    let error = fails(&mut client, &format!("SELECT bulk_create_view('x; DROP TABLE patient', '{of_ids}')"));
    assert_error(&error, "42602", &["argument name is not a table name"]);
    let error = fails(&mut client, &format!("SELECT bulk_create_view('none', '{}')", view("Device", &[("id", "id")])));
    assert_error(&error, "42P01", &["Device"]);
    let error = fails(&mut client, "BEGIN READ ONLY; SELECT bulk_create_view('x', '{}')");
    assert_error(&error, "25006", &["bulk_create_view()"]);
    run(&mut client, "ROLLBACK");
    // It finds its table and its function under any path.
    run(&mut client, "SET search_path = pg_catalog; SET fhir_bulk.fhir_version = '5.0.0'");
    assert_eq!(value(&mut client, "SELECT count(*) FROM public.flat"), "2");
    run(&mut client, "RESET search_path");
    let error = fails(&mut client, "DROP EXTENSION fhir_bulk");
    assert_error(&error, "2BP01", &["cannot drop extension fhir_bulk"]);
    run(&mut client, "SET client_min_messages = error; DROP EXTENSION fhir_bulk CASCADE");
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "2");
}

#[test]
fn a_materialized_view_is_what_it_was_until_it_is_refreshed() {
    let (database, mut client) = patients(1);
    let of_ids = view("Patient", &[("id", "id")]);
    run(
        &mut client,
        &format!("SELECT bulk_create_view('kept', '{of_ids}', materialized => true); CREATE UNIQUE INDEX ON kept (id)"),
    );
    store(&mut client, &database, &[json!({"resourceType": "Patient", "id": "new"})]);
    assert_eq!(value(&mut client, "SELECT count(*) FROM kept"), "1");
    run(&mut client, "REFRESH MATERIALIZED VIEW CONCURRENTLY kept");
    assert_eq!(rows(&mut client, "SELECT id FROM kept ORDER BY id"), ["new", "p0"]);
}
