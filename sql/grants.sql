-- Whoever makes the extension may have default privileges that give others rights on all that is made. Here they would
-- give away jobs, rejected lines and the secret of signed URLs: taken back, but for what PUBLIC is given on purpose.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
               c.oid::pg_catalog.regclass::pg_catalog.text AS object,
               acl.grantee
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.objid,
             LATERAL pg_catalog.aclexplode(c.relacl) acl
        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND d.refobjid OPERATOR(pg_catalog.=)
              (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'fhir_bulk')
          AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND acl.grantee OPERATOR(pg_catalog.<>) c.relowner
          AND (acl.grantee OPERATOR(pg_catalog.<>) 0 OR c.relkind OPERATOR(pg_catalog.=) 'S')
        UNION
        SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text, acl.grantee
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.objid,
             LATERAL pg_catalog.aclexplode(p.proacl) acl
        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND d.refobjid OPERATOR(pg_catalog.=)
              (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'fhir_bulk')
          AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          AND acl.grantee OPERATOR(pg_catalog.<>) p.proowner
          AND acl.grantee OPERATOR(pg_catalog.<>) 0
        UNION
        SELECT 'SCHEMA', 'fhir_bulk_internal', acl.grantee
        FROM pg_catalog.pg_namespace n, LATERAL pg_catalog.aclexplode(n.nspacl) acl
        WHERE n.nspname OPERATOR(pg_catalog.=) 'fhir_bulk_internal'
          AND acl.grantee OPERATOR(pg_catalog.<>) n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', given.kind, given.object,
            CASE WHEN given.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE given.grantee::pg_catalog.regrole::pg_catalog.text END);
    END LOOP;
