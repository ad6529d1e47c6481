-- The queue of jobs as workers use it: src/jobs/queue.rs calls these as the extension's owner. They have their caller's
-- rights, so that nobody else gains anything by them.
--
-- All names and operators in their bodies are bound here and now. CREATE EXTENSION has its schema in the search_path,
-- where somebody may have an operator for just these types: it waits outside until the last of them is made.
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE FUNCTION fhir_bulk_internal.this_database() RETURNS oid LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT oid FROM pg_database WHERE datname = current_database();
END;
COMMENT ON FUNCTION fhir_bulk_internal.this_database() IS
    'The database: only its own jobs are its business';

-- Not more than a worker can look at: it goes through the locks of what it gets, and asks again. Of each job the first
-- ones, which an index finds: it may have a million.
CREATE FUNCTION fhir_bulk_internal.open_tasks(suspect boolean DEFAULT NULL)
RETURNS TABLE (job bigint, number integer, starts integer, workers integer) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.job, t.number, t.starts, j.workers
    FROM fhir_bulk_internal.bulk_job j, LATERAL (
        SELECT o.job, o.number, o.starts
        FROM fhir_bulk_internal.bulk_job_task o
        WHERE o.job = j.number AND (o.status = 'waiting' OR o.status = 'active')
          -- Twice begun and nothing committed: not by chance. It may take the server down, and with it all that are at
          -- work on other tasks.
          AND (open_tasks.suspect IS NULL OR open_tasks.suspect = (o.starts >= 2))
          AND (NOT o.last OR NOT j.open AND NOT EXISTS (
              SELECT FROM fhir_bulk_internal.bulk_job_task b
              WHERE b.job = o.job AND NOT b.last AND (b.status = 'waiting' OR b.status = 'active')))
        ORDER BY o.starts, o.number
        -- Of a job with a limit no more than there may be workers, and as many that are at work: the rest of it would leave no
        -- room here for other jobs, while it may not be begun.
        LIMIT LEAST(200, 2 * j.workers)
    ) t
    WHERE j.status = 'active'
    ORDER BY t.starts, j.created_at, t.job, t.number
    LIMIT 200;
END;
COMMENT ON FUNCTION fhir_bulk_internal.open_tasks(boolean) IS
    'Tasks that are not over, the next one first; only those that may have taken their workers down, or only the others';

-- Who is about to end it may take their time: nobody waits for their transaction.
CREATE FUNCTION fhir_bulk_internal.begin_task(
    INOUT job bigint, INOUT number integer, worker integer, OUT kind text, OUT id text, OUT role bigint, OUT request jsonb,
    OUT settings jsonb, OUT input jsonb, OUT tasks integer, OUT starts integer, OUT total bigint, OUT lines bigint,
    OUT stream_bytes bigint, OUT stream_checksum bigint, OUT result jsonb
) RETURNS SETOF record LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job_task t
    SET status = 'active', worker = begin_task.worker, starts = t.starts + 1,
        started_at = COALESCE(t.started_at, clock_timestamp()), changed_at = clock_timestamp()
    FROM (
        SELECT j.kind, j.id, j.role, j.request, j.settings
        FROM fhir_bulk_internal.bulk_job j JOIN fhir_bulk_internal.bulk_job_task t ON t.job = j.number
        WHERE j.number = begin_task.job AND j.status = 'active'
          AND t.number = begin_task.number AND t.status IN ('waiting', 'active')
        FOR UPDATE OF t SKIP LOCKED
    ) j
    WHERE t.job = begin_task.job AND t.number = begin_task.number
    RETURNING t.job, t.number, j.kind, j.id, j.role::bigint, j.request, j.settings, t.input,
        (SELECT max(a.number) FROM fhir_bulk_internal.bulk_job_task a WHERE a.job = begin_task.job),
        t.starts, t.total, t.lines, t.stream_bytes, t.stream_checksum, t.result;
END;
COMMENT ON FUNCTION fhir_bulk_internal.begin_task(bigint, integer, integer) IS
    'A worker (its process) takes a task over; no row when it is over, or somebody is about to end it';

CREATE FUNCTION fhir_bulk_internal.advance_task(
    job bigint, number integer, stored bigint, unchanged bigint, lines bigint, stream_bytes bigint, stream_checksum bigint,
    read_bytes bigint, all_bytes bigint, at_end boolean
) RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    WITH task AS (
        UPDATE fhir_bulk_internal.bulk_job_task t
        SET total = t.total + stored, unchanged = t.unchanged + advance_task.unchanged, lines = advance_task.lines,
            stream_bytes = advance_task.stream_bytes, stream_checksum = advance_task.stream_checksum,
            read_bytes = advance_task.read_bytes, all_bytes = advance_task.all_bytes, starts = 0,
            changed_at = clock_timestamp(),
            status = CASE WHEN at_end THEN 'finished' ELSE t.status END,
            ended_at = CASE WHEN at_end THEN clock_timestamp() ELSE t.ended_at END
        WHERE t.job = advance_task.job AND t.number = advance_task.number AND t.status = 'active'
        RETURNING t.file, t.total, t.all_bytes, t.ended_at
    ), file AS (
        UPDATE fhir_bulk_internal.bulk_file f
        SET job = NULL, loaded = task.total, size = task.all_bytes, ended_at = task.ended_at
        FROM task WHERE f.id = task.file AND f.job = advance_task.job AND at_end
    )
    SELECT true FROM task;
