-- The jobs of a role, and of its token's sub: asked for, shown, ended by it (src/jobs/own_jobs.rs). Bound when they are
-- made, and with their caller's rights, as those of queue.sql.
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE FUNCTION fhir_bulk_internal.own_jobs(kind text, id text, role oid, subject text)
RETURNS SETOF bigint LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT j.number FROM fhir_bulk_internal.bulk_job j
    WHERE j.kind = own_jobs.kind AND j.id = own_jobs.id AND j.role = own_jobs.role
      -- Without a token the role sees all of its jobs.
      AND (own_jobs.subject IS NULL OR COALESCE(j.subject = own_jobs.subject, false))
      AND j.database = (SELECT fhir_bulk_internal.this_database());
END;
COMMENT ON FUNCTION fhir_bulk_internal.own_jobs(text, text, oid, text) IS
    'The numbers of a role''s jobs with an id: with a token''s sub at most one';

-- A random number: see the table. Of two who take the same id at once, the second waits for the first.
CREATE FUNCTION fhir_bulk_internal.add_job(
    kind text, id text, role oid, subject text, request jsonb, settings jsonb, inputs jsonb
) RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    WITH added AS (
        INSERT INTO fhir_bulk_internal.bulk_job (number, kind, id, role, subject, database, request, settings)
        VALUES (hashtextextended(gen_random_uuid()::text, 0), add_job.kind, add_job.id, add_job.role, add_job.subject,
            fhir_bulk_internal.this_database(), add_job.request, add_job.settings)
        ON CONFLICT DO NOTHING
        RETURNING number
    ), tasks AS (
        INSERT INTO fhir_bulk_internal.bulk_job_task (job, number, input)
        SELECT added.number, t.number, t.input
        FROM added, jsonb_array_elements(inputs) WITH ORDINALITY AS t (input, number)
    )
    SELECT number FROM added;
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_job(text, text, oid, text, jsonb, jsonb, jsonb) IS
    'Adds a job with a task for each of its inputs; NULL when the role has one of that id';

CREATE FUNCTION fhir_bulk_internal.add_tasks(job bigint, first integer, inputs jsonb) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_job_task (job, number, input)
    SELECT add_tasks.job, add_tasks.first + t.number - 1, t.input
    FROM jsonb_array_elements(inputs) WITH ORDINALITY AS t (input, number);
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_tasks(bigint, integer, jsonb) IS
    'Adds a task to a job for each of more inputs, numbered from the first on';

CREATE FUNCTION fhir_bulk_internal.open_job(job bigint, input jsonb) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job j SET open = true WHERE j.number = open_job.job;
    INSERT INTO fhir_bulk_internal.bulk_job_task (job, number, input, last)
    SELECT open_job.job, COALESCE(max(t.number), 0) + 1, open_job.input, true
    FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = open_job.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.open_job(bigint, jsonb) IS
    'Adds the last task of a job, to which others may be added until it is closed';

CREATE FUNCTION fhir_bulk_internal.close_job(job bigint) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job j SET open = false WHERE j.number = close_job.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.close_job(bigint) IS
    'There will be no more tasks of a job: its last one may be begun when all others are over';

CREATE FUNCTION fhir_bulk_internal.unfinished_jobs(kind text, role oid, subject text)
RETURNS bigint LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT count(*) FROM fhir_bulk_internal.bulk_job j
    WHERE j.kind = unfinished_jobs.kind AND j.role = unfinished_jobs.role
      AND COALESCE(j.subject, '') = COALESCE(unfinished_jobs.subject, '')
      AND j.database = (SELECT fhir_bulk_internal.this_database()) AND j.status = 'active';
END;
COMMENT ON FUNCTION fhir_bulk_internal.unfinished_jobs(text, oid, text) IS
    'How many jobs of a kind a role, or a sub of its tokens, has that are not over';

CREATE FUNCTION fhir_bulk_internal.micros(at timestamptz) RETURNS bigint LANGUAGE sql STABLE
BEGIN ATOMIC
    -- From 1970 to 2000.
    SELECT ((extract(epoch FROM at) - 946684800) * 1000000)::bigint;
END;
COMMENT ON FUNCTION fhir_bulk_internal.micros(timestamptz) IS
    'Microseconds since 2000-01-01T00:00:00Z, as PostgreSQL counts';

