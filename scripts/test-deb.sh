#!/usr/bin/env bash
# Tests the packages of scripts/deb.sh as a user installs them: into folders with a new Debian 12, which has PostgreSQL 15, and a
# new Debian 13, which has 17, without compiler or Rust, by apt-get. There the extension loads and dumps, the proxy answers, and
# a purge leaves nothing but data. Debian has no server of 16 and 18: apt-get has to refuse these packages and say what is
# missing; what is in them runs in the servers of scripts/server.sh. Then the unit of the proxy is judged by systemd-analyze.
# Runs as root; the folders are in target/debian. Arguments name releases: scripts/test-deb.sh trixie
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'test-deb: %s\n' "$*"; }
die() { printf 'test-deb: %s\n' "$*" >&2; exit 1; }

target=$(realpath -ms "${CARGO_TARGET_DIR:-target}")
packages=$target/deb
# Each release with the version of PostgreSQL that it has; those that neither has.
declare -A version_of=([bookworm]=15 [trixie]=17)
without_server=(16 18)
proxy=

[ "$(id -u)" = 0 ] || die "a new Debian in a folder is made by root"
for program in debootstrap systemd-analyze; do
  command -v "$program" >/dev/null || die "needs $program (apt-get install debootstrap systemd)"
done

package_of() { # MAJOR
  local found
  found=$(find "$packages" -name "postgresql-$1-fhir-bulk_*.deb" 2>/dev/null)
  [ -f "$found" ] || die "no package of PostgreSQL $1, or more than one, in $packages: make setup PG_MAJOR=$1, then make deb"
  echo "$found"
}

in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
as_postgres() { in_root runuser -u postgres -- "$@"; }
# In the release's own server, or in one whose socket is in $host.
sql() { as_postgres psql -X -q -A -t -v ON_ERROR_STOP=1 -h "${host:-/var/run/postgresql}" -d fhir -c "$1"; }

clean() {
  if [ -z "${root:-}" ]; then return; fi
  if [ -n "$proxy" ]; then kill "$proxy" 2>/dev/null || true; fi
  if [ -x "$root/usr/bin/pg_ctlcluster" ]; then in_root pg_ctlcluster "$major" main stop -m immediate 2>/dev/null || true; fi
  local other
  for other in "${without_server[@]}"; do
    if [ -e "$root/tmp/data-$other/postmaster.pid" ]; then stop_other "$other" -m immediate || true; fi
  done
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
  in_root sh -c "apt-get -qq install -y --no-install-recommends /packages/postgresql-$major-fhir-bulk_*.deb \
    /packages/fhir-bulk-proxy_*.deb curl" >"$root.log" 2>&1 || { tail -n 30 "$root.log" >&2; die "the installation failed"; }
  in_root ls -l /etc/fhir-bulk-proxy/config.yaml /usr/bin/fhir_bulk_proxy
  in_root getent passwd fhir-bulk-proxy
}

# A package without the server that it is for.
expect_refusal() { # MAJOR
  local told
  told=$(in_root sh -c "apt-get -q install -y --no-install-recommends /packages/postgresql-$1-fhir-bulk_*.deb" 2>&1) &&
    die "the package of PostgreSQL $1 was installed without its server"
  grep -q "postgresql-$1-fhir-bulk : Depends: postgresql-$1 but it is not" <<<"$told" || die "apt-get says: $told"
  say "without postgresql-$1 apt-get refuses its package, and says so"
}

load_and_dump() {
  sql 'CREATE EXTENSION fhir_bulk'
  [ "$(sql "SELECT bulk_load('file:///tmp/Patient.ndjson', 'Patient', fhir => true)")" = '{"total": 1}' ]
  sql "SELECT bulk_dump('Patient', fhir => true)" | grep -q '"id":"a"'
}

use_extension() {
  in_root pg_ctlcluster "$major" main start
  as_postgres createdb -T template0 -E UTF8 fhir
  in_root sh -c 'umask 022; echo "{\"resourceType\":\"Patient\",\"id\":\"a\",\"active\":true}" >/tmp/Patient.ndjson'
  load_and_dump
  sql "CREATE ROLE reader LOGIN PASSWORD 'of the test'; GRANT SELECT ON patient TO reader"
  say "the extension of the package loads and dumps in $(sql 'SHOW server_version')"
}

stop_other() { as_postgres "/opt/$1/server/pg/bin/pg_ctl" stop -s "${@:2}" -D "/tmp/data-$1"; } # MAJOR ARGUMENT...

