#!/usr/bin/env bash
# Builds the release extension and installs it into the PostgreSQL of scripts/env.sh; with --package it only puts together what
# would be installed, in target/package-pgN. Fast when nothing has changed: then nothing is compiled and no file is written.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'install: %s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

package=$(realpath -ms "${CARGO_TARGET_DIR:-target}")/package-pg$PG_MAJOR
log=$package.log
scripts=$package$("$PG_BIN/pg_config" --sharedir)/extension

# `cargo pgrx package` makes the tree of files that `cargo pgrx install` would write. install_files copies them: pgrx's own
# copy with sudo overwrites a library in place, and crashes servers that have it loaded.
build() {
  local command=(cargo pgrx package --pg-config "$PG_BIN/pg_config" --out-dir "$package"
    --no-default-features --features "pg$PG_MAJOR")
  rm -rf "$package"
  mkdir -p "${package%/*}"
  say "building the release extension (a first build takes 2 to 5 minutes, later ones seconds)"
  if [ -t 2 ]; then
    "${command[@]}" # cargo's own progress
  elif ! "${command[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    die "the build failed"
  fi
}

as_root_if_needed() {
  if [ "$(id -u)" = 0 ] || [ -w "$(dirname "${!#}")" ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else die "${!#} can't be written: run this as root, or install sudo"
  fi
}

# Copies each file that is new or different. install(1) unlinks before it writes, so that a server keeps the old library that
# it has loaded.
install_files() {
  local source target mode written=0
  while IFS= read -r source; do
    target=${source#"$package"}
    if cmp -s "$source" "$target"; then continue; fi
    case $target in *.so) mode=755 ;; *) mode=644 ;; esac
    as_root_if_needed install -m "$mode" "$source" "$target"
    written=$((written + 1))
  done < <(find "$package" -type f | sort)
  if [ "$written" = 0 ]; then say "up to date in $("$PG_BIN/pg_config" --sharedir)/extension"
  else say "$written files written to $("$PG_BIN/pg_config" --sharedir)/extension and $("$PG_BIN/pg_config" --pkglibdir)"
  fi
}

# Released versions, from which upgrades start.
add_released() { cp sql/released/*.sql "$scripts/"; }

# An upgrade has `\ir FILE` where it makes what CREATE EXTENSION makes by the same file of sql/. Left as it is, the line
# would be an error of syntax: an upgrade without these parts ends there. Views for users are replaced, so that what was
# granted on them stays.
complete_upgrades() {
  local script
  for script in sql/fhir_bulk--*--*.sql; do
    awk '$1 != "\\ir" { print; next }
      {
        file = "sql/" $2
        found = 0
        while ((getline line < file) > 0) {
          sub(/^CREATE VIEW @extschema@/, "CREATE OR REPLACE VIEW @extschema@", line)
          print line
          found = 1
        }
        if (!found) exit 1
      }' \
      "$script" >"$scripts/${script##*/}" || die "$script includes a file that is not in sql/"
  done
}

build
add_released
complete_upgrades
if [ "${1:-}" != --package ]; then install_files; fi
