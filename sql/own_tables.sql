-- What comes from another server is not taken (src/own_tables.rs). Triggers of this kind are fired where
-- session_replication_role is replica, as it is for a subscription; others pay nothing for them.
CREATE TRIGGER own_rows BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.bulk_job
    FOR EACH ROW EXECUTE FUNCTION @extschema@.bulk_own_rows();
ALTER TABLE @extschema@.bulk_job ENABLE REPLICA TRIGGER own_rows;
CREATE TRIGGER own_rows BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.bulk_job_task
    FOR EACH ROW EXECUTE FUNCTION @extschema@.bulk_own_rows();
ALTER TABLE @extschema@.bulk_job_task ENABLE REPLICA TRIGGER own_rows;
CREATE TRIGGER own_rows BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.bulk_load_reject_row
    FOR EACH ROW EXECUTE FUNCTION @extschema@.bulk_own_rows();
ALTER TABLE @extschema@.bulk_load_reject_row ENABLE REPLICA TRIGGER own_rows;
CREATE TRIGGER own_rows BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.bulk_secret
    FOR EACH ROW EXECUTE FUNCTION @extschema@.bulk_own_rows();
ALTER TABLE @extschema@.bulk_secret ENABLE REPLICA TRIGGER own_rows;
