#!/usr/bin/env bash
# Runs some tests from outside on a PostgreSQL that runs under valgrind, and was built to tell it of its own memory
# (-DUSE_VALGRIND): each use of memory that is not allocated, or has no value, by a backend or a worker is an error. Without
# arguments these are loads, COPY, dumps, dump_sql, views, an import and an export of a few rows. Arguments go to `cargo test`:
# scripts/valgrind.sh --test outside -- read::
# A server is twenty to fifty times slower so. The first time builds it, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/from-source.sh

# Not below a home directory, which the server's user may not enter.
server=${FHIR_BULK_VALGRIND_DIR:-/var/tmp/fhir_bulk-valgrind-$(id -u)-pg$PG_MAJOR}
build_server "$server" '-Og -g -DUSE_VALGRIND' valgrind
command -v valgrind >/dev/null || die "valgrind is not installed"

# A server is started by way of valgrind, in whose logs its processes are by their ids; initdb's are not looked at.
logs=$server/logs
rm -rf "$logs" && mkdir "$logs" && chmod 777 "$logs"
if [ ! -e "$server/pg/bin/postgres.real" ]; then mv "$server/pg/bin/postgres" "$server/pg/bin/postgres.real"; fi
cat >"$server/pg/bin/postgres" <<END
#!/bin/sh
case \$1 in --boot | --single | --check | -V | --version | --describe-config) exec $server/pg/bin/postgres.real "\$@" ;; esac
exec valgrind --quiet --leak-check=no --trace-children=yes --error-markers=VALGRIND-BEGIN,VALGRIND-END --log-file=$logs/%p.log \\
  --suppressions=$server/pg/valgrind.supp --num-callers=30 $server/pg/bin/postgres.real "\$@"
END
chmod 755 "$server/pg/bin/postgres"

export PG_BIN=$server/pg/bin CARGO_TARGET_DIR=$PWD/target/valgrind PGRX_HOME=$PWD/target/valgrind/pgrx
# Lines of our code in the stacks.
export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none
mkdir -p "$CARGO_TARGET_DIR"
scripts/setup.sh
scripts/install.sh
# Seconds for what a test waits for, and for a start.
export FHIR_BULK_PATIENCE=${FHIR_BULK_PATIENCE:-1200} PGCTLTIMEOUT=${PGCTLTIMEOUT:-600}
failed=0
if [ $# = 0 ]; then set -- --test outside -- discarded::; fi
cargo test -p fhir_bulk_tests "$@" || failed=1
processes=$(find "$logs" -name "*.log" | wc -l)
errors=$(cat "$logs"/*.log | grep -c 'VALGRIND-BEGIN' || true)
say "$processes processes, $errors errors in $logs"
if [ "$errors" != 0 ]; then
  cat "$logs"/*.log | awk '/VALGRIND-BEGIN/ { on = 1 } on { print } /VALGRIND-END/ { on = 0; if (++n == 5) exit }' >&2
  failed=1
fi
exit $failed
