#!/usr/bin/env bash
# Makes codec/definitions/*.txt and paths/definitions/{r,compartment-r}*.txt again from HL7's packages, which npm downloads. Needs the
# network, npm and tar.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

redraw() { # VERSION PACKAGE
  mkdir "$work/$1"
  (cd "$work/$1" && npm pack --silent "$2" >/dev/null && tar -xzf ./*.tgz)
  draw codec draw_definitions "$1" "$@"
  draw paths draw_search_parameters "$1" "$@"
  draw paths draw_compartment "compartment-$1" "$@"
}

draw() { # CRATE EXAMPLE NAME VERSION PACKAGE
  local target=$1/definitions/$3.txt
  cargo run --quiet --release -p "fhir_bulk_$1" --example "$2" -- "$work/$4/package" >"$work/drawn.txt"
  cp "$work/drawn.txt" "$here/$target"
  printf 'redrawn: %s from %s\n' "$target" "$5"
}

redraw r4 hl7.fhir.r4.examples@4.0.1
redraw r4b hl7.fhir.r4b.core@4.3.0
redraw r5 hl7.fhir.r5.core@5.0.0
