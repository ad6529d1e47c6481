-- What COPY … FROM (FORMAT fhir | aidbox) names when resources of any type are to go to the tables of their types. The
-- library knows it by its name; there is nothing to read in it.
CREATE VIEW @extschema@.bulk_resource AS
    SELECT NULL::pg_catalog.text AS resource_type, NULL::pg_catalog.text AS id, NULL::pg_catalog.jsonb AS resource WHERE false;
GRANT SELECT ON @extschema@.bulk_resource TO PUBLIC;
COMMENT ON VIEW @extschema@.bulk_resource IS
    'Resources of any type: COPY bulk_resource FROM … (FORMAT fhir) takes each to the table of its type. Empty to read';
