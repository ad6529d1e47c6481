# shellcheck shell=bash disable=SC2034
# Sourced by the scripts: where PostgreSQL is, which versions are meant, where the demo lives. Each can be set
# from outside.
PG_MAJOR=${PG_MAJOR:-15}
PG_BIN=${PG_BIN:-/usr/lib/postgresql/$PG_MAJOR/bin}
PGRX_VERSION=0.18.1
DENY_VERSION=0.20.2
PGRX_HOME=${PGRX_HOME:-$PWD/target/pgrx}
# What tests use of PyPI: pgspot reads the install script, pandas and DuckDB read what dump_sql writes, psycopg is what
# the documents drive the functions with.
PYTHON_TOOLS=(pgspot==0.9.4 pandas==3.1.1 duckdb==2.0.0 "psycopg[binary]==3.3.9")
# A client of HL7's Bulk Data Access, for the proxy's tests; apart, because it brings much along.
BULK_CLIENT=(smart-fetch==1.0.3)
# The private cluster: not below a home, which the server's user may not enter; one for each user and checkout.
FHIR_BULK_DIR=${FHIR_BULK_DIR:-/var/tmp/fhir_bulk-$(id -u)-$(printf %s "$PWD" | sha256sum | cut -c1-8)}
export PG_MAJOR PG_BIN PGRX_HOME FHIR_BULK_DIR
