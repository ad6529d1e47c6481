-- Background jobs: what is asked for, and how far it has come. The tables are read and written by the extension alone,
-- as its owner; the views of job_views.sql show each role its own jobs.
CREATE TABLE fhir_bulk_internal.bulk_job (
    -- Random: whoever may write all data could turn a sequence back, which row level security does not protect.
    number bigint PRIMARY KEY,
    -- Where: a database that was made from another as its template has the other's jobs as well, which are not its own.
    database oid NOT NULL,
    kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) 'import' OR kind OPERATOR(pg_catalog.=) 'export'
        OR kind OPERATOR(pg_catalog.=) 'part' OR kind OPERATOR(pg_catalog.=) 'submission'),
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
    -- Whether its owner may still add tasks. Until then its last task waits.
    open boolean NOT NULL DEFAULT false,
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
    -- Whether it waits until the job is no longer open, and all its other tasks are over.
    last boolean NOT NULL DEFAULT false,
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
