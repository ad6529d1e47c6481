//! What the server was built without. `scripts/test-outside.sh` finds it, says so, and sets `FHIR_BULK_WITHOUT`.

use crate::Client;

/// Whether the server is known to lack it: `amcheck` or `libxml`. Tests that are about what it lacks do not run at all
/// (`needs.txt`); others leave out a part.
pub fn is_without(what: &str) -> bool {
    std::env::var("FHIR_BULK_WITHOUT").is_ok_and(|all| all.split_whitespace().any(|one| one == what))
}

/// What the tests call of `amcheck`; here nothing is looked at. It is in `pg_catalog`, so that a dump does not have it.
const STAND_IN: &str = "
    SET allow_system_table_mods = on;
    CREATE FUNCTION pg_catalog.bt_index_check(index regclass, heapallindexed boolean) RETURNS void STABLE LANGUAGE plpgsql
        AS 'BEGIN END';
    CREATE FUNCTION pg_catalog.verify_heapam(relation regclass, check_toast boolean DEFAULT false, OUT msg text)
        RETURNS SETOF text STABLE LANGUAGE sql AS 'SELECT NULL::text WHERE false'";

/// Creates `amcheck` in a database, with which tests look at the pages that a load has written.
pub(crate) fn create_amcheck(client: &mut Client) {
    client.batch_execute(if is_without("amcheck") { STAND_IN } else { "CREATE EXTENSION amcheck" }).unwrap();
}
