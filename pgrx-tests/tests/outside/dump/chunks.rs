//! The NDJSON body in chunks, plain and gzip.

use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, fails, rows, run};
use fhir_bulk_tests::{Client, Database, gunzip};

fn chunks(client: &mut Client, arguments: &str) -> Vec<Vec<u8>> {
    let sql = format!("SELECT bulk_dump_chunks({arguments})");
    client.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {e:?}")).iter().map(|row| row.get(0)).collect()
}

fn body_of_rows(client: &mut Client, arguments: &str) -> Vec<u8> {
    (rows(client, &format!("SELECT bulk_dump({arguments})")).join("\n") + "\n").into_bytes()
}

/// 3,000 observations of 0.1 to 2 kB: several times every chunk size but the largest.
fn observations() -> Database {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Observation"]);
    run(
        &mut client,
        r#"INSERT INTO observation (id, txid, status, resource)
           SELECT 'o-' || n, n, 'created',
                  jsonb_build_object('valueString', repeat('größer ', n % 300), 'n', n, 'path', E'C:\\x"\t\n')
           FROM generate_series(1, 3000) n"#,
    );
    database
}

#[test]
fn a_proxy_that_concatenates_chunks_of_any_size_gets_exactly_the_rows() {
    let database = observations();
    let mut client = database.connect();
    for fhir in ["false", "true"] {
        let expected = body_of_rows(&mut client, &format!("'Observation', fhir => {fhir}"));
        assert!(expected.len() > 1 << 20);
        for size in [1024, 4096, 65_536, 16 << 20] {
            let pieces = chunks(&mut client, &format!("'Observation', fhir => {fhir}, chunk_bytes => {size}"));
            assert!(pieces.iter().all(|piece| (1..=size).contains(&piece.len())), "chunk_bytes {size}");
            assert!(pieces.len() <= expected.len() / size * 2 + 1, "{} pieces of {size}", pieces.len());
            assert!(pieces.concat() == expected, "chunk_bytes {size}, fhir {fhir}");
        }
    }
}

#[test]
fn a_client_that_asks_for_gzip_gets_one_stream_of_the_same_body() {
    let database = observations();
    let mut client = database.connect();
    for fhir in ["false", "true"] {
        let expected = body_of_rows(&mut client, &format!("'Observation', fhir => {fhir}"));
        for size in [1024, 65_536, 16 << 20] {
            for level in [0, 1, 6, 9] {
                run(&mut client, &format!("SET fhir_bulk.gzip_level = {level}"));
                let arguments = format!("'Observation', fhir => {fhir}, gzip => true, chunk_bytes => {size}");
                let pieces = chunks(&mut client, &arguments);
                assert!(pieces.iter().all(|piece| (1..=size).contains(&piece.len())), "{arguments}");
                let compressed = pieces.concat();
                assert!(gunzip(&compressed) == expected, "{arguments}, level {level}");
                assert_eq!(compressed.len() < expected.len() / 4, level > 0, "{arguments}, level {level}");
            }
        }
    }
}

#[test]
fn a_dump_of_an_empty_table_is_an_empty_body_and_not_an_error() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    assert!(rows(&mut client, "SELECT bulk_dump('Patient')").is_empty());
    assert!(chunks(&mut client, "'Patient'").is_empty());
    assert!(chunks(&mut client, "'Patient', fhir => true, chunk_bytes => 1024").is_empty());
    let compressed = chunks(&mut client, "'Patient', gzip => true").concat();
    assert!(!compressed.is_empty(), "no gzip stream");
    assert!(gunzip(&compressed).is_empty());
}

#[test]
fn a_chunk_size_out_of_range_is_refused_with_the_range() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    for size in ["0", "-1", "1023", "16777217", "2147483647"] {
        let error = fails(&mut client, &format!("SELECT bulk_dump_chunks('Patient', chunk_bytes => {size})"));
        assert_error_with_hint(&error, "22023", &["chunk_bytes", size]);
    }
    for size in ["1024", "16777216"] {
        assert!(chunks(&mut client, &format!("'Patient', chunk_bytes => {size}")).is_empty());
    }
    for (argument, name) in [("chunk_bytes => NULL", "chunk_bytes"), ("gzip => NULL", "gzip"), ("fhir => NULL", "fhir")]
    {
        let error = fails(&mut client, &format!("SELECT bulk_dump_chunks('Patient', {argument})"));
        assert_error(&error, "22004", &[name]);
    }
}

#[test]
fn an_attachment_of_40_mb_comes_out_whole_in_rows_chunks_and_gzip() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Binary"]);
    run(
        &mut client,
        r#"INSERT INTO "binary" (id, txid, status, resource)
           SELECT 'b-' || n, n, 'created', jsonb_build_object('data',
                  CASE n WHEN 2 THEN repeat('0123456789abcdef', 2621440) ELSE 'small' END)
           FROM generate_series(1, 3) n"#,
    );
    let dumped = rows(&mut client, r#"SELECT bulk_dump('Binary', fhir => true)"#);
    assert_eq!(dumped.len(), 3);
    assert!(dumped[1].len() > 40 << 20);
    assert!(dumped[1].contains(&format!(r#""data":"{}""#, "0123456789abcdef".repeat(2_621_440))));
    let expected = (dumped.join("\n") + "\n").into_bytes();
    for arguments in ["chunk_bytes => 65536", "chunk_bytes => 16777216"] {
        assert!(chunks(&mut client, &format!("'Binary', fhir => true, {arguments}")).concat() == expected);
    }
    assert!(gunzip(&chunks(&mut client, "'Binary', fhir => true, gzip => true").concat()) == expected);
}
