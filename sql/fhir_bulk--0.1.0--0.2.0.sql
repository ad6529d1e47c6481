-- From 0.1.0, where the tables of the extension stood in its schema, within reach of GRANT … ON ALL TABLES.
-- Jobs that run go on from their last commit, in workers with the new library. Lines with \ir are replaced by files of this folder (scripts/install.sh).
-- What of users' own depends on what is dropped here, directly or through others. They are told before anything has changed.
DO $$
DECLARE
    users_own CONSTANT pg_catalog.text := (
        WITH RECURSIVE gone (class, object, part) AS (
            SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, p.oid, 0
            FROM pg_catalog.pg_proc p
            WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
              AND p.oid OPERATOR(pg_catalog.=) ANY (ARRAY[
                  '@extschema@.bulk_dump(text, timestamptz, boolean)'::pg_catalog.regprocedure,
                  '@extschema@.bulk_dump_chunks(text, timestamptz, boolean, boolean, integer)'::pg_catalog.regprocedure,
                  '@extschema@.bulk_load_stage(bytea)'::pg_catalog.regprocedure]::pg_catalog.oid[])
            UNION ALL
            -- Its type changes.
            SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, a.attrelid, a.attnum
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid OPERATOR(pg_catalog.=) '@extschema@.bulk_load_reject_row'::pg_catalog.regclass
              AND a.attname OPERATOR(pg_catalog.=) 'id'
        ), using_it (class, object, part) AS (
            SELECT class, object, part FROM gone
            UNION
            -- What depends is the rule of a view, or the type of its rows: users know the view.
            SELECT CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END,
                   COALESCE(r.ev_class, d.objid), CASE WHEN r.oid IS NULL THEN d.objsubid ELSE 0 END
            FROM using_it u
            JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) u.class
                AND d.refobjid OPERATOR(pg_catalog.=) u.object
                AND (u.part OPERATOR(pg_catalog.=) 0 OR d.refobjsubid OPERATOR(pg_catalog.=) u.part)
                AND (d.deptype OPERATOR(pg_catalog.=) 'n'
                    OR d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass)
            LEFT JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid
                AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                WHERE e.classid OPERATOR(pg_catalog.=)
                        CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END
                  AND e.objid OPERATOR(pg_catalog.=) COALESCE(r.ev_class, d.objid)
                  AND e.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND e.deptype OPERATOR(pg_catalog.=) 'e'
                  AND e.refobjid OPERATOR(pg_catalog.=) (SELECT x.oid FROM pg_catalog.pg_extension x
                      WHERE x.extname OPERATOR(pg_catalog.=) 'fhir_bulk'))
        )
        SELECT pg_catalog.string_agg(described, pg_catalog.chr(10) ORDER BY described)
        FROM (SELECT DISTINCT pg_catalog.pg_describe_object(u.class, u.object, u.part) AS described
              FROM using_it u LEFT JOIN gone g ON g.class OPERATOR(pg_catalog.=) u.class
                  AND g.object OPERATOR(pg_catalog.=) u.object AND g.part OPERATOR(pg_catalog.=) u.part
              WHERE g.object IS NULL
                AND u.class OPERATOR(pg_catalog.<>) 'pg_catalog.pg_type'::pg_catalog.regclass) n);
BEGIN
    IF users_own IS NOT NULL THEN
        RAISE EXCEPTION 'fhir_bulk cannot be updated, because objects of yours use functions that it replaces'
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = users_own,
            HINT = 'Nothing has changed. Keep their definitions (pg_dump --schema-only, pg_get_viewdef), drop them, run '
                'ALTER EXTENSION fhir_bulk UPDATE again, and create them again.';
    END IF;
END
$$;

LOCK TABLE @extschema@.bulk_job, @extschema@.bulk_job_task, @extschema@.bulk_load_reject_row, @extschema@.bulk_secret;

DO $$
DECLARE
    name pg_catalog.text;
BEGIN
    FOREACH name IN ARRAY '{bulk_job,bulk_job_task,bulk_load_reject_row,bulk_secret}'::pg_catalog.text[] LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER own_rows ON @extschema@.%I', name);
    END LOOP;
