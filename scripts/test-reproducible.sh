#!/usr/bin/env bash
# Tests that the packages of a commit are the same bytes wherever and however often they are made: two new clones in folders of
# different names and depths, each with its own target folder and registry, compile and pack everything; their packages must be
# equal. Takes two whole release builds. PG_MAJORS='15 18' makes these (15), always with the proxy.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'test-reproducible: %s\n' "$*"; }
die() { printf 'test-reproducible: %s\n' "$*" >&2; exit 1; }

export PG_MAJORS=${PG_MAJORS:-$PG_FIRST}
# Packages of a working tree that no commit has could not be made again.
[ -z "$(git status --porcelain)" ] || die "the checkout has changes that are not committed"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
folder=$(mktemp -d /var/tmp/fhir_bulk-reproducible.XXXXXX)
chmod 755 "$folder"
trap 'rm -rf "$folder"' EXIT

make_packages() { # CLONE
  local home=$1-cargo
  git clone -q "$PWD" "$1"
  # Sources are unpacked into another folder; what is downloaded, and the programs, are shared.
  mkdir -p "$home/registry"
  local shared
  for shared in bin registry/cache registry/index config.toml; do
    if [ -e "$cargo_home/$shared" ]; then ln -s "$cargo_home/$shared" "$home/$shared"; fi
  done
  say "making packages in $1 (some minutes)"
  env -u CARGO_TARGET_DIR CARGO_HOME="$home" "$1/scripts/deb.sh" >"$1.log" 2>&1 || { tail -n 50 "$1.log" >&2; die "$1 could not be made"; }
}

make_packages "$folder/one"
# Another time of the clock and of the files, too.
make_packages "$folder/a/deeper/folder/two"
one=$folder/one/target/deb two=$folder/a/deeper/folder/two/target/deb
(cd "$one" && sha256sum ./*.deb) | tee "$folder/sums"
[ -s "$folder/sums" ] || die "no packages were made"
(cd "$two" && sha256sum --quiet -c "$folder/sums") || die "the second ones are others"
for package in "$one"/*.deb; do
  dpkg-deb -x "$package" "$folder/files"
done
! grep -rlF -e "$folder" -e "$cargo_home" "$folder/files" || die "these name a folder of this machine"
say "passed: the same bytes from two folders"
