#!/usr/bin/env bash
# Upgrades a cluster by pg_upgrade from PostgreSQL 16 to 18, both with the extension installed (make install PG_MAJOR=…), and
# checks that the extension's own data came along: a job that waits, an export's files and their signed URLs, rejected lines.
# OLD and NEW name other versions.
set -euo pipefail
cd "$(dirname "$0")/.."

old=${OLD:-16} new=${NEW:-18}
say() { printf 'test-pg-upgrade: %s\n' "$*"; }
die() { printf 'test-pg-upgrade: %s\n' "$*" >&2; exit 1; }

programs() { (unset PG_BIN; PG_MAJOR=$1; . scripts/env.sh; echo "$PG_BIN"); }
old_bin=$(programs "$old") new_bin=$(programs "$new")
for bin in "$old_bin" "$new_bin"; do
  [ -f "$("$bin/pg_config" --sharedir)/extension/fhir_bulk.control" ] || die "the extension is not installed in $bin"
done

folder=$(mktemp -d /var/tmp/fhir_bulk-pg-upgrade.XXXXXX)
chmod 755 "$folder"
mkdir "$folder/work" "$folder/exports"
if [ "$(id -u)" = 0 ]; then chown -R postgres: "$folder"; fi
as_server() { # COMMAND...: PostgreSQL does not run as root
  if [ "$(id -u)" = 0 ]; then (cd "$folder/work" && runuser -u postgres -- "$@"); else (cd "$folder/work" && "$@"); fi
}
port=$((20000 + RANDOM % 12000))
start() { # BIN DATA [SETTING...]
  local settings
  settings=$(printf -- ' -c %s' "${@:3}" listen_addresses= "unix_socket_directories=$folder" "port=$port" fsync=off)
  as_server "$1/pg_ctl" start -w -s -D "$2" -l "$2.log" -o "$settings" </dev/null || { cat "$2.log" >&2; die "no server"; }
}
stop() { as_server "$1/pg_ctl" stop -w -s -m fast -D "$2"; }
sql() { as_server "$new_bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$folder" -p "$port" -U postgres -d fhir -c "$1"; }
clean() {
  local bin
  for bin in "$old_bin" "$new_bin"; do
    for data in "$folder/old" "$folder/new"; do as_server "$bin/pg_ctl" stop -s -m immediate -D "$data" 2>/dev/null || true; done
  done
  rm -rf "$folder"
}
trap clean EXIT
wait_for() { # STATEMENT ANSWER
  local answer
  for _ in {1..300}; do
    answer=$(sql "$1")
    if [ "$answer" = "$2" ]; then return; fi
    sleep 0.1
  done
  die "$1: $answer, not $2"
}
expect() { # WHAT FOUND EXPECTED
  [ "$2" = "$3" ] || die "$1: $2, not $3"
}

initdb=(-U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync)
as_server "$old_bin/initdb" "${initdb[@]}" -D "$folder/old" >/dev/null
# From 18 on checksums are the default, and both clusters must have them or not.
if [ "$new" -ge 18 ]; then initdb+=(--no-data-checksums); fi
as_server "$new_bin/initdb" "${initdb[@]}" -D "$folder/new" >/dev/null

start "$old_bin" "$folder/old"
as_server "$old_bin/createdb" -h "$folder" -p "$port" -U postgres fhir
sql "CREATE EXTENSION fhir_bulk"
sql "ALTER DATABASE fhir SET fhir_bulk.export_location = 'file://$folder/exports'"
as_server sh -c "printf '%s\n' '{\"resourceType\":\"Patient\",\"id\":\"a\"}' '{\"resourceType\":\"Patient\",\"id\":\"b\"}' bad >bad.ndjson
  printf '%s\n' '{\"resourceType\":\"Patient\",\"id\":\"c\"}' >more.ndjson"
sql "SELECT bulk_load('file://$folder/work/bad.ndjson', 'Patient', options => '{\"on_error\": \"skip\"}')" >/dev/null
sql "SELECT bulk_create_table('Observation')" >/dev/null
sql "INSERT INTO bulk_search_parameter VALUES ('urn:unit', '{\"resourceType\": \"SearchParameter\", \"url\": \"urn:unit\",
  \"code\": \"unit\", \"type\": \"string\", \"base\": [\"Observation\"], \"expression\": \"Observation.value.ofType(Quantity).unit\",
  \"name\": \"unit\", \"status\": \"active\", \"description\": \"unit\"}')"
export=$(sql "SELECT bulk_export('{\"_type\": \"Patient\"}')")
status="SELECT bulk_export_status('$export') ->> 'status'"
wait_for "$status" completed
url=$(sql "SELECT bulk_export_status('$export') #>> '{output,0,url}'")
secret=$(sql "SELECT md5(secret::text) FROM fhir_bulk_internal.bulk_secret")
stop "$old_bin" "$folder/old"
# Without processes for workers a job waits.
start "$old_bin" "$folder/old" max_worker_processes=0
import='{"id": "queued", "inputs": [{"resourceType": "Patient", "url": "file://'$folder'/work/more.ndjson"}]}'
sql "SELECT bulk_import('$import')" >/dev/null
expect "the job" "$(sql "SELECT status FROM bulk_jobs WHERE id = 'queued'")" waiting
stop "$old_bin" "$folder/old"

as_server "$new_bin/pg_upgrade" -b "$old_bin" -B "$new_bin" -d "$folder/old" -D "$folder/new" -U postgres \
  -s "$folder/work" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; rm -f "$folder.log"; die "pg_upgrade failed"; }
rm -f "$folder.log"

start "$new_bin" "$folder/new"
expect "the server" "$(sql "SELECT current_setting('server_version_num')::int / 10000")" "$new"
expect "the resources" "$(sql "SELECT string_agg(id, ',' ORDER BY id) FROM patient WHERE id <> 'c'")" a,b
expect "the secret" "$(sql "SELECT md5(secret::text) FROM fhir_bulk_internal.bulk_secret")" "$secret"
expect "rejected lines" "$(sql "SELECT line_number, sqlstate FROM bulk_load_reject")" '3|22P02'
expect "search parameters" "$(sql "SELECT url FROM bulk_search_parameter")" urn:unit
expect "the export" "$(sql "$status")" completed
expect "its file" "$(sql "SELECT sum(length(bytes)) > 20 FROM bulk_export_file('$url') bytes")" t
wait_for "SELECT bulk_import_status('queued') ->> 'status'" finished
expect "what the job loaded" "$(sql "SELECT string_agg(id, ',' ORDER BY id) FROM patient")" a,b,c
say "from PostgreSQL $old to $new: resources, the secret, rejected lines, search parameters, an export's file and a waiting job came along"