END
$$;
DROP FUNCTION @extschema@.bulk_own_rows();

CREATE SCHEMA fhir_bulk_internal;
ALTER TABLE @extschema@.bulk_job SET SCHEMA fhir_bulk_internal;
ALTER TABLE @extschema@.bulk_job_task SET SCHEMA fhir_bulk_internal;
ALTER TABLE @extschema@.bulk_load_reject_row SET SCHEMA fhir_bulk_internal;
ALTER TABLE @extschema@.bulk_secret SET SCHEMA fhir_bulk_internal;

-- Random numbers instead of sequences, which row level security does not protect.
ALTER TABLE fhir_bulk_internal.bulk_job ALTER COLUMN number DROP IDENTITY;
DROP INDEX fhir_bulk_internal.bulk_job_active;
CREATE INDEX bulk_job_active ON fhir_bulk_internal.bulk_job (created_at) WHERE status OPERATOR(pg_catalog.=) 'active';
ALTER TABLE fhir_bulk_internal.bulk_job_task
    ADD COLUMN starts integer NOT NULL DEFAULT 0,
    ADD COLUMN unchanged bigint NOT NULL DEFAULT 0,
    ADD COLUMN last boolean NOT NULL DEFAULT false,
    ADD COLUMN file uuid;
ALTER TABLE fhir_bulk_internal.bulk_job
    ADD COLUMN open boolean NOT NULL DEFAULT false,
    ADD COLUMN workers integer,
    DROP CONSTRAINT bulk_job_kind_check,
    ADD CONSTRAINT bulk_job_kind_check CHECK (kind OPERATOR(pg_catalog.=) 'import' OR kind OPERATOR(pg_catalog.=) 'export'
        OR kind OPERATOR(pg_catalog.=) 'part' OR kind OPERATOR(pg_catalog.=) 'submission');
CREATE INDEX bulk_job_task_open ON fhir_bulk_internal.bulk_job_task (job, starts, number)
    WHERE status OPERATOR(pg_catalog.=) 'waiting' OR status OPERATOR(pg_catalog.=) 'active';
CREATE INDEX bulk_job_task_left ON fhir_bulk_internal.bulk_job_task (job, number)
    WHERE worker IS NOT NULL
      AND (status OPERATOR(pg_catalog.=) 'failed' OR status OPERATOR(pg_catalog.=) 'cancelled');
ALTER TABLE fhir_bulk_internal.bulk_load_reject_row ALTER COLUMN id DROP IDENTITY;
ALTER TABLE fhir_bulk_internal.bulk_load_reject_row
    ALTER COLUMN id TYPE uuid USING pg_catalog.gen_random_uuid(),
    ALTER COLUMN id SET DEFAULT pg_catalog.gen_random_uuid();

-- Their columns stay, and so do the grants on them and the views that use them.
CREATE OR REPLACE VIEW @extschema@.bulk_load_reject WITH (security_barrier) AS
    SELECT loaded_at, source, line_number, byte_offset, sqlstate, error, line
    FROM fhir_bulk_internal.bulk_load_reject_row
    WHERE role OPERATOR(pg_catalog.=)
        (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user);

COMMENT ON VIEW @extschema@.bulk_load_reject IS
    'Lines that your loads with on_error "skip" passed over, with the reason; delete them when they are dealt with';

\ir job_views.sql
\ir job_inputs.sql
\ir indexes.sql
\ir files.sql

\ir queue.sql
\ir own_jobs.sql
\ir submissions.sql
\ir kept.sql

CREATE FUNCTION fhir_bulk_internal.check_search_parameter() RETURNS trigger LANGUAGE c
    AS 'MODULE_PATHNAME', 'check_search_parameter_wrapper';
\ir search_parameters.sql

CREATE FUNCTION fhir_bulk_internal.own_rows() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'own_rows_wrapper';
-- Nobody but the extension itself reads or writes its tables, whatever is granted to whom. Row level security without a
-- policy keeps those out who may read or write all data; it does not apply to roles with BYPASSRLS, which the trigger
-- (src/own_tables.rs) keeps from writing. ALWAYS: also while changes of another server are applied.
DO $$
DECLARE
    name pg_catalog.text;
