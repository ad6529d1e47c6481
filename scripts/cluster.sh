#!/usr/bin/env bash
# A private PostgreSQL cluster in a folder of its own: own data, own socket, a free port on 127.0.0.1, passwords
# by scram-sha-256. It touches no other cluster. Every command may be repeated.
#
#   cluster.sh start  [DIR]   create it if it doesn't exist, start it if it doesn't run
#   cluster.sh stop   [DIR]
#   cluster.sh status [DIR]   exit code 0: runs, 3: doesn't
#   cluster.sh remove [DIR]   stop it and delete the folder with everything in it
#
# DIR defaults to $FHIR_BULK_DIR (scripts/env.sh). The folder has data/ socket/ log/ of the server, and exports/, where it
# writes the files of exports; `pgpass`, the superuser's password, readable by the owner only; `env.sh`, to be sourced before
# psql or any libpq program.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
umask 022

usage() { sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p}' "$0" >&2; exit 2; }
die() { printf 'cluster: %s\n' "$*" >&2; exit 1; }

# PostgreSQL refuses to run as root; then the Debian package's user runs it.
if [ "$(id -u)" = 0 ]; then server_user=postgres; else server_user=$(id -un); fi
as_server() {
  if [ "$(id -u)" = 0 ]; then runuser -u "$server_user" -- "$@"; else "$@"; fi
}
pg() { (cd / && as_server "$PG_BIN/$1" "${@:2}"); }

# Prints the port of the last start.
port() { as_server sed -n 's/^port = //p' "$dir/data/fhir_bulk.conf" 2>/dev/null || true; }

is_running() { [ -d "$dir/data" ] && pg pg_ctl status -D "$dir/data" >/dev/null 2>&1; }

# --- the folder

make_folder() {
  [[ $dir =~ ^[A-Za-z0-9/._+@=-]+$ ]] || die "$dir: only letters, digits and . _ + @ = - in the folder's path, please"
  # A socket's path may have 107 bytes: the folder's, and /socket/.s.PGSQL.12345.
  [ ${#dir} -le 83 ] || die "$dir: too long for a socket in it; set FHIR_BULK_DIR to a shorter path"
  if [ -e "$dir" ] || [ -L "$dir" ]; then
    check_folder
  else
    mkdir -p "${dir%/*}"
    (cd / && as_server test -x "${dir%/*}/") ||
      die "user $server_user can't enter ${dir%/*} (a home directory with mode 0700?): set FHIR_BULK_DIR to another place"
    mkdir "$dir" # fails if another user has created it, as any user can in /var/tmp
    : >"$dir/.fhir_bulk"
  fi
}

# Another user's folder is never used or deleted.
check_folder() {
  [ -d "$dir" ] && [ ! -L "$dir" ] && [ -O "$dir" ] || die "$dir is not a folder of yours; set FHIR_BULK_DIR to another place"
  [ -e "$dir/.fhir_bulk" ] || die "$dir was not made by this script; set FHIR_BULK_DIR to another place"
}

# --- making and starting

make_cluster() {
  if [ -d "$dir/data" ]; then
    local version
    version=$(as_server cat "$dir/data/PG_VERSION")
    [ "$version" = "$PG_MAJOR" ] || die "$dir/data is of PostgreSQL $version: run '$0 remove $dir' to start again"
    return
  fi
  local password part
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  for part in socket log new; do
    rm -rf "${dir:?}/$part"
    mkdir "$dir/$part"
    if [ "$(id -u)" = 0 ]; then chown "$server_user:" "$dir/$part"; fi
  done
  chmod 700 "$dir/log" "$dir/new"
  # In new/ until it is complete, so that an interrupted initdb is done again.
  printf '%s\n' "$password" | as_server sh -c "umask 077 && cat >'$dir/new/password'"
  pg initdb -D "$dir/new/data" -U postgres --pwfile="$dir/new/password" --auth=scram-sha-256 \
    --encoding=UTF8 --locale=C.UTF-8 >/dev/null
  printf "include 'fhir_bulk.conf'\n" | as_server sh -c "cat >>'$dir/new/data/postgresql.conf'"
  (umask 077 && printf '%s:*:*:postgres:%s\n' "$dir/socket" "$password" 127.0.0.1 "$password" >"$dir/pgpass")
  mv "$dir/new/data" "$dir/data"
  rm -rf "${dir:?}/new"
}

write_settings() {
  as_server sh -c "cat >'$dir/data/fhir_bulk.conf'" <<CONF
# Written by scripts/cluster.sh at each start.
cluster_name = 'fhir_bulk'
listen_addresses = '127.0.0.1'
port = $1
unix_socket_directories = '$dir/socket'
shared_buffers = 256MB
fhir_bulk.export_location = 'file://$dir/exports'
CONF
}

# A folder of the server's user, where one is missing.
make_exports_folder() {
  if [ -d "$dir/exports" ]; then return; fi
  mkdir -m 700 "$dir/exports"
  if [ "$(id -u)" = 0 ]; then chown "$server_user:" "$dir/exports"; fi
}

start_cluster() {
  local last
  last=$(port)
  for _ in 1 2 3; do
    # The port of last time, if it is free.
    write_settings "$(scripts/free-port.sh "$last")"
    if pg pg_ctl start -D "$dir/data" -w -t 120 -l "$dir/log/server.log" </dev/null >/dev/null 2>&1; then
      return
    fi
    # Another process may have taken the port between the check and the start.
    as_server tail -n 20 "$dir/log/server.log" | grep -q 'could not bind IPv4 address' || break
    last=
  done
  as_server tail -n 20 "$dir/log/server.log" >&2 || true
  die "the server didn't start; its log: $dir/log/server.log"
}

write_environment() {
  cat >"$dir/env.sh" <<ENV
# For libpq programs: . $dir/env.sh && psql
unset PGHOSTADDR PGSERVICE PGPASSWORD
export PGHOST=$dir/socket
export PGPORT=$(port)
export PGUSER=postgres
export PGPASSFILE=$dir/pgpass
ENV
}

# --- the commands

start() {
  [ -x "$PG_BIN/initdb" ] || die "no PostgreSQL $PG_MAJOR in $PG_BIN: run scripts/setup.sh"
  make_folder
  make_cluster
  make_exports_folder
  is_running || start_cluster
  write_environment
  status
}

stop() {
  if [ -e "$dir" ]; then check_folder; scripts/proxy.sh stop "$dir"; fi
  if is_running; then pg pg_ctl stop -D "$dir/data" -m fast -w >/dev/null; fi
  echo "stopped: $dir"
}

status() {
  if [ -e "$dir" ]; then check_folder; fi
  is_running || { echo "not running: $dir"; return 3; }
  echo "running: $dir, port $(port)"
}

remove() {
  if [ ! -e "$dir" ]; then echo "not there: $dir"; return; fi
  stop >/dev/null
  rm -rf "${dir:?}"
  echo "removed: $dir"
}

command=${1:-}
dir=$(realpath -ms -- "${2:-$FHIR_BULK_DIR}")
case $command in
  start | stop | status | remove) "$command" ;;
  *) usage ;;
esac
