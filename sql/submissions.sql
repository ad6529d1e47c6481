-- Submissions (src/submission): what was fetched waits here until its submission is completed, or goes away with it. All of
-- it is read and written by the extension alone, as its owner.
CREATE TABLE fhir_bulk_internal.bulk_submission (
    job bigint PRIMARY KEY REFERENCES fhir_bulk_internal.bulk_job ON DELETE CASCADE,
    -- When its submitter last sent a request about it.
    asked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- How many requests for its status were deleted: their ids are not found any more.
    forgotten integer NOT NULL DEFAULT 0
);

CREATE TABLE fhir_bulk_internal.bulk_submission_manifest (
    job bigint NOT NULL REFERENCES fhir_bulk_internal.bulk_submission ON DELETE CASCADE,
    -- That of its task.
    number integer NOT NULL,
    -- What requests to its source take with them: credentials. NULL as soon as it is fetched.
    headers jsonb,
    -- The files that it lists, while they are fetched.
    files jsonb,
    -- How many of them are fetched.
    done integer NOT NULL DEFAULT 0,
    -- How many bytes of pieces and outcomes are kept of it.
    staged bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (job, number)
);

-- The lines of a file, checked and encoded, as one gzip stream that is cut anywhere.
CREATE TABLE fhir_bulk_internal.bulk_submission_piece (
    job bigint NOT NULL,
    manifest integer NOT NULL,
    -- Counted from 1 within the manifest, and the pieces within the file.
    file integer NOT NULL,
    number integer NOT NULL,
    -- Whether its lines are deletions.
    deletes boolean NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (job, manifest, file, number),
    FOREIGN KEY (job, manifest) REFERENCES fhir_bulk_internal.bulk_submission_manifest ON DELETE CASCADE
);
-- Compressed already.
ALTER TABLE fhir_bulk_internal.bulk_submission_piece ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- OperationOutcomes of lines, some in a row; those of the manifest itself have the file 0.
CREATE TABLE fhir_bulk_internal.bulk_submission_outcome (
    job bigint NOT NULL,
    manifest integer NOT NULL,
    file integer NOT NULL,
    number integer NOT NULL,
    count integer NOT NULL,
    lines text NOT NULL,
    PRIMARY KEY (job, manifest, file, number),
    FOREIGN KEY (job, manifest) REFERENCES fhir_bulk_internal.bulk_submission_manifest ON DELETE CASCADE
);

-- With what submissions of a role, for a submitter, log in at a token endpoint.
CREATE TABLE fhir_bulk_internal.bulk_source_credential (
    role oid NOT NULL,
    -- The submitter's Identifier; empty without a system.
    system text NOT NULL,
    value text NOT NULL,
    token_endpoint text NOT NULL,
    -- The client's id and its secret or key, scope, and the sources that tokens are for.
    credential jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (role, system, value, token_endpoint)
);
REVOKE ALL ON fhir_bulk_internal.bulk_submission, fhir_bulk_internal.bulk_submission_manifest,
    fhir_bulk_internal.bulk_submission_piece, fhir_bulk_internal.bulk_submission_outcome,
    fhir_bulk_internal.bulk_source_credential FROM PUBLIC;

-- Not even for members of pg_read_all_data.
CREATE VIEW @extschema@.bulk_source_credentials WITH (security_barrier) AS
    SELECT r.rolname AS role,
           c.system,
           c.value,
           c.token_endpoint,
           c.credential OPERATOR(pg_catalog.->>) 'clientId'::pg_catalog.text AS client_id,
           CASE WHEN c.credential OPERATOR(pg_catalog.?) 'privateKey'::pg_catalog.text THEN 'private_key_jwt'
               ELSE 'client_secret_basic' END AS method,
           c.credential OPERATOR(pg_catalog.->>) 'keyId'::pg_catalog.text AS key_id,
           c.credential OPERATOR(pg_catalog.->>) 'scope'::pg_catalog.text AS scope,
           c.credential OPERATOR(pg_catalog.->) 'sources'::pg_catalog.text AS sources,
           c.changed_at
    FROM fhir_bulk_internal.bulk_source_credential c
    JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) c.role
    WHERE pg_catalog.pg_has_role(current_user, (SELECT t.relowner FROM pg_catalog.pg_class t
        WHERE t.oid OPERATOR(pg_catalog.=) 'fhir_bulk_internal.bulk_source_credential'::pg_catalog.regclass), 'USAGE');
