#!/usr/bin/env bash
# Puts Citus into the PostgreSQL of scripts/env.sh, for the tests that need it, from an archive beside the checkout. Nothing of
# Citus is part of this project. Files that are there already stay as they are, and with them a Citus of your own.
#
#   citus.sh          install it, or say why not
#   citus.sh --check  exit code 1 if it could be installed, and is not
#
# An archive is made for one version of PostgreSQL and one release of Debian, as its name says: citus-13.2.2-pg15-bookworm.tar.gz
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'citus: %s\n' "$*"; }
die() { printf 'citus: %s\n' "$*" >&2; exit 1; }

folder=${FHIR_BULK_SHARED_DATA:-../shared/data}/citus
release=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
archive=$(find "$folder" -name "citus-*-pg$PG_MAJOR-$release.tar.gz" 2>/dev/null | sort | tail -n 1 || true)
scripts=$("$PG_BIN/pg_config" --sharedir)/extension
libraries=$("$PG_BIN/pg_config" --pkglibdir)

is_installed() { [ -f "$scripts/citus.control" ] && [ -f "$libraries/citus.so" ]; }

if is_installed; then
  say "$(sed -n "s/^default_version = //p" "$scripts/citus.control") is in $libraries"
  exit
fi
if [ -z "$archive" ] || [ "$(uname -m)" != x86_64 ]; then
  say "no $folder/citus-*-pg$PG_MAJOR-$release.tar.gz for this machine: its tests are left out"
  exit
fi
if [ "${1:-}" = --check ]; then die "$archive is there, and its tests did not run: run scripts/setup.sh --tests"; fi

as_root_if_needed() {
  if [ "$(id -u)" = 0 ] || [ -w "$(dirname "${!#}")" ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else die "${!#} can't be written: run this as root, or install sudo"
  fi
}

put() { # FILE TARGET
  local mode=644
  if [ -e "$2" ]; then return; fi
  case $2 in *.so) mode=755 ;; esac
  [ -d "${2%/*}" ] || as_root_if_needed install -d -m 755 "${2%/*}"
  as_root_if_needed install -m "$mode" "$1" "$2"
}

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
tar xzf "$archive" --no-same-owner -C "$unpacked"
from=$unpacked/usr/lib/postgresql/$PG_MAJOR/lib
find "$from" -type f -printf '%P\n' | sort | while IFS= read -r file; do put "$from/$file" "$libraries/$file"; done
# The control file last: with it the installation is complete.
from=$unpacked/usr/share/postgresql/$PG_MAJOR/extension
find "$from" -type f -printf '%P\n' | sort | grep -vx citus.control | while IFS= read -r file; do
  put "$from/$file" "$scripts/$file"
done
put "$from/citus.control" "$scripts/citus.control"
say "${archive##*/} is in $libraries"
