-- The files that imports with onlyNew have taken, so that later ones pass them over. The table is written by the extension
-- alone, as its owner; the view shows each role its own, and lets it delete those that are to be imported again.
CREATE TABLE fhir_bulk_internal.bulk_file (
    -- Its task has it, too, as long as an import works on it.
    id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    -- Whose it is, as for jobs.
    role oid NOT NULL,
    subject text,
    -- The SHA-256 of service, schema and URL, which may be longer than an entry of an index.
    digest bytea NOT NULL,
    -- The URL of the S3 service that has it; empty for a file of the server.
    service text NOT NULL,
    data_schema text NOT NULL,
    url text NOT NULL,
    resource_type text,
    -- The import that works on it. If that is forgotten before the file has ended, it was another database's: so is what it
    -- has loaded.
    job bigint REFERENCES fhir_bulk_internal.bulk_job ON DELETE CASCADE,
    -- Set when it has ended.
    loaded bigint NOT NULL DEFAULT 0,
    size bigint,
    ended_at timestamptz,
    error text
);
CREATE UNIQUE INDEX bulk_file_name ON fhir_bulk_internal.bulk_file (role, COALESCE(subject, ''), digest);
CREATE INDEX bulk_file_job ON fhir_bulk_internal.bulk_file (job) WHERE job IS NOT NULL;
REVOKE ALL ON fhir_bulk_internal.bulk_file FROM PUBLIC;

