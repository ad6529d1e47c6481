#!/usr/bin/env bash
# The HTTP proxy in front of the demo's database, at a free port on 127.0.0.1. Every command may be repeated.
#
#   proxy.sh start [DIR]   start it, and stop an earlier one
#   proxy.sh stop  [DIR]
#
# DIR defaults to $FHIR_BULK_DIR (scripts/env.sh). `http.sh` in it has the proxy's address and process, and the path of its
# file of clients; `proxy.log` is its log.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

die() { printf 'proxy: %s\n' "$*" >&2; exit 1; }

# Prints the process of the last start, if it still runs.
running() {
  local pid
  pid=$(cat "$dir/proxy.pid" 2>/dev/null) || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -e "$dir/proxy.yaml" && echo "$pid"
}

stop() {
  local pid
  if pid=$(running); then
    kill "$pid"
    for _ in {1..100}; do running >/dev/null || break; sleep 0.1; done
  fi
  rm -f "$dir/proxy.pid" "$dir/http.sh"
}

start() {
  local program=${CARGO_TARGET_DIR:-target}/release/fhir_bulk_proxy address= port
  [ -x "$program" ] || die "no $program: cargo build --release -p fhir_bulk_proxy"
  stop
  . "$dir/env.sh"
  port=$(scripts/free-port.sh)
  cat >"$dir/proxy.yaml" <<CONF
# Written by scripts/proxy.sh at each start.
listen: 127.0.0.1:$port
public-url: http://127.0.0.1:$port
database: host=127.0.0.1 port=$PGPORT dbname=fhir user=proxy
database-password-file: $dir/proxy.password
metadata-role: client
clients-file: $dir/clients.yaml
ui: on
CONF
  if [ ! -e "$dir/clients.yaml" ]; then echo '[]' >"$dir/clients.yaml"; fi
  # It must be there before the loop below reads it, which may be sooner than the new process begins.
  : >"$dir/proxy.log"
  setsid "$program" --config "$dir/proxy.yaml" >"$dir/proxy.log" 2>&1 </dev/null &
  echo $! >"$dir/proxy.pid"
  for _ in {1..100}; do
    address=$(sed -n 's#.*listening at \(http://.*\)#\1#p' "$dir/proxy.log")
    if [ -n "$address" ]; then break; fi
    running >/dev/null || break
    sleep 0.1
  done
  [ -n "$address" ] || { cat "$dir/proxy.log" >&2; die "it didn't start"; }
  printf 'export FHIR_URL=%s FHIR_CLIENTS=%s FHIR_PROXY=%s\n' "$address" "$dir/clients.yaml" "$(cat "$dir/proxy.pid")" \
    >"$dir/http.sh"
  echo "running: $address"
}

command=${1:-}
dir=$(realpath -ms -- "${2:-$FHIR_BULK_DIR}")
case $command in
  start | stop) "$command" ;;
  *) sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p}' "$0" >&2; exit 2 ;;
esac
