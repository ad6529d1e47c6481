#!/usr/bin/env bash
# Cargo calls this in place of rustc for scripts/fuzz.sh: our crates, and the parsers that they rely on, count which of their
# branches are taken, and what is compared with what, as libFuzzer reads it. Others do not: each counter costs time in every run.
set -euo pipefail

case ${CARGO_CRATE_NAME:-} in
  fhir_bulk_* | granit_parser | jsonwebtoken | rusty_s3 | quick_xml | instant_xml | serde_xml_rs)
    set -- "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$@"
