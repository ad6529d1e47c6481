-- Lines that loads with on_error "skip" passed over. The table is written by the extension alone, as its owner; the
-- view shows each role its own, and lets it delete them.
CREATE TABLE fhir_bulk_internal.bulk_load_reject_row (
    -- By its OID: another role that gets the name later has others.
    role oid NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    source text NOT NULL,
    line_number bigint NOT NULL,
    byte_offset bigint NOT NULL,
    sqlstate text NOT NULL,
    error text NOT NULL,
    line bytea NOT NULL,
    -- A key, so that rows can be deleted where all tables are published.
    id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid()
);
REVOKE ALL ON fhir_bulk_internal.bulk_load_reject_row FROM PUBLIC;

CREATE VIEW @extschema@.bulk_load_reject WITH (security_barrier) AS
    SELECT loaded_at, source, line_number, byte_offset, sqlstate, error, line
    FROM fhir_bulk_internal.bulk_load_reject_row
    WHERE role OPERATOR(pg_catalog.=)
        (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user);
GRANT SELECT, DELETE ON @extschema@.bulk_load_reject TO PUBLIC;

COMMENT ON VIEW @extschema@.bulk_load_reject IS
    'Lines that your loads with on_error "skip" passed over, with the reason; delete them when they are dealt with';