END;
COMMENT ON FUNCTION fhir_bulk_internal.advance_task(
    bigint, integer, bigint, bigint, bigint, bigint, bigint, bigint, bigint, boolean
) IS
    'What a transaction adds to a task, and whether it is its last one; NULL when the task is over already';

CREATE FUNCTION fhir_bulk_internal.hold_task(
    job bigint, number integer, read_bytes bigint, all_bytes bigint
) RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job_task t
    SET read_bytes = hold_task.read_bytes, all_bytes = hold_task.all_bytes, changed_at = clock_timestamp()
    WHERE t.job = hold_task.job AND t.number = hold_task.number AND t.status = 'active'
    RETURNING true;
END;
COMMENT ON FUNCTION fhir_bulk_internal.hold_task(bigint, integer, bigint, bigint) IS
    'Keeps a task from being ended until the transaction is over, which adds what another worker would begin anew; NULL when it is over already';

CREATE FUNCTION fhir_bulk_internal.finish_task(job bigint, number integer, total bigint, result jsonb)
RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job_task t
    SET total = finish_task.total, result = finish_task.result, status = 'finished',
        changed_at = clock_timestamp(), ended_at = clock_timestamp()
    WHERE t.job = finish_task.job AND t.number = finish_task.number AND t.status = 'active'
    RETURNING true;
END;
COMMENT ON FUNCTION fhir_bulk_internal.finish_task(bigint, integer, bigint, jsonb) IS
    'A task is done, and came to this; NULL when it was over already';

CREATE FUNCTION fhir_bulk_internal.note_task(job bigint, number integer, state jsonb) RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job_task t
    SET result = note_task.state, starts = 0, changed_at = clock_timestamp()
    WHERE t.job = note_task.job AND t.number = note_task.number AND t.status = 'active'
    RETURNING true;
END;
COMMENT ON FUNCTION fhir_bulk_internal.note_task(bigint, integer, jsonb) IS
    'What the next worker of a task must know; NULL when the task is over already';

CREATE FUNCTION fhir_bulk_internal.mirror_task(
    job bigint, number integer, total bigint, unchanged bigint, read_bytes bigint, all_bytes bigint, at_end boolean
) RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    SELECT fhir_bulk_internal.advance_task(t.job, t.number, mirror_task.total - t.total,
        mirror_task.unchanged - t.unchanged, t.lines, t.stream_bytes, t.stream_checksum, mirror_task.read_bytes,
        mirror_task.all_bytes, mirror_task.at_end)
    FROM fhir_bulk_internal.bulk_job_task t
    WHERE t.job = mirror_task.job AND t.number = mirror_task.number AND t.status = 'active';
END;
COMMENT ON FUNCTION fhir_bulk_internal.mirror_task(bigint, integer, bigint, bigint, bigint, bigint, boolean) IS
    'How far others are with a task, and whether that is all of it; NULL when the task is over already';

CREATE FUNCTION fhir_bulk_internal.fail_task(job bigint, number integer, error text)
RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    WITH task AS (
        UPDATE fhir_bulk_internal.bulk_job_task t
        SET status = 'failed', error = fail_task.error, changed_at = clock_timestamp(), ended_at = clock_timestamp()
        WHERE t.job = fail_task.job AND t.number = fail_task.number AND t.status = 'active'
        RETURNING t.file, t.total, t.all_bytes, t.ended_at
    ), file AS (
        UPDATE fhir_bulk_internal.bulk_file f
        SET job = NULL, loaded = task.total, size = task.all_bytes, ended_at = task.ended_at, error = fail_task.error
        FROM task WHERE f.id = task.file AND f.job = fail_task.job
    )
    SELECT true FROM task;
END;
COMMENT ON FUNCTION fhir_bulk_internal.fail_task(bigint, integer, text) IS
    'A task failed, for this reason; NULL when it was over already';

CREATE FUNCTION fhir_bulk_internal.committed_task(job bigint, number integer)
RETURNS TABLE (total bigint, lines bigint, stream_bytes bigint, stream_checksum bigint) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.total, t.lines, t.stream_bytes, t.stream_checksum
    FROM fhir_bulk_internal.bulk_job_task t
    WHERE t.job = committed_task.job AND t.number = committed_task.number AND t.status = 'active';
END;
COMMENT ON FUNCTION fhir_bulk_internal.committed_task(bigint, integer) IS
    'How far a task is; no row when nobody is to work on it';

