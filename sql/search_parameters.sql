-- Search parameters besides HL7's, for filters (src/store/parameters.rs). Their definitions are for everyone to read; a
-- trigger keeps all but the extension's owner and superusers from writing them, whatever is granted. ALWAYS: also while
-- changes of another server are applied.
CREATE TABLE @extschema@.bulk_search_parameter (
    url pg_catalog.text PRIMARY KEY,
    resource pg_catalog.jsonb NOT NULL
);
-- They are the user's: pg_dump includes the rows.
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bulk_search_parameter', '');
CREATE TRIGGER check_rows BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.bulk_search_parameter
    FOR EACH ROW EXECUTE FUNCTION fhir_bulk_internal.check_search_parameter();
CREATE TRIGGER check_table BEFORE TRUNCATE ON @extschema@.bulk_search_parameter
    FOR EACH STATEMENT EXECUTE FUNCTION fhir_bulk_internal.check_search_parameter();
ALTER TABLE @extschema@.bulk_search_parameter ENABLE ALWAYS TRIGGER check_rows, ENABLE ALWAYS TRIGGER check_table;
GRANT SELECT ON @extschema@.bulk_search_parameter TO PUBLIC;
COMMENT ON TABLE @extschema@.bulk_search_parameter IS
    'Search parameters of yours for filters: FHIR SearchParameters. Written by the extension''s owner and superusers';
COMMENT ON COLUMN @extschema@.bulk_search_parameter.url IS 'The canonical url, the same as in the resource';
COMMENT ON FUNCTION fhir_bulk_internal.check_search_parameter() IS
    'Checks a search parameter before it is stored, and who stores it';

CREATE FUNCTION fhir_bulk_internal.search_parameters() RETURNS SETOF pg_catalog.text LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT p.resource::pg_catalog.text FROM @extschema@.bulk_search_parameter p ORDER BY p.url;
END;
COMMENT ON FUNCTION fhir_bulk_internal.search_parameters() IS
    'All search parameters of users';
