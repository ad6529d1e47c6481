-- Who sees which jobs: of this database, one's own, and with a token those of its sub. For all views on jobs.
CREATE VIEW fhir_bulk_internal.bulk_job_here WITH (security_barrier) AS
    SELECT j.number, j.kind, j.id, j.role, j.subject, j.status, j.created_at, j.ended_at,
           j.role OPERATOR(pg_catalog.=)
               (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
           AND COALESCE(j.subject OPERATOR(pg_catalog.=) (SELECT @extschema@.bulk_job_subject()),
               (SELECT @extschema@.bulk_job_subject()) IS NULL) AS is_own
    FROM fhir_bulk_internal.bulk_job j
    WHERE j.database OPERATOR(pg_catalog.=)
            (SELECT d.oid FROM pg_catalog.pg_database d
             WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
REVOKE ALL ON fhir_bulk_internal.bulk_job_here FROM PUBLIC;
COMMENT ON VIEW fhir_bulk_internal.bulk_job_here IS
    'The jobs of this database, and which of them are the current role''s and its token''s';

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
           t.unchanged,
           t.inputs_failed
    FROM fhir_bulk_internal.bulk_job_here j,
         LATERAL (
             SELECT pg_catalog.count(*) AS inputs,
                    pg_catalog.count(ended_at) AS inputs_ended,
                    pg_catalog.count(*) FILTER (WHERE status OPERATOR(pg_catalog.=) 'failed') AS inputs_failed,
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
    WHERE j.is_own OR pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE');
COMMENT ON VIEW @extschema@.bulk_jobs IS
    'Background jobs of yours: how far they have come, how fast, and how long they may still take';
COMMENT ON COLUMN @extschema@.bulk_jobs.subject IS 'The sub of the token that asked for it';
COMMENT ON COLUMN @extschema@.bulk_jobs.status IS 'waiting, active, finished, failed or cancelled';
COMMENT ON COLUMN @extschema@.bulk_jobs.inputs_ended IS 'How many inputs are over, well or badly';
COMMENT ON COLUMN @extschema@.bulk_jobs.resources IS 'Resources that are committed';
COMMENT ON COLUMN @extschema@.bulk_jobs.progress IS 'From 0 to 1, by the bytes of the inputs';
COMMENT ON COLUMN @extschema@.bulk_jobs.time_left IS 'An estimate, if it goes on as it has so far';
COMMENT ON COLUMN @extschema@.bulk_jobs.unchanged IS 'How many of the resources were there already as they are, with skipUnchanged';
COMMENT ON COLUMN @extschema@.bulk_jobs.inputs_failed IS 'How many inputs are over badly';
