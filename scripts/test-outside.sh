#!/usr/bin/env bash
# Runs the tests from outside on the server of PG_MAJOR. Servers that scripts/server.sh gets were built without contrib, ICU or
# TLS: tests that need what is missing (pgrx-tests/needs.txt) are left out there, and named. Arguments go to `cargo test`:
# PG_MAJOR=18 scripts/test-outside.sh --test copying -- a_role
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

has() { # WHAT
  case $1 in
    icu) ! grep -q -- --without-icu <<<"$configured" ;;
    libxml) grep -q -- --with-libxml <<<"$configured" ;;
    tls) grep -qE -- '--with-(openssl|ssl=)' <<<"$configured" ;;
    *) [ -f "$libraries/$1.so" ] ;;
  esac
}

# A name that no test has would leave nothing out, and nobody would see it.
check_names() {
  local known name
  known=$(cargo test --quiet -p fhir_bulk_tests -- --list)
  while read -r _ name; do
    grep -qxF "$name: test" <<<"$known" || { printf 'test-outside: %s is no test: pgrx-tests/needs.txt\n' "$name" >&2; exit 1; }
  done <<<"$needs"
}

configured=$("$PG_BIN/pg_config" --configure)
libraries=$("$PG_BIN/pg_config" --pkglibdir)
needs=$(grep -v '^#' pgrx-tests/needs.txt)
arguments=("$@")
if [ $# = 0 ]; then check_names; fi
if [[ " $* " != *' -- '* ]]; then arguments+=(--); fi
while read -r what name; do
  if has "$what"; then continue; fi
  printf 'left out, for this PostgreSQL is built without %s: %s\n' "$what" "$name"
  arguments+=(--skip "$name")
done <<<"$needs"
# Tests that look with amcheck at what they wrote, or have a column of xml among others, leave that out only.
export FHIR_BULK_WITHOUT=
for what in amcheck libxml; do
  if has "$what"; then continue; fi
  printf 'left out of tests, for this PostgreSQL is built without it: %s\n' "$what"
  FHIR_BULK_WITHOUT+="$what "
done
cargo test -p fhir_bulk_tests "${arguments[@]}"