END
$$;
-- It shows each role its own jobs. What an older version granted stays as it is.
GRANT SELECT ON @extschema@.bulk_jobs TO PUBLIC;
-- Who may call what, and what \df+ says of it. Reading is for everyone: it shows a role only what it may SELECT.
-- Loading fetches files and writes tables, and creating a table takes a name in the schema: both are granted by
-- the database's owner, on top of the rights on schema and tables that they need anyway. Exports of identifiers come
-- from outside, a hundred at a time, and without an index each reads the whole table: granted to those who serve them.
REVOKE ALL ON FUNCTION bulk_load(text, text, boolean, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_create_table(text) FROM PUBLIC;
-- A view takes a name in the schema, too. Whoever reads it calls bulk_view_rows, which only computes.
REVOKE ALL ON FUNCTION bulk_create_view(text, jsonb, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_write_path(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_export_identifiers(jsonb) FROM PUBLIC;
-- Exports take the server's disk, and whoever serves files of theirs asks for them by signed URLs.
REVOKE ALL ON FUNCTION bulk_export(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_export_cancel(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_export_file(text) FROM PUBLIC;
-- What a coordinator of Citus asks its nodes for, as the role that exports.
REVOKE ALL ON FUNCTION bulk_export_part(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_export_part_cancel(text) FROM PUBLIC;
-- Whoever may import may end imports; a status shows a role its own jobs only.
REVOKE ALL ON FUNCTION bulk_import(jsonb, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_import_cancel(text) FROM PUBLIC;
-- Submissions fetch files and write tables, as imports do.
REVOKE ALL ON FUNCTION bulk_submit(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_submit_status_cancel(text) FROM PUBLIC;
-- Superusers and the extension's owner set credentials, whatever is granted.
REVOKE ALL ON FUNCTION bulk_set_source_credential(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION bulk_remove_source_credential(jsonb) FROM PUBLIC;

COMMENT ON FUNCTION bulk_dump(text, timestamptz, boolean, text) IS
    'All live resources of a type, or those that a search query finds, one a row. Call it in the target list: SELECT bulk_dump(''Patient'')';
COMMENT ON FUNCTION bulk_dump_chunks(text, timestamptz, boolean, boolean, integer, text) IS
    'All live resources of a type, or those that a search query finds, as NDJSON in pieces of chunk_bytes, gzipped on request';
COMMENT ON FUNCTION bulk_read(text, text, boolean) IS
    'A live resource by its id; NULL if there is none that you may see';
COMMENT ON FUNCTION dump_csv(text, jsonb) IS
    'The live resources of a type as a CSV table with a column for each path, the header first. Call it in the target list: SELECT dump_csv(''Patient'')';
COMMENT ON FUNCTION dump_csv_chunks(text, boolean, jsonb, integer) IS
    'The live resources of a type as a CSV table with a column for each path, in pieces of chunk_bytes, gzipped on request';
COMMENT ON FUNCTION dump_sql(text, text, jsonb) IS
    'The rows of a query as csv, tsv, ndjson, json, sql or elastic-bulk, one a row; the query only reads. Call it in the target list: SELECT dump_sql(''SELECT …'')';
COMMENT ON FUNCTION dump_sql_chunks(text, text, boolean, jsonb, integer) IS
    'The rows of a query as csv, tsv, ndjson, json, sql, elastic-bulk or parquet in pieces of chunk_bytes, gzipped on request; the query only reads';
COMMENT ON FUNCTION dump_view(jsonb, text, jsonb) IS
    'The rows that a ViewDefinition of SQL on FHIR makes of stored resources, as csv, tsv, ndjson, json or sql, one a row. Call it in the target list: SELECT dump_view(''{…}'')';
COMMENT ON FUNCTION dump_view_chunks(jsonb, text, boolean, jsonb, integer) IS
    'The rows that a ViewDefinition of SQL on FHIR makes of stored resources, as csv, tsv, ndjson, json or sql in pieces of chunk_bytes, gzipped on request';
COMMENT ON FUNCTION bulk_create_view(text, jsonb, boolean) IS
    'Makes a view, or a materialized view, with the typed columns of a ViewDefinition of SQL on FHIR';
COMMENT ON FUNCTION bulk_view_rows(text, text, text, bigint, timestamptz, text, jsonb) IS
    'The rows that a ViewDefinition makes of one resource, for views that bulk_create_view has made; it reads nothing but its arguments';
COMMENT ON FUNCTION bulk_belongs_to(text, text, text, jsonb) IS
    'Whether a resource belongs to one of some patients, by FHIR''s compartments; it reads nothing but its arguments';
COMMENT ON FUNCTION bulk_sql_run(jsonb, boolean, integer) IS
    'The rows of a ViewDefinition, SQLQuery or SQLView, given or stored, as ndjson, csv or json in pieces of chunk_bytes, as $sql-run of SQL on FHIR has them';
COMMENT ON FUNCTION bulk_load(text, text, boolean, jsonb) IS
    'Loads NDJSON, plain or gzip, from a URL into resource tables; all or nothing. Answers how many lines went where';
COMMENT ON FUNCTION bulk_load_rows() IS
    'The rows of the load whose statement calls it; loads into tables that Citus distributes do';
COMMENT ON FUNCTION bulk_load_result() IS
    'What this session''s last COPY … FROM (FORMAT fhir | aidbox) stored, as bulk_load answers';
COMMENT ON FUNCTION bulk_submit(jsonb) IS
    'Takes a request about a submission, which is fetched in the background, and applied when it is completed. Answers its status';
COMMENT ON FUNCTION bulk_submit_status(jsonb) IS
    'How far a submission of yours is; with what was left out of it';
COMMENT ON FUNCTION bulk_submit_status_cancel(text) IS
    'Deletes the request for a status, by its id; the submission goes on. False when there is none';
COMMENT ON FUNCTION bulk_submit_outcomes(text) IS
    'The OperationOutcomes at a URL of a submission''s status, as NDJSON in pieces';
COMMENT ON FUNCTION bulk_set_source_credential(jsonb) IS
    'Sets the credentials that submissions of a role, for a submitter, have for a token endpoint; by superusers and the extension''s owner only';
COMMENT ON FUNCTION bulk_remove_source_credential(jsonb) IS
    'Removes credentials for a token endpoint; false if there are none';
COMMENT ON FUNCTION bulk_export_identifiers(jsonb) IS
    'Up to 100 resources of a type by their identifiers: {"type": …, "identifiers": ["system|value", …], "_elements": …}';
COMMENT ON FUNCTION bulk_write_path(text) IS
    'How a load by the current role would write the table of a resource type, and why';
COMMENT ON FUNCTION bulk_resource_types() IS
    'The resource types with a table that the current role may SELECT from';
COMMENT ON FUNCTION bulk_resource_counts(text, boolean) IS
    'How many resources each type has that the current role may SELECT from, and how many bytes: as the planner expects, NULL if it does not know, or counted';
COMMENT ON FUNCTION bulk_search_parameters() IS
    'The search parameters that filters may have, of the types with a table that the current role may SELECT from';
COMMENT ON FUNCTION bulk_create_table(text) IS
    'Makes the table of a resource type and its history table, unless they are there';
COMMENT ON FUNCTION bulk_import(jsonb, boolean) IS
    'Has NDJSON sources imported in the background once the transaction commits. Answers the job''s id';
COMMENT ON FUNCTION bulk_import_status(text) IS
    'How far an import of yours is, as a BulkImportStatus';
COMMENT ON FUNCTION bulk_import_wait(text, double precision) IS
    'Waits for an import of yours to end, at most so many seconds. Its BulkImportStatus then';
COMMENT ON FUNCTION bulk_import_cancel(text) IS
    'Ends an import of yours where it stands; what it has committed stays. False when it is not active';
COMMENT ON FUNCTION bulk_export(jsonb) IS
    'Has resources, or tables of SQL on FHIR, exported to files in the background once the transaction commits. Answers the job''s id';
COMMENT ON FUNCTION bulk_export_status(text) IS
    'How far an export of yours is; with HL7''s manifest, or a downloadUrl, when it is done';
COMMENT ON FUNCTION bulk_export_cancel(text) IS
    'Ends an export of yours if it still runs, and removes its files in any case. False when it has none';
COMMENT ON FUNCTION bulk_export_part(jsonb) IS
    'A part of an export of another node of Citus, which asks for it: files of shards that this node has. Answers its id';
COMMENT ON FUNCTION bulk_export_part_wait(text, integer) IS
    'Waits for a part of an export of yours to end, at most so many seconds. How far it is, and its files when it is done';
COMMENT ON FUNCTION bulk_export_part_cancel(text) IS
    'Ends a part of an export of yours if it still runs. False if there is none';
COMMENT ON FUNCTION bulk_export_file(text) IS
    'The bytes of an exported file in pieces, by the signed URL that a status gave';
COMMENT ON FUNCTION bulk_export_file_part(text, bigint, integer) IS
    'Some bytes of an exported file, how many it has, and a URL to read on with; for those who may EXECUTE bulk_export_file';
COMMENT ON FUNCTION bulk_job_subject() IS
    'The sub of the token that the session works for (request.jwt.claims), which your jobs are kept apart by';
COMMENT ON SCHEMA fhir_bulk_internal IS
    'What the extension fhir_bulk keeps for itself; its views and functions show what of it is yours';
COMMENT ON FUNCTION fhir_bulk_internal.own_rows() IS
    'Keeps all but the extension itself from writing its tables, rows that come by logical replication too';
