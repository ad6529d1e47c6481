-- The inputs of a role's imports. Their URLs may hold signatures: nobody sees those of others, members of pg_monitor neither.
CREATE VIEW @extschema@.bulk_job_inputs WITH (security_barrier) AS
    SELECT j.id,
           t.number,
           t.input OPERATOR(pg_catalog.->>) 'url' AS url,
           t.input OPERATOR(pg_catalog.->>) 'resource_type' AS resource_type,
           t.status,
           t.total,
           t.unchanged,
           t.read_bytes,
           t.all_bytes,
           t.started_at,
           t.ended_at,
           t.error,
           j.subject
    FROM fhir_bulk_internal.bulk_job_here j
    JOIN fhir_bulk_internal.bulk_job_task t ON t.job OPERATOR(pg_catalog.=) j.number
    WHERE j.kind OPERATOR(pg_catalog.=) 'import' AND j.is_own;
GRANT SELECT ON @extschema@.bulk_job_inputs TO PUBLIC;
COMMENT ON VIEW @extschema@.bulk_job_inputs IS
    'The inputs of your imports, also of those that have more than a status shows';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.number IS 'Counted from 1 within the import, in its order';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.resource_type IS 'The type of all its lines; NULL if each line names its own';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.status IS 'waiting, active, finished, failed or cancelled';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.total IS 'Resources that are committed';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.unchanged IS
    'How many of them were there already as they are, with skipUnchanged';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.read_bytes IS 'How much of it was read, compressed if it is';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.all_bytes IS 'How much of it there is, if that is known';
COMMENT ON COLUMN @extschema@.bulk_job_inputs.subject IS 'The sub of the token that asked for the import';
