-- Rejected lines and the secret (src/store/rejects.rs, secret.rs). Bound when they are made, and with their caller's
-- rights, as those of queue.sql.
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE FUNCTION fhir_bulk_internal.add_rejects(
    role oid, source text, line_numbers bigint[], byte_offsets bigint[], sqlstates text[], errors text[], lines bytea[]
) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_load_reject_row
        (role, source, line_number, byte_offset, sqlstate, error, line)
    SELECT add_rejects.role, add_rejects.source, r.*
    FROM ROWS FROM (unnest(line_numbers), unnest(byte_offsets), unnest(sqlstates), unnest(errors), unnest(lines)) AS r;
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_rejects(oid, text, bigint[], bigint[], text[], text[], bytea[]) IS
    'Lines that a load of a role passed over: the first of each array, the second, and so on';

CREATE FUNCTION fhir_bulk_internal.secret() RETURNS text LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.secret FROM fhir_bulk_internal.bulk_secret s;
END;
COMMENT ON FUNCTION fhir_bulk_internal.secret() IS
    'What signs the URLs of exported files';

SET LOCAL search_path TO @extschema@, pg_temp;
