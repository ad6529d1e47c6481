#!/usr/bin/env bash
# Tests the packages of scripts/deb.sh as a user installs them: into a folder with a new Debian that has neither compiler nor
# Rust, by apt-get. There the extension loads and dumps, the proxy answers, and a purge leaves nothing but data. Then the unit
# of the proxy is judged by systemd-analyze. Runs as root; the folder is target/debian.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'test-deb: %s\n' "$*"; }
die() { printf 'test-deb: %s\n' "$*" >&2; exit 1; }

target=$(realpath -ms "${CARGO_TARGET_DIR:-target}")
packages=$target/deb
base=$target/debian/base
root=$target/debian/root

[ "$(id -u)" = 0 ] || die "a new Debian in a folder is made by root"
for program in debootstrap systemd-analyze; do
  command -v "$program" >/dev/null || die "needs $program (apt-get install debootstrap systemd)"
done

# The system's own mirror and release.
make_base() {
  if [ -e "$base" ]; then return; fi
  local mirror codename
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list.d/*.sources \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
  say "making a new Debian $codename in $base"
  rm -rf "$base.new"
  mkdir -p "${base%/*}"
  debootstrap --variant=minbase --include=ca-certificates "$codename" "$base.new" ${mirror:+"$mirror"} >"$base.log" ||
    { tail "$base.log" >&2; die "debootstrap failed"; }
  mv "$base.new" "$base"
}

in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
as_postgres() { in_root runuser -u postgres -- "$@"; }
sql() { as_postgres psql -X -q -A -t -v ON_ERROR_STOP=1 -d fhir -c "$1"; }

clean() {
  if [ -n "${proxy:-}" ]; then kill "$proxy" 2>/dev/null || true; fi
  if [ -x "$root/usr/bin/pg_ctlcluster" ]; then in_root pg_ctlcluster "$PG_FIRST" main stop -m immediate 2>/dev/null || true; fi
  umount -l "$root/proc" "$root/dev" 2>/dev/null || true
}

make_root() {
  clean
  rm -rf "$root"
  cp -a "$base" "$root"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  # What apt needs here to reach its mirror.
  if [ -d /etc/apt/apt.conf.d ]; then cp -n /etc/apt/apt.conf.d/* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true; fi
  # No service starts in a folder: what would start them says no.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  mount -t proc proc "$root/proc"
  mount --bind /dev "$root/dev"
  mkdir "$root/packages"
  cp "$packages"/*.deb "$root/packages/"
  ! in_root sh -c 'command -v cc || command -v cargo || command -v clang' || die "the new Debian has a compiler"
}

install_packages() {
  in_root apt-get -qq update
  in_root sh -c "apt-get -qq install -y --no-install-recommends /packages/postgresql-$PG_FIRST-fhir-bulk_*.deb \
    /packages/fhir-bulk-proxy_*.deb curl" >"$root.log" 2>&1 || { tail -n 30 "$root.log" >&2; die "the installation failed"; }
  in_root ls -l /etc/fhir-bulk-proxy/config.yaml /usr/bin/fhir_bulk_proxy
  in_root getent passwd fhir-bulk-proxy
}

use_extension() {
  in_root pg_ctlcluster "$PG_FIRST" main start
  as_postgres createdb -T template0 -E UTF8 fhir
  sql 'CREATE EXTENSION fhir_bulk'
  in_root sh -c 'umask 022; echo "{\"resourceType\":\"Patient\",\"id\":\"a\",\"active\":true}" >/tmp/Patient.ndjson'
  [ "$(sql "SELECT bulk_load('file:///tmp/Patient.ndjson', 'Patient', fhir => true)")" = '{"total": 1}' ]
  sql "SELECT bulk_dump('Patient', fhir => true)" | grep -q '"id":"a"'
  sql "CREATE ROLE reader LOGIN PASSWORD 'of the test'; GRANT SELECT ON patient TO reader"
  say "the extension of the package loads and dumps"
}

# As the unit runs it, without systemd: with the user and the configuration of the package.
use_proxy() {
  chroot --userspec=fhir-bulk-proxy:fhir-bulk-proxy "$root" /usr/bin/fhir_bulk_proxy \
    --config /etc/fhir-bulk-proxy/config.yaml >"$root.proxy.log" 2>&1 &
  proxy=$!
  for _ in {1..100}; do
    if grep -q 'listening at' "$root.proxy.log"; then break; fi
    kill -0 "$proxy" 2>/dev/null || break
    sleep 0.1
  done
  in_root curl -sf -u 'reader:of the test' 'http://127.0.0.1:8080/Patient/$dump?fhir=true' | grep -q '"id":"a"' ||
    { cat "$root.proxy.log" >&2; die "the proxy does not answer"; }
  kill "$proxy"
  wait "$proxy" || true
  proxy=
  say "the proxy of the package answers, as $(in_root getent passwd fhir-bulk-proxy | cut -d: -f1)"
}

purge() {
  local left
  in_root apt-get -qq purge -y fhir-bulk-proxy "postgresql-$PG_FIRST-fhir-bulk" >>"$root.log" 2>&1
  left=$(in_root sh -c 'find / -xdev \( -name "*fhir*bulk*" -o -name "*fhir-bulk*" \) -not -path "/packages/*" -not -path "/proc/*" \
    -not -path "/var/log/*" -not -path "/var/cache/*"')
  [ -z "$left" ] || die "a purge leaves: $left"
  ! in_root getent passwd fhir-bulk-proxy || die "a purge leaves the user"
  # What was loaded is a table of PostgreSQL's, and stays.
  [ "$(sql 'SELECT count(*) FROM patient')" = 1 ]
  say "a purge leaves the data, and nothing else"
}

# systemd-analyze looks for the program that a unit names.
judge_unit() {
  local unit score
  mkdir -p "$root/unit"
  dpkg-deb -x "$packages"/fhir-bulk-proxy_*.deb "$root/unit"
  unit=$(find "$root/unit" -name fhir-bulk-proxy.service)
  sed "s#ExecStart=/usr/bin/#ExecStart=$root/unit/usr/bin/#" "$unit" >"$root/fhir-bulk-proxy.service"
  systemd-analyze verify --man=no "$root/fhir-bulk-proxy.service"
  score=$(systemd-analyze security --offline=yes --no-pager "$unit" | sed -n 's/.*Overall exposure level[^:]*: \([0-9.]*\).*/\1/p')
  awk -v score="${score:?}" 'BEGIN { exit !(score <= 2.0) }' || die "the unit's exposure is $score, more than 2.0"
  say "the unit's exposure is $score"
}

trap clean EXIT
make_base
make_root
install_packages
use_extension
use_proxy
purge
judge_unit
say "passed"