COMMENT ON VIEW @extschema@.bulk_source_credentials IS
    'Credentials for the token endpoints of sources of submissions, without their secrets; for superusers and the extension''s owner';
COMMENT ON COLUMN @extschema@.bulk_source_credentials.sources IS 'Beginnings of the URLs that access tokens are sent to';

-- Bound when they are made, and with their caller's rights, as those of queue.sql.
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE FUNCTION fhir_bulk_internal.begin_submission(job bigint) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_submission (job) VALUES (begin_submission.job);
END;
COMMENT ON FUNCTION fhir_bulk_internal.begin_submission(bigint) IS
    'Makes a submission of a job that was just added';

CREATE FUNCTION fhir_bulk_internal.has_expired(
    ended_at timestamptz, open boolean, asked_at timestamptz, minutes integer
) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT CASE
            WHEN has_expired.ended_at IS NOT NULL THEN has_expired.ended_at
            WHEN has_expired.open THEN has_expired.asked_at
        END < clock_timestamp() - make_interval(mins => has_expired.minutes) IS TRUE;
END;
COMMENT ON FUNCTION fhir_bulk_internal.has_expired(timestamptz, boolean, timestamptz, integer) IS
    'Whether a submission ended longer ago, or is open and nothing was asked for as long';

CREATE FUNCTION fhir_bulk_internal.find_submission(id text, role oid, subject text, minutes integer)
RETURNS TABLE (job bigint, status text, open boolean, expired boolean, forgotten integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT j.number, j.status, j.open,
        fhir_bulk_internal.has_expired(j.ended_at, j.open, s.asked_at, find_submission.minutes),
        s.forgotten
    FROM fhir_bulk_internal.own_jobs('submission', find_submission.id, find_submission.role, find_submission.subject)
        own (number)
    JOIN fhir_bulk_internal.bulk_job j ON j.number = own.number
    JOIN fhir_bulk_internal.bulk_submission s ON s.job = j.number
    ORDER BY j.created_at DESC
    LIMIT 1;
END;
COMMENT ON FUNCTION fhir_bulk_internal.find_submission(text, oid, text, integer) IS
    'A role''s submission, the last one if tokens of several subs have such';

-- What a token without a sub does is not done to the submissions of subs.
CREATE FUNCTION fhir_bulk_internal.lock_submission(id text, role oid, subject text, minutes integer)
RETURNS TABLE (job bigint, status text, open boolean, expired boolean, forgotten integer) LANGUAGE sql
BEGIN ATOMIC
    SELECT j.number, j.status, j.open,
        fhir_bulk_internal.has_expired(j.ended_at, j.open, s.asked_at, lock_submission.minutes),
        s.forgotten
    FROM fhir_bulk_internal.bulk_job j JOIN fhir_bulk_internal.bulk_submission s ON s.job = j.number
    WHERE j.kind = 'submission' AND j.id = lock_submission.id AND j.role = lock_submission.role
      AND COALESCE(j.subject, '') = COALESCE(lock_submission.subject, '')
      AND j.database = (SELECT fhir_bulk_internal.this_database())
    FOR NO KEY UPDATE OF j;
END;
COMMENT ON FUNCTION fhir_bulk_internal.lock_submission(text, oid, text, integer) IS
    'As find_submission, and keeps other requests about it waiting until the transaction ends';

CREATE FUNCTION fhir_bulk_internal.touch_submission(job bigint) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_submission s SET asked_at = clock_timestamp() WHERE s.job = touch_submission.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.touch_submission(bigint) IS
    'Something was asked for: a submission expires later';

CREATE FUNCTION fhir_bulk_internal.expire_submissions(minutes integer) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_job j WHERE j.number IN (
        SELECT o.number
        FROM fhir_bulk_internal.bulk_job o JOIN fhir_bulk_internal.bulk_submission s ON s.job = o.number
        WHERE o.kind = 'submission' AND o.status = 'active' AND o.open
          AND s.asked_at < clock_timestamp() - make_interval(mins => expire_submissions.minutes)
        LIMIT 100
        FOR UPDATE OF o SKIP LOCKED);
END;
COMMENT ON FUNCTION fhir_bulk_internal.expire_submissions(integer) IS
    'Forgets submissions that were not completed, and of which nothing was asked for so many minutes';

CREATE FUNCTION fhir_bulk_internal.forget_status(job bigint, forgotten integer) RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_submission s SET forgotten = s.forgotten + 1
    WHERE s.job = forget_status.job AND s.forgotten = forget_status.forgotten
    RETURNING true;
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_status(bigint, integer) IS
    'Deletes the request for a status; NULL if it is deleted already';

CREATE FUNCTION fhir_bulk_internal.manifests_with(job bigint, url text)
RETURNS TABLE (number integer, status text) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.number, t.status FROM fhir_bulk_internal.bulk_job_task t
    WHERE t.job = manifests_with.job AND t.input ->> 'url' = manifests_with.url;
END;
COMMENT ON FUNCTION fhir_bulk_internal.manifests_with(bigint, text) IS
    'The manifest of a submission with a URL, if there is one';

CREATE FUNCTION fhir_bulk_internal.add_manifest(job bigint, input jsonb, headers jsonb) RETURNS integer LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_job_task (job, number, input)
    SELECT add_manifest.job, max(t.number) + 1, add_manifest.input
    FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = add_manifest.job;
    INSERT INTO fhir_bulk_internal.bulk_submission_manifest (job, number, headers)
    SELECT add_manifest.job, max(t.number), add_manifest.headers
    FROM fhir_bulk_internal.bulk_job_task t WHERE t.job = add_manifest.job
    RETURNING number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_manifest(bigint, jsonb, jsonb) IS
    'Adds a manifest to a submission, and a task that fetches it; their number';

CREATE FUNCTION fhir_bulk_internal.delete_manifests(job bigint, number integer DEFAULT NULL) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_submission_manifest m
    WHERE m.job = delete_manifests.job AND (delete_manifests.number IS NULL OR m.number = delete_manifests.number);
END;
COMMENT ON FUNCTION fhir_bulk_internal.delete_manifests(bigint, integer) IS
    'Deletes a manifest of a submission, or all, with what was fetched of it';

CREATE FUNCTION fhir_bulk_internal.find_manifest(job bigint, number integer)
RETURNS TABLE (headers jsonb, files jsonb, done integer) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT m.headers, m.files, m.done FROM fhir_bulk_internal.bulk_submission_manifest m
    WHERE m.job = find_manifest.job AND m.number = find_manifest.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.find_manifest(bigint, integer) IS
    'How far a manifest is fetched';

CREATE FUNCTION fhir_bulk_internal.set_files(job bigint, manifest integer, files jsonb) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_submission_manifest m SET files = set_files.files
    WHERE m.job = set_files.job AND m.number = set_files.manifest;
END;
COMMENT ON FUNCTION fhir_bulk_internal.set_files(bigint, integer, jsonb) IS
    'The files that a manifest lists';

CREATE FUNCTION fhir_bulk_internal.forget_files(job bigint, manifest integer, after integer) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_submission_piece p
    WHERE p.job = forget_files.job AND p.manifest = forget_files.manifest AND p.file > forget_files.after;
    DELETE FROM fhir_bulk_internal.bulk_submission_outcome o
    WHERE o.job = forget_files.job AND o.manifest = forget_files.manifest AND o.file > forget_files.after;
    UPDATE fhir_bulk_internal.bulk_submission_manifest m SET staged =
        (SELECT COALESCE(sum(octet_length(p.bytes)), 0) FROM fhir_bulk_internal.bulk_submission_piece p
            WHERE p.job = m.job AND p.manifest = m.number)
        + (SELECT COALESCE(sum(octet_length(o.lines)), 0) FROM fhir_bulk_internal.bulk_submission_outcome o
            WHERE o.job = m.job AND o.manifest = m.number)
    WHERE m.job = forget_files.job AND m.number = forget_files.manifest;
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_files(bigint, integer, integer) IS
    'Deletes what was fetched of files of a manifest, after so many that stay';

CREATE FUNCTION fhir_bulk_internal.add_piece(
    job bigint, manifest integer, file integer, number integer, deletes boolean, bytes bytea
) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_submission_piece (job, manifest, file, number, deletes, bytes)
    VALUES (add_piece.job, add_piece.manifest, add_piece.file, add_piece.number, add_piece.deletes, add_piece.bytes);
    UPDATE fhir_bulk_internal.bulk_submission_manifest m SET staged = m.staged + octet_length(add_piece.bytes)
    WHERE m.job = add_piece.job AND m.number = add_piece.manifest;
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_piece(bigint, integer, integer, integer, boolean, bytea) IS
    'Adds the next bytes of a file';

CREATE FUNCTION fhir_bulk_internal.add_outcomes(
    job bigint, manifest integer, file integer, number integer, count integer, lines text
) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_submission_outcome (job, manifest, file, number, count, lines)
    VALUES (add_outcomes.job, add_outcomes.manifest, add_outcomes.file, add_outcomes.number, add_outcomes.count,
        add_outcomes.lines);
    UPDATE fhir_bulk_internal.bulk_submission_manifest m SET staged = m.staged + octet_length(add_outcomes.lines)
    WHERE m.job = add_outcomes.job AND m.number = add_outcomes.manifest;
END;
COMMENT ON FUNCTION fhir_bulk_internal.add_outcomes(bigint, integer, integer, integer, integer, text) IS
    'Adds so many OperationOutcomes, each a line';

CREATE FUNCTION fhir_bulk_internal.staged_bytes(job bigint) RETURNS bigint LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT COALESCE(sum(m.staged), 0)::bigint FROM fhir_bulk_internal.bulk_submission_manifest m
    WHERE m.job = staged_bytes.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.staged_bytes(bigint) IS
    'How many bytes are kept of what was fetched of a submission';

CREATE FUNCTION fhir_bulk_internal.end_file(job bigint, manifest integer, file integer) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_submission_manifest m SET done = end_file.file
    WHERE m.job = end_file.job AND m.number = end_file.manifest;
END;
COMMENT ON FUNCTION fhir_bulk_internal.end_file(bigint, integer, integer) IS
    'The files of a manifest up to this one are fetched';

CREATE FUNCTION fhir_bulk_internal.end_manifest(job bigint, manifest integer) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    UPDATE fhir_bulk_internal.bulk_submission_manifest m SET headers = NULL, files = NULL
    WHERE m.job = end_manifest.job AND m.number = end_manifest.manifest;
END;
COMMENT ON FUNCTION fhir_bulk_internal.end_manifest(bigint, integer) IS
    'A manifest is fetched, or given up: its source needs no credentials any more';

CREATE FUNCTION fhir_bulk_internal.unfetched_manifests(job bigint)
RETURNS TABLE (number integer, url text, error text) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT t.number, t.input ->> 'url', t.error FROM fhir_bulk_internal.bulk_job_task t
    WHERE t.job = unfetched_manifests.job AND t.status = 'failed'
    ORDER BY t.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.unfetched_manifests(bigint) IS
    'Manifests whose workers ended again and again';

-- A manifest with a file that could not be fetched has no pieces left, and one that is withdrawn no row.
CREATE FUNCTION fhir_bulk_internal.staged_files(job bigint)
RETURNS TABLE (manifest integer, url text, import jsonb, file integer, deletes boolean, pieces integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT p.manifest, t.input ->> 'url', COALESCE(t.input -> 'import', '[]'), p.file, p.deletes, count(*)::integer
    FROM fhir_bulk_internal.bulk_submission_piece p
    JOIN fhir_bulk_internal.bulk_job_task t ON t.job = p.job AND t.number = p.manifest AND t.status = 'finished'
    WHERE p.job = staged_files.job
    GROUP BY p.manifest, t.input, p.file, p.deletes
    ORDER BY p.deletes, p.manifest, p.file;
END;
COMMENT ON FUNCTION fhir_bulk_internal.staged_files(bigint) IS
    'The files of a submission that are fetched, in the order in which they count: deletions come last';

CREATE FUNCTION fhir_bulk_internal.staged_piece(job bigint, manifest integer, file integer, number integer)
RETURNS bytea LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT p.bytes FROM fhir_bulk_internal.bulk_submission_piece p
    WHERE p.job = staged_piece.job AND p.manifest = staged_piece.manifest AND p.file = staged_piece.file
      AND p.number = staged_piece.number;
END;
COMMENT ON FUNCTION fhir_bulk_internal.staged_piece(bigint, integer, integer, integer) IS
    'Some bytes of a file';

CREATE FUNCTION fhir_bulk_internal.delete_pieces(job bigint) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_submission_piece p WHERE p.job = delete_pieces.job;
END;
COMMENT ON FUNCTION fhir_bulk_internal.delete_pieces(bigint) IS
    'Deletes what was fetched: it is applied, or never will be';

CREATE FUNCTION fhir_bulk_internal.outcome_counts(job bigint)
RETURNS TABLE (manifest integer, url text, count bigint) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT o.manifest, t.input ->> 'url', sum(o.count)::bigint
    FROM fhir_bulk_internal.bulk_submission_outcome o
    JOIN fhir_bulk_internal.bulk_job_task t ON t.job = o.job AND t.number = o.manifest
    WHERE o.job = outcome_counts.job
    GROUP BY o.manifest, t.input
    ORDER BY o.manifest;
END;
COMMENT ON FUNCTION fhir_bulk_internal.outcome_counts(bigint) IS
    'How many OperationOutcomes each manifest of a submission has';

CREATE FUNCTION fhir_bulk_internal.next_outcomes(job bigint, manifest integer, after_file integer, after_number integer)
RETURNS TABLE (file integer, number integer, lines text) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT o.file, o.number, o.lines FROM fhir_bulk_internal.bulk_submission_outcome o
    WHERE o.job = next_outcomes.job AND o.manifest = next_outcomes.manifest
      AND (o.file > after_file OR o.file = after_file AND o.number > after_number)
    ORDER BY o.file, o.number
    LIMIT 1;
END;
COMMENT ON FUNCTION fhir_bulk_internal.next_outcomes(bigint, integer, integer, integer) IS
    'The OperationOutcomes of a manifest after those of a row';

CREATE FUNCTION fhir_bulk_internal.set_source_credential(
    role oid, system text, value text, token_endpoint text, credential jsonb
) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO fhir_bulk_internal.bulk_source_credential (role, system, value, token_endpoint, credential)
    VALUES (set_source_credential.role, set_source_credential.system, set_source_credential.value,
        set_source_credential.token_endpoint, set_source_credential.credential)
    ON CONFLICT ON CONSTRAINT bulk_source_credential_pkey
        DO UPDATE SET credential = excluded.credential, changed_at = excluded.changed_at;
END;
COMMENT ON FUNCTION fhir_bulk_internal.set_source_credential(oid, text, text, text, jsonb) IS
    'Sets the credentials of a role and a submitter for a token endpoint';

CREATE FUNCTION fhir_bulk_internal.remove_source_credential(role oid, system text, value text, token_endpoint text)
RETURNS boolean LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_source_credential c
    WHERE c.role = remove_source_credential.role AND c.system = remove_source_credential.system
      AND c.value = remove_source_credential.value AND c.token_endpoint = remove_source_credential.token_endpoint
    RETURNING true;
END;
COMMENT ON FUNCTION fhir_bulk_internal.remove_source_credential(oid, text, text, text) IS
    'Removes the credentials of a role and a submitter for a token endpoint; NULL if there are none';

CREATE FUNCTION fhir_bulk_internal.forget_credentials_of_dropped_roles() RETURNS void LANGUAGE sql
BEGIN ATOMIC
    DELETE FROM fhir_bulk_internal.bulk_source_credential c
    WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = c.role);
END;
COMMENT ON FUNCTION fhir_bulk_internal.forget_credentials_of_dropped_roles() IS
    'Forgets the credentials of roles that are no more';

CREATE FUNCTION fhir_bulk_internal.has_source_credentials(role oid, system text, value text)
RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT true FROM fhir_bulk_internal.bulk_source_credential c
    WHERE c.role = has_source_credentials.role AND c.system = has_source_credentials.system
      AND c.value = has_source_credentials.value
    LIMIT 1;
END;
COMMENT ON FUNCTION fhir_bulk_internal.has_source_credentials(oid, text, text) IS
    'Whether a role and a submitter have credentials for a token endpoint; else NULL';

CREATE FUNCTION fhir_bulk_internal.source_credential(role oid, system text, value text, token_endpoint text)
RETURNS jsonb LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT c.credential FROM fhir_bulk_internal.bulk_source_credential c
    WHERE c.role = source_credential.role AND c.system = source_credential.system
      AND c.value = source_credential.value AND c.token_endpoint = source_credential.token_endpoint;
END;
COMMENT ON FUNCTION fhir_bulk_internal.source_credential(oid, text, text, text) IS
    'The credentials of a role and a submitter for a token endpoint; NULL if there are none';

SET LOCAL search_path TO @extschema@, pg_temp;