# The files of a package whose server Debian does not have, put into a server of scripts/server.sh.
use_in_other_server() { # MAJOR
  local server=/opt/$1/server/pg files=/opt/files-$1 host=/tmp
  if [ ! -x "$FHIR_BULK_SERVERS/$1/server/pg/bin/postgres" ]; then
    say "the package of $1 is not run: its server is not in $FHIR_BULK_SERVERS (make setup PG_MAJOR=$1)"
    return
  fi
  cp -a "$FHIR_BULK_SERVERS/$1" "$root/opt/$1"
  # Other tests may have installed a library of their own there.
  find "$root/opt/$1" -name 'fhir_bulk*' -exec rm -rf {} +
  dpkg-deb -x "$(package_of "$1")" "$root$files"
  in_root sh -ec "cp $files/usr/lib/postgresql/$1/lib/* \"\$($server/bin/pg_config --pkglibdir)/\"
    cp $files/usr/share/postgresql/$1/extension/* \"\$($server/bin/pg_config --sharedir)/extension/\""
  as_postgres "$server/bin/initdb" -E UTF8 --locale=C.UTF-8 --auth=trust --no-sync -D "/tmp/data-$1" >/dev/null
  as_postgres "$server/bin/pg_ctl" start -w -s -D "/tmp/data-$1" -l "/tmp/log-$1" \
    -o "-c listen_addresses= -c unix_socket_directories=/tmp"
  as_postgres createdb -h /tmp fhir
  load_and_dump
  say "the files of the package load and dump in $(sql 'SHOW server_version')"
  stop_other "$1" -m fast -w
  # What a purge leaves is looked for later.
  rm -rf "${root:?}/opt/$1" "$root$files"
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
  in_root apt-get -qq purge -y fhir-bulk-proxy "postgresql-$major-fhir-bulk" >>"$root.log" 2>&1
  left=$(in_root sh -c 'find / -xdev \( -name "*fhir*bulk*" -o -name "*fhir-bulk*" \) -not -path "/packages/*" -not -path "/proc/*" \
    -not -path "/var/log/*" -not -path "/var/cache/*"')
  [ -z "$left" ] || die "a purge leaves: $left"
  ! in_root getent passwd fhir-bulk-proxy || die "a purge leaves the user"
  # What was loaded is a table of PostgreSQL's, and stays.
  [ "$(sql 'SELECT count(*) FROM patient')" = 1 ]
  say "a purge leaves the data, and nothing else"
  in_root pg_ctlcluster "$major" main stop
}

# The same files for each version, where its server looks for them; and no word of the folder where they were made.
compare_packages() {
  local major file folder=$target/debian/files one='' other
  for major in "$PG_FIRST" "${PG_OTHERS[@]}"; do
    file=$(package_of "$major")
    grep -q "postgresql-$major\\b" <<<"$(dpkg-deb -f "$file" Depends)" || die "$file does not depend on its server"
    other=$(dpkg-deb -c "$file" | awk '{ print $1, $6 }' |
      sed "s#postgresql/$major/#postgresql/N/#; s#postgresql-$major-#postgresql-N-#" | sort)
    grep -qxF -- '-rw-r--r-- ./usr/lib/postgresql/N/lib/fhir_bulk.so' <<<"$other" || die "$file has no library"
    [ "${one:=$other}" = "$other" ] || die "$file has other files than that of PostgreSQL $PG_FIRST: $(diff <(echo "$one") <(echo "$other"))"
  done
  for file in "$packages"/*.deb; do
    rm -rf "$folder"
    dpkg-deb -x "$file" "$folder"
    ! grep -rlF -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}" -e "${RUSTUP_HOME:-$HOME/.rustup}" "$folder" || die "$file names a folder of this machine"
  done
  rm -rf "$folder"
  say "the packages have the same files for each version, and no path of this machine"
}

# systemd-analyze looks for the program that a unit names.
judge_unit() {
  local unit score folder=$target/debian/unit
  rm -rf "$folder"
  dpkg-deb -x "$packages"/fhir-bulk-proxy_*.deb "$folder"
  unit=$(find "$folder" -name fhir-bulk-proxy.service)
  sed "s#ExecStart=/usr/bin/#ExecStart=$folder/usr/bin/#" "$unit" >"$folder/fhir-bulk-proxy.service"
  systemd-analyze verify --man=no "$folder/fhir-bulk-proxy.service"
  score=$(systemd-analyze security --offline=yes --no-pager "$unit" | sed -n 's/.*Overall exposure level[^:]*: \([0-9.]*\).*/\1/p')
  awk -v score="${score:?}" 'BEGIN { exit !(score <= 2.0) }' || die "the unit's exposure is $score, more than 2.0"
  rm -rf "$folder"
  say "the unit's exposure is $score"
}

trap clean EXIT
mkdir -p "$target/debian"
releases=("$@")
if [ $# = 0 ]; then releases=(bookworm trixie); fi
compare_packages
judge_unit
for release in "${releases[@]}"; do
  major=${version_of[$release]:-}
  [ -n "$major" ] || die "$release is none of ${!version_of[*]}"
  base=$target/debian/$release root=$target/debian/$release-root
  scripts/debian.sh "$release" "$base"
  make_root
  install_packages
  for other in "${without_server[@]}"; do expect_refusal "$other"; done
  use_extension
  for other in "${without_server[@]}"; do use_in_other_server "$other"; done
  use_proxy
  purge
  clean
  say "passed in a new Debian $release with PostgreSQL $major"
done
say "passed"
