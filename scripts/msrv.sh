#!/usr/bin/env bash
# Checks that the sources compile with the oldest Rust that Cargo.toml names. Where that is the Rust in use, builds and tests
# show it, and there is no more to do; else rustup's toolchain of that version checks them. With --if-there it is no failure that
# there is no such toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'msrv: %s\n' "$*"; }

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
used=$(rustc --version | cut -d' ' -f2)
if [[ $used. == "$oldest".* ]]; then
  say "Rust $used is in use, and the oldest that is supported is $oldest: builds and tests show it"
  exit
fi
# As rustup names it: with three numbers, or as two.
toolchain=$(rustup toolchain list 2>/dev/null | grep -oE "^${oldest//./\\.}(\.[0-9]+)?-[^ ]+" | head -n 1 || true)
if [ -z "$toolchain" ]; then
  say "Rust $used is in use, and $oldest is not there (rustup toolchain install $oldest): not checked"
  [ "${1:-}" = --if-there ]
  exit
fi
CARGO_TARGET_DIR=$(realpath -ms "${CARGO_TARGET_DIR:-target}")/msrv cargo "+$toolchain" check --quiet --locked --workspace --all-targets \
  --no-default-features --features "fhir_bulk/pg$PG_MAJOR,fhir_bulk_pg_tests/pg$PG_MAJOR,fhir_bulk_pg_tests/pg_test"
say "the sources compile with Rust $oldest ($toolchain)"
