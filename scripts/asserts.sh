#!/usr/bin/env bash
# Runs all tests from outside and inside on a PostgreSQL with assertions: it stops at errors in memory that a plain server
# ignores. Builds that server from Debian's source package in a folder of its own; the first time takes some minutes.
# Arguments go to `cargo test`, which then runs tests from outside only: scripts/asserts.sh --test jobs
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'asserts: %s\n' "$*"; }
die() { printf 'asserts: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Not below a home directory, which the server's user may not enter.
server=${FHIR_BULK_ASSERTS_DIR:-/var/tmp/fhir_bulk-asserts-$(id -u)-pg$PG_MAJOR}
needed=(bison dpkg-dev flex libicu-dev liblz4-dev libssl-dev libxml2-dev libzstd-dev make pkg-config zlib1g-dev)

# Sources come from the same archives as packages; the system's own lists stay unchanged.
fetch_source() {
  mkdir -p "$server/apt" "$server/lists/partial"
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    if [ -f "$file" ]; then sed -n 's/^deb /deb-src /p' "$file" >"$server/apt/$(basename "$file" .list)_src.list"; fi
  done
  for file in /etc/apt/sources.list.d/*.sources; do
    if [ -f "$file" ]; then sed 's/^Types:.*/Types: deb-src/' "$file" >"$server/apt/$(basename "$file")"; fi
  done
  local apt=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$server/apt"
    -o "Dir::State::lists=$server/lists" -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" update
  local version
  # The newest version that can be downloaded: an archive may list versions whose files are not there yet.
  for version in $(apt-cache "${apt[@]}" showsrc "postgresql-$PG_MAJOR" | sed -n 's/^Version: //p' | sort -rV); do
    rm -f "$server"/*.orig.tar.*
    if (cd "$server" && apt-get "${apt[@]}" source --download-only "postgresql-$PG_MAJOR=$version" 2>/dev/null); then
      return
    fi
  done
  die "no source package of postgresql-$PG_MAJOR could be downloaded"
}

build_server() {
  if [ -x "$server/pg/bin/postgres" ]; then return; fi
  say "installing what the build needs: ${needed[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${needed[@]}" >/dev/null
  mkdir -p "$server"
  fetch_source
  say "building PostgreSQL $PG_MAJOR with assertions in $server"
  rm -rf "$server/src" "$server/new"
  mkdir "$server/src"
  tar xf "$server"/*.orig.tar.* -C "$server/src" --strip-components=1
  (
    cd "$server/src"
    ./configure --prefix="$server/pg" --enable-cassert --enable-debug --with-lz4 --with-zstd --with-openssl --with-icu \
      --with-libxml --without-readline CFLAGS='-O1 -g'
    make -j"$(nproc)" -s world-bin
    make -s install-world-bin DESTDIR="$server/new"
  ) >"$server/build.log" 2>&1 || { tail -n 20 "$server/build.log" >&2; die "the build failed: $server/build.log"; }
  # Moved when it is complete, so that an interrupted build is done again.
  mv "$server/new$server/pg" "$server/pg"
  rm -rf "$server/new" "$server/src"
}

build_server
export PG_BIN=$server/pg/bin CARGO_TARGET_DIR=$PWD/target/asserts PGRX_HOME=$PWD/target/asserts/pgrx
mkdir -p "$CARGO_TARGET_DIR"
scripts/setup.sh
if [ $# = 0 ]; then scripts/test-in-server.sh; fi
scripts/install.sh
cargo test -p fhir_bulk_tests "$@"
