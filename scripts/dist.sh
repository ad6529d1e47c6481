#!/usr/bin/env bash
# Makes target/fhir_bulk-VERSION.zip of what is committed, as PGXN takes it: META.json is checked by its specification 1.0.0
# first. The same commit gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
python3 scripts/check-meta.py META.json "$version"
mkdir -p "$target"
git archive --format=zip --prefix="fhir_bulk-$version/" --output="$target/fhir_bulk-$version.zip" HEAD
echo "dist: $target/fhir_bulk-$version.zip"
