#!/usr/bin/env bash
# Runs all tests from outside and inside on a PostgreSQL with assertions: it stops at errors in memory that a plain server
# ignores. Builds that server from Debian's source package in a folder of its own; the first time takes some minutes.
# Tests on Citus are left out, which is built for servers without. Arguments go to `cargo test`, which then runs tests from
# outside only: scripts/asserts.sh --test jobs
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/from-source.sh

# Not below a home directory, which the server's user may not enter.
server=${FHIR_BULK_ASSERTS_DIR:-/var/tmp/fhir_bulk-asserts-$(id -u)-pg$PG_MAJOR}
build_server "$server" '-O1 -g' '' --enable-cassert
export PG_BIN=$server/pg/bin CARGO_TARGET_DIR=$PWD/target/asserts PGRX_HOME=$PWD/target/asserts/pgrx
mkdir -p "$CARGO_TARGET_DIR"
# Seconds: where caches are dropped all the time, a job takes minutes.
export FHIR_BULK_PATIENCE=${FHIR_BULK_PATIENCE:-600}
scripts/setup.sh
if [ $# = 0 ]; then scripts/test-in-server.sh; fi
scripts/install.sh
scripts/test-outside.sh "$@"
if [ $# = 0 ]; then
  # Recovery and a standby compare each page with what the server had after the change. The kills are many recoveries.
  export FHIR_BULK_SERVER_SETTINGS='wal_consistency_checking = all'
  cargo test -p fhir_bulk_tests --test outside -- crash::
  cargo test -p fhir_bulk_tests --test jobs -- standby:: kills:: survival::
  cargo test -p fhir_bulk_tests --test writing -- replication::
fi
