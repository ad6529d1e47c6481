#!/usr/bin/env bash
# Runs all tests, the quickest to fail first; on another PostgreSQL than $PG_FIRST those from outside. Setup may use the
# network; the tests need neither the network nor files outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

pg_feature=(--no-default-features
  --features "fhir_bulk/pg$PG_MAJOR,fhir_bulk_pg_tests/pg$PG_MAJOR,fhir_bulk_pg_tests/pg_test")

run() { # TITLE COMMAND...
  local start=$SECONDS
  printf '\n==> %s\n' "$1"
  "${@:2}" || { printf '==> FAILED: %s (after %d s)\n' "$1" $((SECONDS - start)) >&2; exit 1; }
  printf '==> ok: %s (%d s)\n' "$1" $((SECONDS - start))
}

# A step that runs for each version of PostgreSQL. The time of all of them tells how long another version will take.
version_seconds=0
run_for_version() { # TITLE COMMAND...
  local start=$SECONDS
  run "$1, PostgreSQL $PG_MAJOR" "${@:2}"
  version_seconds=$((version_seconds + SECONDS - start))
}

# Checks the scripts of the extension as the server will run them.
check_install_script() {
  local script arguments
  for script in "$("$PG_BIN/pg_config" --sharedir)"/extension/fhir_bulk--*.sql; do
    arguments=()
    # An upgrade replaces the extension's views; PostgreSQL itself refuses to replace one that is not the extension's.
    if [[ $script = *--*--* ]]; then arguments=(--ignore PS015); fi
    target/venv/bin/python scripts/check-sql.py "${arguments[@]}" "$script"
  done
}

# The README starts with the demo. It runs in a folder of its own, so that the tests do not touch a user's demo.
check_readme() {
  export FHIR_BULK_DIR=$FHIR_BULK_DIR-readme
  trap 'scripts/cluster.sh remove >/dev/null' EXIT
  scripts/readme-test.sh
}

run_for_version "setup" scripts/setup.sh --tests
. scripts/env.sh # setup may have brought the server
if [ "$PG_MAJOR" = "$PG_FIRST" ]; then
  run "formatting" cargo fmt --all --check
  run "clippy" cargo clippy --workspace --all-targets "${pg_feature[@]}" -- -D warnings
  run "dependencies, as deny.toml has them" env OFFLINE=1 scripts/deny.sh
  run "the oldest Rust that is supported" scripts/msrv.sh --if-there
  # The extension itself can be linked only in a server, so it is tested there and from outside.
  run "tests of the pure crates" cargo test --workspace --exclude fhir_bulk --exclude fhir_bulk_pg \
    --exclude fhir_bulk_pg_tests --exclude fhir_bulk_tests
  run "tests inside a server" scripts/test-in-server.sh
  run "instructions of the hot loops, against those recorded" scripts/profile.sh --check
fi
run_for_version "install the release extension" scripts/install.sh
run_for_version "tests from outside, on real servers" scripts/test-outside.sh
if [ "$PG_MAJOR" = "$PG_FIRST" ]; then
  run "pgspot on the install script" check_install_script
  # Each commit tries something else, and the same when it is tested again.
  run "a slice of the campaign that tries to break it" scripts/campaign.sh --minutes 3 \
    --seed $((16#$(git rev-parse --short=7 HEAD 2>/dev/null || echo 1))) \
    interrupts sources schedules faults exhaustion clocks rights job_rights
  run "the commands of the README" check_readme
fi
printf '%d\n' "$version_seconds" >target/version-seconds
printf '\nall tests passed on PostgreSQL %s in %d min %d s\n' "$PG_MAJOR" $((SECONDS / 60)) $((SECONDS % 60))