CREATE FUNCTION fhir_bulk_internal.ended_jobs() RETURNS SETOF bigint LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT j.number FROM fhir_bulk_internal.bulk_job j
    WHERE j.status = 'active' AND NOT EXISTS (
        SELECT FROM fhir_bulk_internal.bulk_job_task t
        WHERE t.job = j.number AND (t.status = 'waiting' OR t.status = 'active'))
      AND NOT (SELECT fhir_bulk_internal.lacks_indexes(j.number));
END;
COMMENT ON FUNCTION fhir_bulk_internal.ended_jobs() IS
    'Jobs whose tasks are all over, whose indexes are there, and nobody has said so';

CREATE FUNCTION fhir_bulk_internal.close_jobs() RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job j
    SET ended_at = clock_timestamp(), status = CASE
        WHEN EXISTS (
            SELECT FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = j.number AND t.status = 'finished')
          AND NOT EXISTS (
            SELECT FROM fhir_bulk_internal.bulk_job_task t
            WHERE t.job = j.number AND t.last AND t.status = 'failed')
          -- There was nothing to do.
          OR NOT EXISTS (SELECT FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = j.number)
        THEN 'finished'
        ELSE 'failed'
    END
    FROM (
        SELECT o.number FROM fhir_bulk_internal.bulk_job o
        WHERE o.status = 'active' AND NOT EXISTS (
            SELECT FROM fhir_bulk_internal.bulk_job_task t
            WHERE t.job = o.number AND (t.status = 'waiting' OR t.status = 'active'))
          AND NOT (SELECT fhir_bulk_internal.lacks_indexes(o.number))
        FOR UPDATE SKIP LOCKED
    ) done
    WHERE j.number = done.number;
    DELETE FROM fhir_bulk_internal.bulk_job_secret s
    USING fhir_bulk_internal.bulk_job j WHERE j.number = s.job AND j.status <> 'active';
END;
COMMENT ON FUNCTION fhir_bulk_internal.close_jobs() IS
    'Ends the jobs whose tasks are all over and whose indexes are there, as failed when it had some and none was finished, or the last one failed';

CREATE FUNCTION fhir_bulk_internal.left_behind()
RETURNS TABLE (job bigint, number integer, kind text, role bigint, input jsonb, result jsonb) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.job, t.number, j.kind, j.role::bigint, t.input, t.result
    FROM fhir_bulk_internal.bulk_job_task t JOIN fhir_bulk_internal.bulk_job j ON j.number = t.job
    WHERE t.worker IS NOT NULL AND (t.status = 'failed' OR t.status = 'cancelled')
    ORDER BY t.job, t.number
    LIMIT 1000;
END;
COMMENT ON FUNCTION fhir_bulk_internal.left_behind() IS
    'Tasks that failed or were cancelled, of which something may be left outside of the database';

CREATE FUNCTION fhir_bulk_internal.forget_worker(job bigint, number integer) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_job_task t SET worker = NULL
    WHERE t.job = forget_worker.job AND t.number = forget_worker.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_worker(bigint, integer) IS
    'Nothing is left of a task';

CREATE FUNCTION fhir_bulk_internal.expired_jobs(kind text, minutes integer)
RETURNS TABLE (number bigint, inputs jsonb) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT j.number,
        COALESCE((SELECT jsonb_agg(t.input) FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = j.number), '[]')
    FROM fhir_bulk_internal.bulk_job j
    WHERE j.kind = expired_jobs.kind AND j.ended_at < clock_timestamp() - make_interval(mins => expired_jobs.minutes)
      -- Who has asked for a part of a job asks for its result, too, as soon as it can.
      AND (j.request -> 'part' IS NULL OR j.ended_at < clock_timestamp() - make_interval(days => 1))
    ORDER BY j.ended_at
    LIMIT 1000;
END;
COMMENT ON FUNCTION fhir_bulk_internal.expired_jobs(text, integer) IS
    'Jobs of a kind that ended longer ago, and what their tasks worked on';

-- Not a second time: another worker that is about to has forgotten what it left.
CREATE FUNCTION fhir_bulk_internal.delete_job(number bigint) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_job j WHERE j.number = (
        SELECT o.number FROM fhir_bulk_internal.bulk_job o WHERE o.number = delete_job.number FOR UPDATE SKIP LOCKED);
END;
COMMENT ON FUNCTION fhir_bulk_internal.delete_job(bigint) IS
    'Forgets a job and its tasks, unless somebody else is about to';

CREATE FUNCTION fhir_bulk_internal.forget_other_databases() RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_job j WHERE j.database <> (SELECT fhir_bulk_internal.this_database());
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_other_databases() IS
    'Forgets jobs of the database that was the template of this one: what they left outside of it is the other''s';

-- Back to what CREATE EXTENSION has set.
SET LOCAL search_path TO @extschema@, pg_temp;
