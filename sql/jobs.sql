-- Background jobs: what is asked for, and how far it has come. The tables are read and written by the extension alone,
-- as its owner; the view shows each role its own jobs.
CREATE TABLE fhir_bulk_internal.bulk_job (
    -- Random: whoever may write all data could turn a sequence back, which row level security does not protect.
    number bigint PRIMARY KEY,
    -- Where: a database that was made from another as its template has the other's jobs as well, which are not its own.
    database oid NOT NULL,
    kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) 'import' OR kind OPERATOR(pg_catalog.=) 'export'),
    -- What its owner calls it.
    id text NOT NULL,
    -- With whose rights it runs, and the sub of the token that asked for it, if there was one.
    role oid NOT NULL,
    subject text,
    request jsonb NOT NULL,
    -- What the session had set: name to value.
    settings jsonb NOT NULL,
    status text NOT NULL DEFAULT 'active',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at timestamptz,
    -- How many of its tasks may be worked on at once; NULL for any number.
    workers integer
);
CREATE UNIQUE INDEX bulk_job_id ON fhir_bulk_internal.bulk_job (kind, id, role, COALESCE(subject, ''), database);
CREATE INDEX bulk_job_active ON fhir_bulk_internal.bulk_job (created_at) WHERE status OPERATOR(pg_catalog.=) 'active';

CREATE TABLE fhir_bulk_internal.bulk_job_task (
    job bigint NOT NULL REFERENCES fhir_bulk_internal.bulk_job ON DELETE CASCADE,
    -- Counted from 1 within the job.
    number integer NOT NULL,
    input jsonb NOT NULL,
    status text NOT NULL DEFAULT 'waiting',
    -- Resources that are committed.
    total bigint NOT NULL DEFAULT 0,
    -- How far the input is committed: lines and bytes of its decompressed stream, and the CRC-32 of those bytes.
    lines bigint NOT NULL DEFAULT 0,
    stream_bytes bigint NOT NULL DEFAULT 0,
    stream_checksum bigint NOT NULL DEFAULT 0,
    -- How much of the input as it is stored was read, and how much there is when that is known.
    read_bytes bigint NOT NULL DEFAULT 0,
    all_bytes bigint,
    -- When it was begun, when it last changed, and when it ended.
    started_at timestamptz,
    changed_at timestamptz,
    ended_at timestamptz,
    error text,
    -- What it came to, as its kind of job has it.
    result jsonb,
    -- The process that works on it; that it lives is told by its lock.
    worker integer,
    -- How many processes began it, one after the other, since any of it was committed last.
    starts integer NOT NULL DEFAULT 0,
    -- How many of the total were there already as they are.
    unchanged bigint NOT NULL DEFAULT 0,
    -- Its row of bulk_file, if the import remembers its files.
    file uuid,
    PRIMARY KEY (job, number)
);
-- A job may have a million tasks, of which a worker looks for the next one.
CREATE INDEX bulk_job_task_open ON fhir_bulk_internal.bulk_job_task (job, starts, number)
    WHERE status OPERATOR(pg_catalog.=) 'waiting' OR status OPERATOR(pg_catalog.=) 'active';
CREATE INDEX bulk_job_task_left ON fhir_bulk_internal.bulk_job_task (job, number)
    WHERE worker IS NOT NULL
      AND (status OPERATOR(pg_catalog.=) 'failed' OR status OPERATOR(pg_catalog.=) 'cancelled');
REVOKE ALL ON fhir_bulk_internal.bulk_job, fhir_bulk_internal.bulk_job_task FROM PUBLIC;

-- Everybody sees their own jobs, and with a token only those of its sub; members of pg_monitor see all.
CREATE VIEW @extschema@.bulk_jobs WITH (security_barrier) AS
    SELECT j.kind,
           j.id,
           pg_catalog.pg_get_userbyid(j.role) AS role,
           j.subject,
           CASE WHEN j.status OPERATOR(pg_catalog.=) 'active' AND t.started_at IS NULL THEN 'waiting' ELSE j.status END
               AS status,
           j.created_at,
           t.started_at,
           j.ended_at,
           t.inputs,
           t.inputs_ended,
           t.resources,
           pg_catalog.round(t.progress::numeric, 3) AS progress,
           CASE WHEN t.seconds OPERATOR(pg_catalog.>) 0 THEN
               pg_catalog.round(t.resources OPERATOR(pg_catalog./) t.seconds)::bigint
           END AS resources_per_second,
           CASE WHEN j.status OPERATOR(pg_catalog.=) 'active' AND t.progress OPERATOR(pg_catalog.>) 0 THEN
               pg_catalog.make_interval(secs => pg_catalog.round(t.seconds OPERATOR(pg_catalog.*)
                   (1 OPERATOR(pg_catalog.-) t.progress) OPERATOR(pg_catalog./) t.progress))
           END AS time_left,
           t.unchanged
    FROM fhir_bulk_internal.bulk_job j,
         LATERAL (
             SELECT pg_catalog.count(*) AS inputs,
                    pg_catalog.count(ended_at) AS inputs_ended,
                    COALESCE(pg_catalog.sum(total), 0)::bigint AS resources,
                    COALESCE(pg_catalog.sum(unchanged), 0)::bigint AS unchanged,
                    pg_catalog.min(started_at) AS started_at,
                    pg_catalog.date_part('epoch', COALESCE(j.ended_at, pg_catalog.clock_timestamp())
                        OPERATOR(pg_catalog.-) pg_catalog.min(started_at)) AS seconds,
                    -- From 0 to 1; an input whose size is not known counts when it has ended.
                    pg_catalog.avg(CASE WHEN ended_at IS NOT NULL THEN 1
                        WHEN all_bytes OPERATOR(pg_catalog.>) 0 THEN
                            read_bytes::double precision OPERATOR(pg_catalog./) all_bytes
                        ELSE 0
                    END) AS progress
             FROM fhir_bulk_internal.bulk_job_task
             WHERE job OPERATOR(pg_catalog.=) j.number
         ) t
    WHERE j.database OPERATOR(pg_catalog.=)
            (SELECT d.oid FROM pg_catalog.pg_database d
             WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
       AND (pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE')
           OR (j.role OPERATOR(pg_catalog.=)
                   (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
               AND COALESCE(j.subject OPERATOR(pg_catalog.=) @extschema@.bulk_job_subject(),
                   @extschema@.bulk_job_subject() IS NULL)));
GRANT SELECT ON @extschema@.bulk_jobs TO PUBLIC;
COMMENT ON VIEW @extschema@.bulk_jobs IS
    'Background jobs of yours: how far they have come, how fast, and how long they may still take';
COMMENT ON COLUMN @extschema@.bulk_jobs.subject IS 'The sub of the token that asked for it';
COMMENT ON COLUMN @extschema@.bulk_jobs.status IS 'waiting, active, finished, failed or cancelled';
COMMENT ON COLUMN @extschema@.bulk_jobs.inputs_ended IS 'How many inputs are over, well or badly';
COMMENT ON COLUMN @extschema@.bulk_jobs.resources IS 'Resources that are committed';
COMMENT ON COLUMN @extschema@.bulk_jobs.progress IS 'From 0 to 1, by the bytes of the inputs';
COMMENT ON COLUMN @extschema@.bulk_jobs.time_left IS 'An estimate, if it goes on as it has so far';
COMMENT ON COLUMN @extschema@.bulk_jobs.unchanged IS 'How many of the resources were there already as they are, with skipUnchanged';
