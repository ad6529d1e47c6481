-- Indexes that imports have dropped for their time (disableIndexes), and what has to be made again. Written by the extension
-- alone, as its owner. A job that keeps a table without its indexes holds it: the indexes are made again when no job that
-- has something left to do holds the table.
CREATE TABLE fhir_bulk_internal.bulk_index_hold (
    job bigint NOT NULL REFERENCES fhir_bulk_internal.bulk_job ON DELETE CASCADE,
    -- The table.
    relation oid NOT NULL,
    PRIMARY KEY (job, relation)
);
CREATE TABLE fhir_bulk_internal.bulk_dropped_index (
    -- Random, as those of jobs.
    number bigint PRIMARY KEY,
    -- Which kind of job has dropped it, and with whose rights.
    kind text NOT NULL,
    role oid NOT NULL,
    -- The table, which is there longer than a job.
    relation oid NOT NULL,
    name text NOT NULL,
    -- What makes it again, in this order, and in which tablespace: empty for the database's. What makes those of partitions
    -- comes first.
    before jsonb NOT NULL,
    statements jsonb NOT NULL,
    tablespace text NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- How often it was begun to be made, and why it could not be.
    tries integer NOT NULL DEFAULT 0,
    error text,
    UNIQUE (relation, name)
);
REVOKE ALL ON fhir_bulk_internal.bulk_index_hold, fhir_bulk_internal.bulk_dropped_index FROM PUBLIC;

CREATE VIEW @extschema@.bulk_disabled_indexes WITH (security_barrier) AS
    SELECT i.relation::pg_catalog.regclass AS table_name,
           i.name AS index_name,
           i.statements OPERATOR(pg_catalog.->>) 0 AS definition,
           i.dropped_at,
           i.error
    FROM fhir_bulk_internal.bulk_dropped_index i
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.relation
    WHERE pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')
       OR pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE');
GRANT SELECT ON @extschema@.bulk_disabled_indexes TO PUBLIC;
COMMENT ON VIEW @extschema@.bulk_disabled_indexes IS
    'Indexes of your tables that imports with disableIndexes have dropped, and that are not made again yet';
COMMENT ON COLUMN @extschema@.bulk_disabled_indexes.error IS 'Why it could not be made again; it is tried again when the next such import into the table ends';

SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE FUNCTION fhir_bulk_internal.holds_indexes(job bigint, relation oid) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT true FROM fhir_bulk_internal.bulk_index_hold h
    WHERE h.job = holds_indexes.job AND h.relation = holds_indexes.relation;
END;
COMMENT ON FUNCTION fhir_bulk_internal.holds_indexes(bigint, oid) IS
    'Whether a job keeps a table without its indexes; else NULL';

CREATE FUNCTION fhir_bulk_internal.hold_indexes(job bigint, relation oid) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_index_hold VALUES (hold_indexes.job, hold_indexes.relation) ON CONFLICT DO NOTHING;
    -- The rows of the table may be others when the job has ended.
    UPDATE fhir_bulk_internal.bulk_dropped_index i SET tries = 0, error = NULL WHERE i.relation = hold_indexes.relation;
END;
COMMENT ON FUNCTION fhir_bulk_internal.hold_indexes(bigint, oid) IS
    'Until a job has ended, the indexes that a table lacks are not made again';

CREATE FUNCTION fhir_bulk_internal.add_dropped_index(
    kind text, role oid, relation oid, name text, before jsonb, statements jsonb, tablespace text
) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    -- An older one of the same name was made by somebody else meanwhile.
    DELETE FROM fhir_bulk_internal.bulk_dropped_index i
    WHERE i.relation = add_dropped_index.relation AND i.name = add_dropped_index.name;
    INSERT INTO fhir_bulk_internal.bulk_dropped_index (number, kind, role, relation, name, before, statements, tablespace)
    VALUES (hashtextextended(gen_random_uuid()::text, 0), add_dropped_index.kind, add_dropped_index.role,
        add_dropped_index.relation, add_dropped_index.name, add_dropped_index.before, add_dropped_index.statements,
        add_dropped_index.tablespace);
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_dropped_index(text, oid, oid, text, jsonb, jsonb, text) IS
    'What makes an index again that the same transaction drops';

CREATE FUNCTION fhir_bulk_internal.has_held_indexes(relation oid) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (
        SELECT FROM fhir_bulk_internal.bulk_index_hold h
        JOIN fhir_bulk_internal.bulk_job j ON j.number = h.job
        WHERE h.relation = has_held_indexes.relation AND j.status = 'active' AND EXISTS (
            SELECT FROM fhir_bulk_internal.bulk_job_task t
            WHERE t.job = j.number AND (t.status = 'waiting' OR t.status = 'active')));
END;
COMMENT ON FUNCTION fhir_bulk_internal.has_held_indexes(oid) IS
    'Whether a job that has something left to do keeps a table without its indexes';

-- Ten times, as a task: what took its worker down as often may do so again.
CREATE FUNCTION fhir_bulk_internal.ready_indexes() RETURNS SETOF bigint LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT i.number FROM fhir_bulk_internal.bulk_dropped_index i
    WHERE (i.tries < 10 AND NOT (SELECT fhir_bulk_internal.has_held_indexes(i.relation)))
       OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = i.relation)
    ORDER BY i.tries, i.dropped_at, i.number
    LIMIT 1000;
END;
COMMENT ON FUNCTION fhir_bulk_internal.ready_indexes() IS
    'Indexes that are to be made again now, and those whose tables are gone';

CREATE FUNCTION fhir_bulk_internal.begin_index(INOUT number bigint, OUT kind text, OUT role bigint, OUT relation bigint,
    OUT name text, OUT before jsonb, OUT statements jsonb, OUT tablespace text) RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_dropped_index i
    SET tries = i.tries + 1,
        error = CASE WHEN i.tries = 9 THEN 'the processes that made it have ended; the server''s log says why' END
    WHERE i.number = begin_index.number
      AND (i.tries < 10 AND NOT (SELECT fhir_bulk_internal.has_held_indexes(i.relation))
          OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = i.relation))
    RETURNING i.number, i.kind, i.role::bigint, i.relation::bigint, i.name, i.before, i.statements, i.tablespace;
END;
COMMENT ON FUNCTION fhir_bulk_internal.begin_index(bigint) IS
    'A worker begins to make an index; no row when it is made by now, or a job keeps the table without it';

CREATE FUNCTION fhir_bulk_internal.forget_index(number bigint) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_dropped_index i WHERE i.number = forget_index.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_index(bigint) IS
    'An index is made again, or its table is gone';

CREATE FUNCTION fhir_bulk_internal.fail_index(number bigint, error text, for_good boolean) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_dropped_index i
    SET error = fail_index.error, tries = CASE WHEN for_good THEN 10 ELSE i.tries END
    WHERE i.number = fail_index.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.fail_index(bigint, text, boolean) IS
    'Why an index could not be made, and whether it would be the same the next time';

CREATE FUNCTION fhir_bulk_internal.lacks_indexes(job bigint) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (
        SELECT FROM fhir_bulk_internal.bulk_index_hold h
        JOIN fhir_bulk_internal.bulk_dropped_index i ON i.relation = h.relation
        WHERE h.job = lacks_indexes.job AND i.tries < 10 AND NOT (SELECT fhir_bulk_internal.has_held_indexes(i.relation)));
END;
COMMENT ON FUNCTION fhir_bulk_internal.lacks_indexes(bigint) IS
    'Whether a job has indexes to make again before it ends';

SET LOCAL search_path TO @extschema@, pg_temp;