-- With what the worker of each shows of a transaction that has not committed (pg::progress).
CREATE FUNCTION fhir_bulk_internal.job_tasks(job bigint, most integer DEFAULT NULL)
RETURNS TABLE (
    number integer, input jsonb, status text, total bigint, unchanged bigint, seen bigint, read_bytes bigint,
    all_bytes bigint, started_at bigint, changed_at bigint, ended_at bigint, error text, result jsonb
) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.number, t.input, t.status, t.total, t.unchanged,
        GREATEST(t.total, p.param3),
        GREATEST(t.read_bytes, p.param1),
        CASE WHEN p.param2 > 0 THEN p.param2 ELSE t.all_bytes END,
        fhir_bulk_internal.micros(t.started_at),
        fhir_bulk_internal.micros(t.changed_at),
        fhir_bulk_internal.micros(t.ended_at),
        t.error, t.result
    FROM (
        SELECT * FROM fhir_bulk_internal.bulk_job_task a
        WHERE a.job = job_tasks.job
        ORDER BY CASE a.status WHEN 'failed' THEN 0 WHEN 'active' THEN 1 ELSE 2 END, a.number
        LIMIT most
    ) t
    LEFT JOIN pg_stat_get_progress_info('COPY') p
        ON p.datid = (SELECT fhir_bulk_internal.this_database()) AND p.param19 = t.job AND p.param20 = t.number
        AND t.status = 'active'
    ORDER BY t.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.job_tasks(bigint, integer) IS
    'How far the tasks of a job are, what is not committed yet too (seen, read_bytes); of many the failed ones, those at work, and the first; times in microseconds since 2000';

CREATE FUNCTION fhir_bulk_internal.job_sums(job bigint)
RETURNS TABLE (
    tasks bigint, failed bigint, total bigint, unchanged bigint, seen bigint, read_bytes bigint, all_bytes bigint,
    started_at bigint
) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT count(*),
        count(*) FILTER (WHERE t.status = 'failed'),
        COALESCE(sum(t.total), 0)::bigint,
        COALESCE(sum(t.unchanged), 0)::bigint,
        COALESCE(sum(GREATEST(t.total, p.param3)), 0)::bigint,
        COALESCE(sum(GREATEST(t.read_bytes, p.param1)), 0)::bigint,
        CASE WHEN bool_and(COALESCE(p.param2 > 0, false) OR t.all_bytes IS NOT NULL)
            THEN sum(CASE WHEN p.param2 > 0 THEN p.param2 ELSE t.all_bytes END)::bigint END,
        fhir_bulk_internal.micros(min(t.started_at))
    FROM fhir_bulk_internal.bulk_job_task t
    LEFT JOIN pg_stat_get_progress_info('COPY') p
        ON p.datid = (SELECT fhir_bulk_internal.this_database()) AND p.param19 = t.job AND p.param20 = t.number
        AND t.status = 'active'
    WHERE t.job = job_sums.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.job_sums(bigint) IS
    'How far the tasks of a job are together; all_bytes is NULL if it is not known of one';

CREATE FUNCTION fhir_bulk_internal.find_job(kind text, id text, role oid, subject text, most integer DEFAULT NULL)
RETURNS TABLE (request jsonb, status text, created_at bigint, ended_at bigint, tasks jsonb, sums jsonb, indexes jsonb)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT j.request, j.status, fhir_bulk_internal.micros(j.created_at), fhir_bulk_internal.micros(j.ended_at),
        COALESCE((SELECT jsonb_agg(to_jsonb(t) ORDER BY t.number)
            FROM fhir_bulk_internal.job_tasks(j.number, find_job.most) t), '[]'),
        (SELECT to_jsonb(s) FROM fhir_bulk_internal.job_sums(j.number) s),
        COALESCE((SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'table', c.relname, 'name', i.name, 'error', i.error)) ORDER BY c.relname, i.name)
            FROM fhir_bulk_internal.bulk_index_hold h
            JOIN fhir_bulk_internal.bulk_dropped_index i ON i.relation = h.relation
            JOIN pg_class c ON c.oid = i.relation
            WHERE h.job = j.number), '[]')
    FROM fhir_bulk_internal.own_jobs(find_job.kind, find_job.id, find_job.role, find_job.subject) own (number)
    JOIN fhir_bulk_internal.bulk_job j ON j.number = own.number
    ORDER BY j.created_at DESC
    LIMIT 1;
END;
COMMENT ON FUNCTION fhir_bulk_internal.find_job(text, text, oid, text, integer) IS
    'A role''s job with an id, the last one if tokens of several subs asked for such, with some of its tasks; times in microseconds since 2000';

CREATE FUNCTION fhir_bulk_internal.first_input(kind text, id text) RETURNS jsonb LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.input
    FROM fhir_bulk_internal.bulk_job j JOIN fhir_bulk_internal.bulk_job_task t ON t.job = j.number AND t.number = 1
    WHERE j.kind = first_input.kind AND j.id = first_input.id
      AND j.database = (SELECT fhir_bulk_internal.this_database());
END;
COMMENT ON FUNCTION fhir_bulk_internal.first_input(text, text) IS
    'What the first task of a job works on, whoever''s it is: for kinds whose ids are random';

CREATE FUNCTION fhir_bulk_internal.own_task_states(kind text, id text, role oid, subject text)
RETURNS SETOF jsonb LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.result
    FROM fhir_bulk_internal.own_jobs(own_task_states.kind, own_task_states.id, own_task_states.role,
        own_task_states.subject) own (number)
    JOIN fhir_bulk_internal.bulk_job_task t ON t.job = own.number
    WHERE t.status = 'active' AND t.result IS NOT NULL;
