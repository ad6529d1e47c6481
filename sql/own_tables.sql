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
