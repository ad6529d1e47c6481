-- What signs the URLs of exported files. Made here, kept here: no role has a right to it, pg_dump leaves it out.
CREATE TABLE fhir_bulk_internal.bulk_secret (
    secret text NOT NULL,
    -- There is one.
    id boolean PRIMARY KEY DEFAULT true CHECK (id)
);
REVOKE ALL ON fhir_bulk_internal.bulk_secret FROM PUBLIC;
INSERT INTO fhir_bulk_internal.bulk_secret (secret)
    SELECT pg_catalog.string_agg(pg_catalog.gen_random_uuid()::pg_catalog.text, '')
    FROM pg_catalog.generate_series(1, 3);
