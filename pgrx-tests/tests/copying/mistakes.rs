//! Data that is something else is refused with what it looks like.

use crate::from::{copy, copy_fails, session};
use crate::support::{assert_error_with_hint, fails, run};
use crate::to::read;
use fhir_bulk_tests::{Database, error};

#[test]
fn rows_in_copys_own_formats_are_told_by_their_looks() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "CREATE TABLE t AS SELECT 'a,b' AS id, 1 AS n; SELECT bulk_create_table('Patient')");
    for (format, looks) in [("text", "COPY's text format"), ("csv", "CSV"), ("binary", "COPY's binary format")] {
        let bytes = read(&mut client, &format!("COPY t TO STDOUT (FORMAT {format})"));
        let error = copy_fails(&mut client, "COPY patient FROM STDIN (FORMAT fhir)", &bytes);
        assert_error_with_hint(&error, "22P04", &[looks]);
        // Where bad lines may be skipped, a line with a comma is one.
        let statement = "COPY patient FROM STDIN (FORMAT aidbox, ON_ERROR skip)";
        if format == "binary" {
            assert_error_with_hint(&copy_fails(&mut client, statement, &bytes), "22P04", &[looks]);
        } else {
            assert_eq!(copy(&mut client, statement, &bytes), 0);
        }
        let path = database.file(format, &bytes).replace("file://", "");
        let error = fails(&mut client, &format!("COPY patient FROM '{path}' (FORMAT fhir)"));
        assert_error_with_hint(&error, "22P04", &[looks]);
    }
}

#[test]
fn a_session_without_the_library_and_a_database_without_the_extension_get_postgresqls_own_error() {
    let database = Database::new();
    let plain = |client: &mut fhir_bulk_tests::Client| {
        let error = error(client.simple_query("COPY (SELECT 1) TO STDOUT (FORMAT ndjson)"));
        assert_eq!((error.code().code(), error.message()), ("22023", "COPY format \"ndjson\" not recognized"));
        assert_eq!(error.position(), Some(&postgres::error::ErrorPosition::Original(28)));
    };
    let mut client = database.connect();
    plain(&mut client);
    run(&mut client, "SELECT bulk_load_result()");
    assert_eq!(read(&mut client, "COPY (SELECT 1 AS a) TO STDOUT (FORMAT ndjson)"), b"{\"a\":1}\n");
    run(&mut client, "DROP EXTENSION fhir_bulk");
    plain(&mut client);
}
