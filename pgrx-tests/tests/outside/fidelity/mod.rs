//! Nothing changes on the way in and out: real data, random documents, and the corpus of JSON traps; what is stored
//! is, byte for byte, what PostgreSQL's own jsonb would be.

mod compare;
mod random;
mod real_data;
mod torture;

use crate::support::{count, rows, run};
use fhir_bulk_tests::Client;

/// Puts the lines of a file into a table `reference`, parsed by PostgreSQL: type, id, and what a row would store.
fn make_reference(client: &mut Client, path: &str) {
    run(
        client,
        &format!(
            r"CREATE TYPE datum AS (value jsonb);
              CREATE FUNCTION stored(line jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
                SELECT CASE WHEN meta IS NULL THEN rest WHEN meta = '{{}}' THEN rest - 'meta' ELSE jsonb_set(rest, '{{meta}}', meta) END
                FROM (SELECT line - 'id' - 'resourceType' AS rest, (line -> 'meta') - 'lastUpdated' - 'versionId' - 'createdAt' AS meta) AS l
              $$;
              CREATE UNLOGGED TABLE reference AS
                SELECT line ->> 'resourceType' AS type, line ->> 'id' AS id, stored(line) AS resource
                FROM (SELECT line::jsonb FROM string_to_table(pg_read_file('{path}'), e'\n') AS line WHERE line <> '' OFFSET 0) AS l;
              ANALYZE reference"
        ),
    );
}

fn drop_reference(client: &mut Client) {
    run(client, "DROP TABLE reference; DROP FUNCTION stored; DROP TYPE datum");
}

/// Asserts that every stored datum is PostgreSQL's own: `*=` on records is a memcmp of the values, detoasted.
fn assert_stored_as_reference(client: &mut Client) {
    for resource_type in rows(client, "SELECT DISTINCT type FROM reference") {
        let both = format!(
            "\"{}\" AS t JOIN reference AS r ON r.type = '{resource_type}' AND r.id = t.id",
            resource_type.to_lowercase()
        );
        let different = format!(
            "SELECT t.id FROM {both} WHERE NOT (ROW(t.resource)::datum *= ROW(r.resource)::datum)
             OR t.resource <> r.resource OR t.resource::text <> r.resource::text LIMIT 5"
        );
        assert_eq!(rows(client, &different), [""; 0], "{resource_type}");
        assert_eq!(
            count(client, &format!("SELECT count(*) FROM {both}")),
            count(client, &format!("SELECT count(*) FROM reference WHERE type = '{resource_type}'")),
            "{resource_type}"
        );
    }
}