END;
COMMENT ON FUNCTION fhir_bulk_internal.own_task_states(text, text, oid, text) IS
    'What was noted of the tasks of a role''s jobs with an id that are at work';

CREATE FUNCTION fhir_bulk_internal.cancel_jobs(kind text, id text, role oid, subject text)
RETURNS SETOF bigint LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job j SET status = 'cancelled', ended_at = clock_timestamp()
    FROM fhir_bulk_internal.own_jobs(cancel_jobs.kind, cancel_jobs.id, cancel_jobs.role, cancel_jobs.subject) own (number)
    WHERE j.number = own.number AND j.status = 'active' AND EXISTS (
        SELECT FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = j.number AND t.status IN ('waiting', 'active'))
    RETURNING j.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.cancel_jobs(text, text, oid, text) IS
    'Ends a role''s jobs with an id that have something left to do; their numbers';

CREATE FUNCTION fhir_bulk_internal.cancel_job(job bigint) RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job j SET status = 'cancelled', ended_at = clock_timestamp()
    WHERE j.number = cancel_job.job AND j.status = 'active'
    RETURNING true;
END;
COMMENT ON FUNCTION fhir_bulk_internal.cancel_job(bigint) IS
    'Ends a job that is not over; NULL when it was over already';

-- A statement of its own, which sees what was committed while the one before waited for the job.
CREATE FUNCTION fhir_bulk_internal.cancel_tasks(job bigint)
RETURNS TABLE (number integer, worker integer) LANGUAGE sql
BEGIN ATOMIC
    WITH ended AS (
        UPDATE fhir_bulk_internal.bulk_job_task t
        SET status = 'cancelled', changed_at = clock_timestamp(), ended_at = clock_timestamp()
        WHERE t.job = cancel_tasks.job AND t.status IN ('waiting', 'active')
        RETURNING t.number, t.worker, t.file
    ), files AS (
        -- They are new again.
        DELETE FROM fhir_bulk_internal.bulk_file f
        USING ended WHERE f.id = ended.file AND f.job = cancel_tasks.job
    ), secret AS (
        DELETE FROM fhir_bulk_internal.bulk_job_secret s WHERE s.job = cancel_tasks.job
    )
    SELECT number, worker FROM ended;
END;
COMMENT ON FUNCTION fhir_bulk_internal.cancel_tasks(bigint) IS
    'Ends the tasks of a job that is cancelled; which ones, and the processes that work on them';

CREATE FUNCTION fhir_bulk_internal.withdraw_task(job bigint, task integer)
RETURNS TABLE (number integer, worker integer) LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job_task t
    SET status = 'cancelled', changed_at = clock_timestamp(), ended_at = clock_timestamp()
    WHERE t.job = withdraw_task.job AND t.number = withdraw_task.task AND t.status <> 'cancelled'
    RETURNING t.number, t.worker;
END;
COMMENT ON FUNCTION fhir_bulk_internal.withdraw_task(bigint, integer) IS
    'Takes back a task of a job that goes on, whether it has ended or not; the process that works on it';

CREATE FUNCTION fhir_bulk_internal.discard_jobs(kind text, id text, role oid, subject text)
RETURNS SETOF bigint LANGUAGE sql
BEGIN ATOMIC
    WITH ended AS (
        UPDATE fhir_bulk_internal.bulk_job j
        SET status = 'cancelled', ended_at = COALESCE(j.ended_at, clock_timestamp())
        FROM fhir_bulk_internal.own_jobs(discard_jobs.kind, discard_jobs.id, discard_jobs.role, discard_jobs.subject)
            own (number)
        WHERE j.number = own.number AND (j.status IN ('finished', 'failed')
            -- Its tasks are over, and no worker has said yet that it is, too.
            OR j.status = 'active' AND NOT EXISTS (
                SELECT FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = j.number AND t.status IN ('waiting', 'active')))
        RETURNING j.number
    )
    -- A task with a worker that no longer lives has something left of it.
    UPDATE fhir_bulk_internal.bulk_job_task t SET status = 'cancelled', worker = 0
    FROM ended WHERE t.job = ended.number
    RETURNING t.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.discard_jobs(text, text, oid, text) IS
    'Takes back a role''s jobs with an id that have ended: what their tasks made is a worker''s to remove';

CREATE FUNCTION fhir_bulk_internal.forget_expired_job(kind text, id text, role oid, subject text, minutes integer)
RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_job j
    USING fhir_bulk_internal.own_jobs(forget_expired_job.kind, forget_expired_job.id, forget_expired_job.role,
        forget_expired_job.subject) own (number)
    WHERE j.number = own.number AND COALESCE(j.subject, '') = COALESCE(forget_expired_job.subject, '')
      AND j.ended_at < clock_timestamp() - make_interval(mins => forget_expired_job.minutes);
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_expired_job(text, text, oid, text, integer) IS
    'Forgets a role''s job that ended longer ago, so that its id can be taken again';

SET LOCAL search_path TO @extschema@, pg_temp;