BEGIN
    FOREACH name IN ARRAY '{bulk_job,bulk_job_task,bulk_index_hold,bulk_dropped_index,bulk_submission,bulk_submission_manifest,bulk_submission_piece,bulk_submission_outcome,bulk_source_credential,bulk_file,bulk_job_secret,bulk_load_reject_row,bulk_secret}'::pg_catalog.text[] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE fhir_bulk_internal.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE pg_catalog.format('CREATE TRIGGER own_rows BEFORE INSERT OR UPDATE OR DELETE ON fhir_bulk_internal.%I '
            'FOR EACH ROW EXECUTE FUNCTION fhir_bulk_internal.own_rows()', name);
        EXECUTE pg_catalog.format('CREATE TRIGGER own_table BEFORE TRUNCATE ON fhir_bulk_internal.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION fhir_bulk_internal.own_rows()', name);
        EXECUTE pg_catalog.format('ALTER TABLE fhir_bulk_internal.%I ENABLE ALWAYS TRIGGER own_rows, '
            'ENABLE ALWAYS TRIGGER own_table', name);
    END LOOP;
END
$$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fhir_bulk_internal FROM PUBLIC;

CREATE FUNCTION @extschema@.bulk_export_file_part(url text, start bigint, length integer)
    RETURNS TABLE (bytes bytea, file_bytes bigint, next_url text)
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_export_file_part_wrapper';
COMMENT ON FUNCTION @extschema@.bulk_export_file_part(text, bigint, integer) IS
    'Some bytes of an exported file, how many it has, and a URL to read on with; for those who may EXECUTE bulk_export_file';

