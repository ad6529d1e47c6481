#!/usr/bin/env bash
# Tests inside a server: what pg/ promises when an error or an interrupt comes in the middle. pgrx-tests installs
# pg-tests/, an extension of their own, and starts a server of its own at a free port; both are gone afterwards, and the
# released extension is not touched. Arguments go to `cargo test`: scripts/test-in-server.sh a_query_that_fails
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

crate=fhir_bulk_pg_tests
folder=$FHIR_BULK_DIR-in-server
extensions=$("$PG_BIN/pg_config" --sharedir)/extension
libraries=$("$PG_BIN/pg_config" --pkglibdir)
USER=$(id -un)
server_user=$USER

make_folder() {
  rm -rf "$folder"
  mkdir -m 755 "$folder" "$folder/bin" "$folder/data"
}

# pgrx-tests does by sudo what another user has to do. Root needs none of it, and its current folder may be one that
# the server's user can't enter, which PostgreSQL's programs don't like.
run_server_as() { # USER
  export CARGO_PGRX_TEST_RUNAS=$1
  server_user=$1
  chown "$1:" "$folder/data"
  cat >"$folder/bin/sudo" <<'END'
#!/bin/sh
cd /
if [ "$1" != -u ]; then exec "$@"; fi
user=$2
shift 2
exec runuser -u "$user" -- env "$@"
END
  chmod 755 "$folder/bin/sudo"
  PATH=$folder/bin:$PATH
}

as() { # USER COMMAND...
  if [ "$USER" = "$1" ]; then "${@:2}"; else sudo -u "$1" "${@:2}"; fi
}

clean() {
  local data owner=$USER
  # The framework stops its server, unless it was killed.
  for data in "$folder"/data/*/; do
    if [ -e "$data/postmaster.pid" ]; then as "$server_user" "$PG_BIN/pg_ctl" stop -s -m immediate -D "$data"; fi
  done
  [ -w "$extensions" ] && [ -w "$libraries" ] || owner=root
  as "$owner" rm -f "$extensions/$crate".control "$extensions/$crate"--*.sql "$libraries/$crate".so
  rm -rf "$folder"
}

make_folder
trap clean EXIT
if [ "$(id -u)" = 0 ]; then run_server_as postgres
elif [ ! -w "$extensions" ] || [ ! -w "$libraries" ]; then export CARGO_PGRX_TEST_RUNAS=$USER # with the real sudo
fi
export USER CARGO_PGRX_TEST_PGDATA=$folder/data
# The linker alone is told so, by pg-tests/build.rs; else all dependencies would be compiled twice.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
cargo test -p "$crate" --lib --no-default-features --features "pg$PG_MAJOR,pg_test" "$@"
