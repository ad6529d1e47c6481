//! `amcheck`, with which tests look at the pages that a load has written. Some servers are built without contrib.

use crate::Client;

/// What the tests call of `amcheck`; here nothing is looked at.
const STAND_IN: &str = "
    CREATE FUNCTION bt_index_check(index regclass, heapallindexed boolean) RETURNS void LANGUAGE plpgsql
        AS 'BEGIN END';
    CREATE FUNCTION verify_heapam(relation regclass, OUT msg text) RETURNS SETOF text LANGUAGE sql
        AS 'SELECT NULL::text WHERE false'";

/// Creates the extension in a database. A server that is known to lack it (`scripts/test-outside.sh` says so and sets
/// `FHIR_BULK_WITHOUT`) gets functions of the same names instead. So all else that these tests check is checked there, too.
pub(crate) fn create(client: &mut Client) {
    let without = std::env::var("FHIR_BULK_WITHOUT").unwrap_or_default();
    let is_without = without.split_whitespace().any(|name| name == "amcheck");
    client.batch_execute(if is_without { STAND_IN } else { "CREATE EXTENSION amcheck" }).unwrap();
}