-- What the nodes of Citus do of imports and exports.
CREATE FUNCTION @extschema@.bulk_export_part(request jsonb) RETURNS text
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_export_part_wrapper';
CREATE FUNCTION @extschema@.bulk_export_part_wait(id text, seconds integer) RETURNS jsonb
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_export_part_wait_wrapper';
CREATE FUNCTION @extschema@.bulk_export_part_cancel(id text) RETURNS boolean
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_export_part_cancel_wrapper';
CREATE FUNCTION @extschema@.bulk_import_wait(id text, seconds double precision DEFAULT 60) RETURNS jsonb
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_import_wait_wrapper';
REVOKE ALL ON FUNCTION @extschema@.bulk_export_part(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bulk_export_part_cancel(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bulk_export_part(jsonb) IS
    'A part of an export of another node of Citus, which asks for it: files of shards that this node has. Answers its id';
COMMENT ON FUNCTION @extschema@.bulk_export_part_wait(text, integer) IS
    'Waits for a part of an export of yours to end, at most so many seconds. How far it is, and its files when it is done';
COMMENT ON FUNCTION @extschema@.bulk_export_part_cancel(text) IS
    'Ends a part of an export of yours if it still runs. False if there is none';
COMMENT ON FUNCTION @extschema@.bulk_import_wait(text, double precision) IS
    'Waits for an import of yours to end, at most so many seconds. Its BulkImportStatus then';

-- COPY … (FORMAT fhir | aidbox) takes the client's bytes by itself.
\ir copy.sql
CREATE FUNCTION @extschema@.bulk_load_result() RETURNS jsonb
    STRICT VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_load_result_wrapper';
COMMENT ON FUNCTION @extschema@.bulk_load_result() IS
    'What this session''s last COPY … FROM (FORMAT fhir | aidbox) stored, as bulk_load answers';
DROP FUNCTION @extschema@.bulk_load_stage(bytea);

CREATE FUNCTION @extschema@.bulk_submit(request jsonb) RETURNS jsonb
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_submit_wrapper';
CREATE FUNCTION @extschema@.bulk_submit_status(request jsonb) RETURNS jsonb
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_submit_status_wrapper';
CREATE FUNCTION @extschema@.bulk_submit_status_cancel(id text) RETURNS boolean
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_submit_status_cancel_wrapper';
CREATE FUNCTION @extschema@.bulk_submit_outcomes(url text) RETURNS SETOF bytea
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_submit_outcomes_wrapper';
REVOKE ALL ON FUNCTION @extschema@.bulk_submit(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bulk_submit_status_cancel(text) FROM PUBLIC;
CREATE FUNCTION @extschema@.bulk_set_source_credential(request jsonb) RETURNS void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_set_source_credential_wrapper';
CREATE FUNCTION @extschema@.bulk_remove_source_credential(request jsonb) RETURNS boolean
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_remove_source_credential_wrapper';
REVOKE ALL ON FUNCTION @extschema@.bulk_set_source_credential(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bulk_remove_source_credential(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bulk_set_source_credential(jsonb) IS
    'Sets the credentials that submissions of a role, for a submitter, have for a token endpoint; by superusers and the extension''s owner only';
COMMENT ON FUNCTION @extschema@.bulk_remove_source_credential(jsonb) IS
    'Removes credentials for a token endpoint; false if there are none';
COMMENT ON FUNCTION @extschema@.bulk_submit(jsonb) IS
    'Takes a request about a submission, which is fetched in the background, and applied when it is completed. Answers its status';
COMMENT ON FUNCTION @extschema@.bulk_submit_status(jsonb) IS
    'How far a submission of yours is; with what was left out of it';
COMMENT ON FUNCTION @extschema@.bulk_submit_status_cancel(text) IS
    'Deletes the request for a status, by its id; the submission goes on. False when there is none';
COMMENT ON FUNCTION @extschema@.bulk_submit_outcomes(text) IS
    'The OperationOutcomes at a URL of a submission''s status, as NDJSON in pieces';

CREATE FUNCTION @extschema@.bulk_read(resource_type text, id text, fhir boolean DEFAULT true) RETURNS text
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_read_wrapper';
COMMENT ON FUNCTION @extschema@.bulk_read(text, text, boolean) IS
    'A live resource by its id; NULL if there is none that you may see';

-- Filters. A function with another argument is another function: what was granted on the old one is granted on the new one.
DO $$
DECLARE
    grants CONSTANT pg_catalog.jsonb := (
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', p.proname, 'grantee',
                   CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                       ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END,
                   'option', CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END))
        FROM pg_catalog.pg_proc p, LATERAL pg_catalog.aclexplode(p.proacl) a
        WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
          AND p.proname OPERATOR(pg_catalog.=) ANY ('{bulk_dump,bulk_dump_chunks}'::pg_catalog.name[])
          AND a.grantee OPERATOR(pg_catalog.<>) p.proowner);
    given pg_catalog.jsonb;
    changed CONSTANT pg_catalog.text[] := (
        SELECT pg_catalog.array_agg(p.proname::pg_catalog.text) FROM pg_catalog.pg_proc p
        WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
          AND p.proname OPERATOR(pg_catalog.=) ANY ('{bulk_dump,bulk_dump_chunks}'::pg_catalog.name[])
          AND p.proacl IS NOT NULL);
    name pg_catalog.text;
BEGIN
    DROP FUNCTION @extschema@.bulk_dump(text, timestamptz, boolean);
    DROP FUNCTION @extschema@.bulk_dump_chunks(text, timestamptz, boolean, boolean, integer);
    CREATE FUNCTION @extschema@.bulk_dump(resource_type text, since timestamptz DEFAULT NULL, fhir boolean DEFAULT false,
        filter text DEFAULT NULL) RETURNS SETOF text
        STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_dump_wrapper';
    CREATE FUNCTION @extschema@.bulk_dump_chunks(resource_type text, since timestamptz DEFAULT NULL,
        fhir boolean DEFAULT false, gzip boolean DEFAULT false, chunk_bytes integer DEFAULT 65536,
        filter text DEFAULT NULL) RETURNS SETOF bytea
        STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_dump_chunks_wrapper';
    IF changed IS NOT NULL THEN
        FOREACH name IN ARRAY changed LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION @extschema@.%I FROM PUBLIC', name);
        END LOOP;
    END IF;
    FOR given IN SELECT g.value FROM pg_catalog.jsonb_array_elements(grants) g LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION @extschema@.%I TO %s%s',
            given OPERATOR(pg_catalog.->>) 'name'::pg_catalog.text, given OPERATOR(pg_catalog.->>) 'grantee'::pg_catalog.text,
            given OPERATOR(pg_catalog.->>) 'option'::pg_catalog.text);
    END LOOP;
END
$$;
CREATE FUNCTION @extschema@.dump_csv(resource_type text, options jsonb DEFAULT '{}') RETURNS SETOF text
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'dump_csv_wrapper';
CREATE FUNCTION @extschema@.dump_csv_chunks(resource_type text, gzip boolean DEFAULT false, options jsonb DEFAULT '{}',
    chunk_bytes integer DEFAULT 65536) RETURNS SETOF bytea
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'dump_csv_chunks_wrapper';
COMMENT ON FUNCTION @extschema@.dump_csv(text, jsonb) IS
    'The live resources of a type as a CSV table with a column for each path, the header first. Call it in the target list: SELECT dump_csv(''Patient'')';
COMMENT ON FUNCTION @extschema@.dump_csv_chunks(text, boolean, jsonb, integer) IS
    'The live resources of a type as a CSV table with a column for each path, in pieces of chunk_bytes, gzipped on request';
COMMENT ON FUNCTION @extschema@.dump_sql_chunks(text, text, boolean, jsonb, integer) IS
    'The rows of a query as csv, tsv, ndjson, json, sql, elastic-bulk or parquet in pieces of chunk_bytes, gzipped on request; the query only reads';
CREATE FUNCTION @extschema@.bulk_search_parameters()
    RETURNS TABLE (resource_type text, name text, kind text, url text)
    STABLE STRICT PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_search_parameters_wrapper';
COMMENT ON FUNCTION @extschema@.bulk_search_parameters() IS
    'The search parameters that filters may have, of the types with a table that the current role may SELECT from';
CREATE FUNCTION @extschema@.bulk_resource_counts(resource_type text DEFAULT NULL, exact boolean DEFAULT false)
    RETURNS TABLE (name text, resources bigint, bytes bigint)
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_resource_counts_wrapper';
COMMENT ON FUNCTION @extschema@.bulk_resource_counts(text, boolean) IS
    'How many resources each type has that the current role may SELECT from, and how many bytes: as the planner expects, NULL if it does not know, or counted';
CREATE FUNCTION @extschema@.dump_view(view jsonb, format text DEFAULT 'csv', options jsonb DEFAULT '{}') RETURNS SETOF text
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'dump_view_wrapper';
CREATE FUNCTION @extschema@.dump_view_chunks(view jsonb, format text DEFAULT 'csv', gzip boolean DEFAULT false,
    options jsonb DEFAULT '{}', chunk_bytes integer DEFAULT 65536) RETURNS SETOF bytea
    STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'dump_view_chunks_wrapper';
CREATE FUNCTION @extschema@.bulk_create_view(name text, view jsonb, materialized boolean DEFAULT false) RETURNS regclass
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_create_view_wrapper';
REVOKE ALL ON FUNCTION @extschema@.bulk_create_view(text, jsonb, boolean) FROM PUBLIC;
CREATE FUNCTION @extschema@.bulk_view_rows(view text, fhir_version text, id text, txid bigint, ts timestamptz,
    resource_type text, resource jsonb) RETURNS SETOF text[]
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_view_rows_wrapper';
CREATE FUNCTION @extschema@.bulk_belongs_to(patients text, resource_type text, id text, resource jsonb) RETURNS boolean
    STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_belongs_to_wrapper';
CREATE FUNCTION @extschema@.bulk_sql_run(request jsonb, gzip boolean DEFAULT false, chunk_bytes integer DEFAULT 65536)
    RETURNS SETOF bytea STABLE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_sql_run_wrapper';
CREATE FUNCTION @extschema@.bulk_load_rows() RETURNS TABLE (id text, resource jsonb, cts timestamptz)
    VOLATILE STRICT PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'bulk_load_rows_wrapper';
COMMENT ON FUNCTION @extschema@.bulk_load_rows() IS
    'The rows of the load whose statement calls it; loads into tables that Citus distributes do';
COMMENT ON FUNCTION @extschema@.dump_view(jsonb, text, jsonb) IS
    'The rows that a ViewDefinition of SQL on FHIR makes of stored resources, as csv, tsv, ndjson, json or sql, one a row. Call it in the target list: SELECT dump_view(''{…}'')';
COMMENT ON FUNCTION @extschema@.dump_view_chunks(jsonb, text, boolean, jsonb, integer) IS
    'The rows that a ViewDefinition of SQL on FHIR makes of stored resources, as csv, tsv, ndjson, json or sql in pieces of chunk_bytes, gzipped on request';
COMMENT ON FUNCTION @extschema@.bulk_create_view(text, jsonb, boolean) IS
    'Makes a view, or a materialized view, with the typed columns of a ViewDefinition of SQL on FHIR';
COMMENT ON FUNCTION @extschema@.bulk_view_rows(text, text, text, bigint, timestamptz, text, jsonb) IS
    'The rows that a ViewDefinition makes of one resource, for views that bulk_create_view has made; it reads nothing but its arguments';
COMMENT ON FUNCTION @extschema@.bulk_belongs_to(text, text, text, jsonb) IS
    'Whether a resource belongs to one of some patients, by FHIR''s compartments; it reads nothing but its arguments';
COMMENT ON FUNCTION @extschema@.bulk_sql_run(jsonb, boolean, integer) IS
    'The rows of a ViewDefinition, SQLQuery or SQLView, given or stored, as ndjson, csv or json in pieces of chunk_bytes, as $sql-run of SQL on FHIR has them';
COMMENT ON FUNCTION @extschema@.bulk_export(jsonb) IS
    'Has resources, or tables of SQL on FHIR, exported to files in the background once the transaction commits. Answers the job''s id';
COMMENT ON FUNCTION @extschema@.bulk_dump(text, timestamptz, boolean, text) IS
    'All live resources of a type, or those that a search query finds, one a row. Call it in the target list: SELECT bulk_dump(''Patient'')';
COMMENT ON FUNCTION @extschema@.bulk_dump_chunks(text, timestamptz, boolean, boolean, integer, text) IS
    'All live resources of a type, or those that a search query finds, as NDJSON in pieces of chunk_bytes, gzipped on request';

COMMENT ON SCHEMA fhir_bulk_internal IS
    'What the extension fhir_bulk keeps for itself; its views and functions show what of it is yours';
COMMENT ON FUNCTION fhir_bulk_internal.own_rows() IS
    'Keeps all but the extension itself from writing its tables, rows that come by logical replication too';

-- What was granted on these tables while they stood where others do, and by default on what is new.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT 'TABLE' AS kind, c.oid::pg_catalog.regclass::pg_catalog.text AS object, acl.grantee
        FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) acl
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'fhir_bulk_internal'::pg_catalog.regnamespace
          AND acl.grantee OPERATOR(pg_catalog.<>) c.relowner
          AND (c.relkind OPERATOR(pg_catalog.=) 'r' OR c.relkind OPERATOR(pg_catalog.=) 'v')
        UNION
        SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text, acl.grantee
        FROM pg_catalog.pg_proc p, LATERAL pg_catalog.aclexplode(p.proacl) acl
        WHERE p.pronamespace OPERATOR(pg_catalog.=) 'fhir_bulk_internal'::pg_catalog.regnamespace
          AND acl.grantee OPERATOR(pg_catalog.<>) p.proowner
        UNION
        SELECT 'SCHEMA', n.nspname, acl.grantee
        FROM pg_catalog.pg_namespace n, LATERAL pg_catalog.aclexplode(n.nspacl) acl
        WHERE n.nspname OPERATOR(pg_catalog.=) 'fhir_bulk_internal'
          AND acl.grantee OPERATOR(pg_catalog.<>) n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', given.kind, given.object,
            CASE WHEN given.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE given.grantee::pg_catalog.regrole::pg_catalog.text END);
    END LOOP;
END
$$;