CREATE VIEW @extschema@.bulk_files WITH (security_barrier) AS
    SELECT pg_catalog.substring(url, '^s3://[^/]*') AS bucket,
           pg_catalog.substring(url, '^(?:s3://[^/]*/|file://)(.*)$') AS file,
           resource_type,
           size,
           loaded,
           CASE WHEN job IS NOT NULL THEN 'active' WHEN error IS NOT NULL THEN 'error' ELSE 'done' END AS status,
           error AS message,
           ended_at,
           service,
           data_schema,
           url
    FROM fhir_bulk_internal.bulk_file
    WHERE role OPERATOR(pg_catalog.=)
            (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
      AND COALESCE(subject OPERATOR(pg_catalog.=) (SELECT @extschema@.bulk_job_subject()),
            (SELECT @extschema@.bulk_job_subject()) IS NULL);
GRANT SELECT, DELETE ON @extschema@.bulk_files TO PUBLIC;
COMMENT ON VIEW @extschema@.bulk_files IS
    'The files that your imports with onlyNew have taken, and later ones pass over; delete those that are to be imported again';
COMMENT ON COLUMN @extschema@.bulk_files.bucket IS 'NULL for a file of the server';
COMMENT ON COLUMN @extschema@.bulk_files.file IS 'The key in the bucket, or the path on the server, as in the URL';
COMMENT ON COLUMN @extschema@.bulk_files.resource_type IS 'The type of all its lines; NULL if each line names its own';
COMMENT ON COLUMN @extschema@.bulk_files.size IS 'Its bytes, compressed if it is; NULL if they are not known';
COMMENT ON COLUMN @extschema@.bulk_files.loaded IS 'Resources that are committed, when it has ended';
COMMENT ON COLUMN @extschema@.bulk_files.status IS 'active, done or error';
COMMENT ON COLUMN @extschema@.bulk_files.message IS 'Why it failed';
COMMENT ON COLUMN @extschema@.bulk_files.service IS 'The URL of the S3 service; empty for a file of the server';
COMMENT ON COLUMN @extschema@.bulk_files.data_schema IS 'The schema of the tables that it was imported into';

-- What a job needs to know only while it runs: access keys that its request has. They are gone when it has ended.
CREATE TABLE fhir_bulk_internal.bulk_job_secret (
    job bigint PRIMARY KEY REFERENCES fhir_bulk_internal.bulk_job ON DELETE CASCADE,
    secret jsonb NOT NULL
);
REVOKE ALL ON fhir_bulk_internal.bulk_job_secret FROM PUBLIC;

-- Bound when they are made, and with their caller's rights, as those of queue.sql.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- Of two that take the same file at once, the second waits for the first. A file that is asked for twice is taken once.
CREATE FUNCTION fhir_bulk_internal.add_new_tasks(job bigint, first integer, inputs jsonb, service text, data_schema text)
RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    WITH asked AS (
        SELECT DISTINCT ON (d.digest) t.number, t.input, n.url, n.service, d.digest
        FROM jsonb_array_elements(add_new_tasks.inputs) WITH ORDINALITY AS t (input, number),
            LATERAL (SELECT t.input ->> 'url' AS url,
                CASE WHEN starts_with(t.input ->> 'url', 's3://') THEN add_new_tasks.service ELSE '' END AS service) n,
            LATERAL (SELECT sha256(convert_to(concat_ws(e'\n', n.service, add_new_tasks.data_schema, n.url), 'UTF8'))
                AS digest) d
        ORDER BY d.digest, t.number
    ), taken AS (
        INSERT INTO fhir_bulk_internal.bulk_file
            (role, subject, digest, service, data_schema, url, resource_type, job)
        SELECT j.role, j.subject, a.digest, a.service, add_new_tasks.data_schema, a.url, a.input ->> 'resource_type', j.number
        FROM asked a, fhir_bulk_internal.bulk_job j
        WHERE j.number = add_new_tasks.job
        ON CONFLICT DO NOTHING
        RETURNING id, digest
    ), added AS (
        INSERT INTO fhir_bulk_internal.bulk_job_task (job, number, input, file)
        SELECT add_new_tasks.job, add_new_tasks.first - 1 + row_number() OVER (ORDER BY a.number), a.input, t.id
        FROM taken t JOIN asked a ON a.digest = t.digest
        RETURNING number
    )
    SELECT count(*) FROM added;
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_new_tasks(bigint, integer, jsonb, text, text) IS
    'Adds a task to a job for each of more inputs that its role has not imported so yet, numbered from the first on; how many';

CREATE FUNCTION fhir_bulk_internal.keep_secret(job bigint, secret jsonb) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_job_secret (job, secret) VALUES (keep_secret.job, keep_secret.secret);
END;
COMMENT ON FUNCTION fhir_bulk_internal.keep_secret(bigint, jsonb) IS
    'What a job needs to know until it has ended, and nobody else may';

CREATE FUNCTION fhir_bulk_internal.job_secret(job bigint) RETURNS jsonb LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.secret FROM fhir_bulk_internal.bulk_job_secret s WHERE s.job = job_secret.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.job_secret(bigint) IS
    'What keep_secret keeps of a job; NULL when it has ended';

-- Role by role, as the index has them: there may be a million files.
CREATE FUNCTION fhir_bulk_internal.dropped_roles_of_files() RETURNS SETOF bigint LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH RECURSIVE owner (role) AS (
        (SELECT f.role FROM fhir_bulk_internal.bulk_file f ORDER BY f.role LIMIT 1)
        UNION ALL
        SELECT (SELECT f.role FROM fhir_bulk_internal.bulk_file f WHERE f.role > o.role ORDER BY f.role LIMIT 1)
        FROM owner o WHERE o.role IS NOT NULL
    )
    SELECT o.role::bigint FROM owner o
    WHERE o.role IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = o.role);
END;
COMMENT ON FUNCTION fhir_bulk_internal.dropped_roles_of_files() IS
    'Roles that have imported files and are no more';

CREATE FUNCTION fhir_bulk_internal.forget_files_of_role(role oid) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    -- Those that jobs work on go with them.
    DELETE FROM fhir_bulk_internal.bulk_file f WHERE f.role = forget_files_of_role.role AND f.job IS NULL;
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_files_of_role(oid) IS
    'Forgets the files that a role has imported';

CREATE FUNCTION fhir_bulk_internal.limit_job(job bigint, workers integer) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job j SET workers = limit_job.workers WHERE j.number = limit_job.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.limit_job(bigint, integer) IS
    'How many tasks of a job may be worked on at once';

SET LOCAL search_path TO @extschema@, pg_temp;
