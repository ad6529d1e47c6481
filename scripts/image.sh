#!/usr/bin/env bash
# Builds an OCI image of Debian 13's PostgreSQL 17 with the packages of scripts/deb.sh, in target/image/fhir_bulk.tar, by buildah
# and debootstrap, as root; packaging/image says what is in it. With --test it is run: the extension loads and dumps, the
# proxy answers, and what was loaded is there after a restart.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'image: %s\n' "$*"; }
die() { printf 'image: %s\n' "$*" >&2; exit 1; }

release=trixie major=17
target=$(realpath -ms "${CARGO_TARGET_DIR:-target}")
folder=$target/image
name=localhost/fhir_bulk:$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)-pg$major
container=

[ "$(id -u)" = 0 ] || die "a new Debian in a folder is made by root"
for program in debootstrap buildah; do
  command -v "$program" >/dev/null || die "needs $program (apt-get install debootstrap buildah)"
done
# Without namespaces and overlays, so that it runs in containers too.
tool=(buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs)
buildah() { command "${tool[@]}" "$@"; }

make_base() {
  if buildah inspect --type image "localhost/debian:$release" >/dev/null 2>&1; then return; fi
  local from
  scripts/debian.sh "$release" "$target/debian/$release"
  from=$(buildah from scratch)
  buildah add -q "$from" "$target/debian/$release" / >/dev/null
  buildah commit -q "$from" "localhost/debian:$release" >/dev/null
  buildah rm "$from" >/dev/null
}

build() {
  local context=$folder/context
  rm -rf "$context" "$folder/fhir_bulk.tar"
  mkdir -p "$context"
  cp "$target/deb/postgresql-$major-fhir-bulk_"*.deb "$target/deb/fhir-bulk-proxy_"*.deb packaging/image/* "$context/" ||
    die "there are no packages for PostgreSQL $major: make setup PG_MAJOR=$major, then make deb"
  buildah build -q --isolation chroot --timestamp "${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" \
    --build-arg "BASE=localhost/debian:$release" --build-arg "PG_MAJOR=$major" --tag "$name" "$context" >/dev/null
  rm -rf "$context"
  buildah push -q "$name" "oci-archive:$folder/fhir_bulk.tar:$name"
  say "$name is in $folder/fhir_bulk.tar ($(du -h "$folder/fhir_bulk.tar" | cut -f1))"
}

# buildah may lose what a short command writes: only its status counts.
in_image() { buildah run --isolation chroot "$container" -- "$@" </dev/null; }
# By the image's own psql, without buildah.
sql() {
  chroot --userspec=postgres:postgres "$root" "/usr/lib/postgresql/$major/bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 \
    -h /var/run/postgresql -p "$port" -d fhir -c "$1"
}
stop() { in_image pg_ctl stop -s -w -m "$1" 2>/dev/null || true; }

clean() {
  if [ -n "${proxy:-}" ]; then kill "$proxy" 2>/dev/null || true; fi
  if [ -n "$container" ]; then stop immediate; buildah rm "$container" >/dev/null; fi
}

start() { # ARGUMENT...
  "${tool[@]}" run --isolation chroot "$@" "$container" -- fhir-bulk-start postgres -c "port=$port" \
    -c listen_addresses=127.0.0.1 >>"$folder/server.log" 2>&1 </dev/null &
  local server=$!
  for _ in {1..300}; do
    if sql 'SELECT 1' >/dev/null 2>&1; then return; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
  done
  cat "$folder/server.log" >&2
  die "the image's server does not answer"
}

try() {
  local http
  port=$(scripts/free-port.sh) http=$(scripts/free-port.sh)
  container=$(buildah from "$name")
  root=$(buildah mount "$container")
  : >"$folder/server.log"
  ! in_image sh -c 'fhir-bulk-start postgres >/tmp/told 2>&1' >/dev/null 2>&1 || die "a server starts without a password"
  grep -q POSTGRES_PASSWORD_FILE "$root/tmp/told" || die "without a password it says: $(cat "$root/tmp/told")"
  start --env POSTGRES_PASSWORD='of the test'
  printf '{"resourceType":"Patient","id":"a"}\n' >"$root/tmp/Patient.ndjson"
  [ "$(sql "SELECT bulk_load('file:///tmp/Patient.ndjson', 'Patient', fhir => true)")" = '{"total": 1}' ]
  sql "CREATE ROLE reader LOGIN PASSWORD 'of the test'; GRANT SELECT ON patient TO reader"
  say "the image's $(sql 'SHOW server_version') loads"
  stop fast
  start
  sql "SELECT bulk_dump('Patient', fhir => true)" | grep -q '"id":"a"'
  say "and has it after a restart"
  "${tool[@]}" run --isolation chroot "$container" -- fhir-bulk-start fhir_bulk_proxy --listen "127.0.0.1:$http" \
    --database "host=127.0.0.1 port=$port dbname=fhir" >"$folder/proxy.log" 2>&1 </dev/null &
  proxy=$!
  for _ in {1..100}; do
    if grep -q 'listening at' "$folder/proxy.log"; then break; fi
    kill -0 "$proxy" 2>/dev/null || break
    sleep 0.1
  done
  curl -sf -u 'reader:of the test' "http://127.0.0.1:$http/Patient/\$dump?fhir=true" | grep -q '"id":"a"' ||
    { cat "$folder/proxy.log" >&2; die "the image's proxy does not answer"; }
  say "the image's proxy answers"
}

mkdir -p "$folder"
make_base
build
if [ "${1:-}" = --test ]; then
  trap clean EXIT
  try
  say "passed"
fi
