-- FHIR is UTF-8, and so are the bytes that fhir_bulk reads and writes without converting them.
DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION 'fhir_bulk needs a database with encoding UTF8, and this one has %',
            pg_catalog.current_setting('server_encoding')
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0;';
    END IF;
END
$$;

-- What the extension keeps for itself, out of the way of GRANT … ON ALL TABLES IN SCHEMA. Without IF NOT EXISTS: a schema
-- that somebody else made is not taken for it.
CREATE SCHEMA fhir_bulk_internal;
