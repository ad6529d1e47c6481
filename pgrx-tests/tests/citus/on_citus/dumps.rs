//! What is read of distributed tables is what is read of plain ones.

use crate::nodes::{database, distributed, without_citus};
use crate::support::{assert_error, count, fails, load, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, gunzip};

/// Patients with an identifier each, every tenth born in another year, some deleted.
fn fill(database: &Database, client: &mut Client) {
    let lines = patients(1..=3000);
    let lines = lines.lines().enumerate().map(|(at, line)| {
        let identifier = format!(
            "\"identifier\":[{{\"system\":\"urn:x\",\"value\":\"v-{at}\"}}],\"birthDate\":\"{}",
            1900 + at % 10
        );
        line.replace("\"birthDate\":\"1970", &identifier) + "\n"
    });
    let url = database.file("lines", lines.collect::<String>());
    assert_eq!(load(client, &url, "'Patient', fhir => true"), r#"{"total": 3000}"#);
    for change in [
        "txid = 7, ts = '2024-01-01Z', cts = '2023-01-01Z'",
        "cts = '2025-01-01Z' WHERE id LIKE 'p-1%'",
        "status = 'deleted' WHERE id LIKE 'p-2%'",
    ] {
        run(client, &format!("UPDATE patient SET {change}"));
    }
}

/// A plain table and a distributed one with the same rows.
fn both() -> [(Database, Client); 2] {
    let plain = without_citus();
    let mut here = plain.connect();
    run(&mut here, "SELECT bulk_create_table('Patient')");
    let there = database();
    let client = distributed(&there, "Patient");
    let mut all = [(plain, here), (there, client)];
    for (database, client) in &mut all {
        fill(database, client);
        run(client, "SET TimeZone = 'UTC'");
    }
    all
}

#[test]
fn every_dump_has_the_same_rows_as_one_of_a_plain_table() {
    let [(_, mut plain), (_, mut client)] = both();
    for query in [
        "SELECT bulk_dump('Patient')",
        "SELECT bulk_dump('Patient', fhir => true)",
        "SELECT bulk_dump('Patient', since => '2024-06-01Z')",
        "SELECT bulk_dump('Patient', filter => 'birthdate=1903')",
        "SELECT bulk_dump('Patient', fhir => true, filter => 'identifier=urn:x|v-77')",
        "SELECT dump_sql('SELECT id, status, resource FROM patient WHERE txid = 7')",
        "SELECT dump_sql('SELECT count(*), max(id) FROM patient GROUP BY status', 'ndjson')",
        "SELECT dump_sql('SELECT p.id, q.resource FROM patient p JOIN patient q USING (id)', 'elastic-bulk', '{\"index\": \"p\", \"id_column\": \"id\"}')",
        "SELECT bulk_read('Patient', 'p-30')",
        "SELECT bulk_resource_types()",
        "SELECT bulk_export_identifiers('{\"type\": \"Patient\", \"identifiers\": [\"urn:x|v-5\", \"v-6\", \"|v-7\", \"urn:x|v-1\", \"urn:x|none\"]}')",
    ] {
        let (mut expected, mut found) = (rows(&mut plain, query), rows(&mut client, query));
        expected.sort();
        found.sort();
        assert!(!expected.is_empty(), "{query}");
        assert!(expected == found, "{query}:\n{:.300}\n{:.300}", expected.join("\n"), found.join("\n"));
    }
}

#[test]
fn a_dump_in_chunks_is_the_dump() {
    let [_, (_, mut client)] = both();
    let chunks = client.query("SELECT bulk_dump_chunks('Patient', gzip => true, chunk_bytes => 1024)", &[]).unwrap();
    let body = gunzip(&chunks.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect::<Vec<_>>());
    let mut lines: Vec<_> = std::str::from_utf8(&body).unwrap().lines().collect();
    lines.sort_unstable();
    let mut expected = rows(&mut client, "SELECT bulk_dump('Patient')");
    expected.sort();
    assert!(lines == expected);
    let chunks = client.query("SELECT dump_sql_chunks('SELECT id FROM patient')", &[]).unwrap();
    let ids: Vec<u8> = chunks.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect();
    assert_eq!(ids.split(|byte| *byte == b'\n').count() - 1, 3000);
}

#[test]
fn dump_sql_of_distributed_tables_cannot_write() {
    let [_, (_, mut client)] = both();
    for query in [
        "WITH gone AS (DELETE FROM patient RETURNING id) SELECT * FROM gone",
        "SELECT run_command_on_workers($$DROP TABLE patient$$)",
        "SELECT run_command_on_shards(''patient'', $$DELETE FROM %s$$)",
        "SELECT master_modify_multiple_shards(''x'')",
        "SELECT undistribute_table(''patient'')",
        "SELECT citus_drain_node(''127.0.0.1'', 1)",
    ] {
        let query = query.replace("$$", "''").replace("''''", "''");
        let error = fails(&mut client, &format!("SELECT dump_sql('{query}')"));
        assert_ne!(error.code().code(), "XX000", "{query}: {error:?}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 3000);
}

#[test]
fn row_level_security_hides_rows_of_distributed_tables() {
    let [_, (database, mut client)] = both();
    let role = database.role("reader");
    for change in [
        &format!("GRANT SELECT ON patient TO {role}"),
        "ALTER TABLE patient ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON patient USING (resource ->> 'birthDate' LIKE '1904%')",
    ] {
        run(&mut client, change);
    }
    let mut reader = database.connect_as(&role);
    let seen = value(
        &mut client,
        "SELECT count(*) FROM patient WHERE status <> 'deleted' AND resource ->> 'birthDate' LIKE '1904%'",
    );
    for query in [
        "SELECT count(*) FROM (SELECT bulk_dump('Patient')) AS d",
        "SELECT count(*) FROM (SELECT dump_sql('SELECT id FROM patient WHERE status <> ''deleted''')) AS d",
        "SELECT count(*) FROM (SELECT bulk_dump('Patient', filter => 'birthdate=1904')) AS d",
    ] {
        assert_eq!(value(&mut reader, query), seen, "{query}");
    }
    assert_eq!(
        value(&mut reader, "SELECT count(*) FROM (SELECT bulk_dump('Patient', filter => 'birthdate=1905')) AS d"),
        "0"
    );
    assert_error(
        &fails(&mut database.connect_as(&database.role("nobody")), "SELECT bulk_dump('Patient')"),
        "42501",
        &["patient"],
    );
}
