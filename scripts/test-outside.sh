#!/usr/bin/env bash
# Runs the tests from outside on the server of PG_MAJOR. Servers that scripts/server.sh gets were built without contrib, ICU or
# TLS, Citus is in few, and not every system has Chromium: tests that need what is missing (pgrx-tests/needs.txt) are left out
# there, and named. Arguments go to `cargo test`:
# PG_MAJOR=18 scripts/test-outside.sh --test copying -- a_role
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

has() { # WHAT
  case $1 in
    chromium) command -v chromium >/dev/null 2>&1 ;;
    icu) ! grep -q -- --without-icu <<<"$configured" ;;
    libxml) grep -q -- --with-libxml <<<"$configured" ;;
    tls) grep -qE -- '--with-(openssl|ssl=)' <<<"$configured" ;;
    *) [ -f "$libraries/$1.so" ] ;;
  esac
}

# Builds all suites, so only when it is needed.
list_tests() { known=${known:-$(cargo test --quiet -p fhir_bulk_tests -- --list)}; }

# The tests of a line of needs.txt: one, or all below a module, whose name ends with `::`.
tests_of() { # NAME
  case $1 in
    *::) sed -n "s/^\($1.*\): test$/\1/p" <<<"$known" ;;
    *) grep -xF "$1: test" <<<"$known" | sed 's/: test$//' ;;
  esac
}

# A name that no test has would leave nothing out, and nobody would see it.
check_names() {
  local name
  list_tests
  while read -r _ name; do
    [ -n "$(tests_of "$name")" ] || { printf 'test-outside: %s is no test: pgrx-tests/needs.txt\n' "$name" >&2; exit 1; }
  done <<<"$needs"
}

configured=$("$PG_BIN/pg_config" --configure)
libraries=$("$PG_BIN/pg_config" --pkglibdir)
needs=$(grep -v '^#' pgrx-tests/needs.txt)
arguments=("$@")
known=
if [ $# = 0 ]; then check_names; fi
if [[ " $* " != *' -- '* ]]; then arguments+=(--); fi
while read -r what name; do
  if has "$what"; then continue; fi
  list_tests
  for test in $(tests_of "$name"); do printf 'left out, for there is no %s: %s\n' "$what" "$test"; done
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
