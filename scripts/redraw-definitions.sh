#!/usr/bin/env bash
# Makes codec/definitions/*.txt again from HL7's packages, which npm downloads. Needs the network, npm and tar.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

redraw() { # VERSION PACKAGE
  mkdir "$work/$1"
  (cd "$work/$1" && npm pack --silent "$2" >/dev/null && tar -xzf ./*.tgz)
  cargo run --quiet --release -p fhir_bulk_codec --example draw_definitions -- "$work/$1/package" >"$work/$1.txt"
  cp "$work/$1.txt" "$here/codec/definitions/$1.txt"
  printf 'redrawn: codec/definitions/%s.txt from %s\n' "$1" "$2"
}

redraw r4 hl7.fhir.r4.examples@4.0.1
redraw r4b hl7.fhir.r4b.core@4.3.0
redraw r5 hl7.fhir.r5.core@5.0.0
