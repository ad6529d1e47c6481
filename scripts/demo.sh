#!/usr/bin/env bash
# Shows all of fhir_bulk in one run: installs missing packages, builds the extension, loads a sample of FHIR resources into a
# private cluster, dumps it, checks that the dump equals the sample, and prints a report. A second run reuses the cluster and
# the sample. `scripts/stop.sh` stops the cluster.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
umask 022              # the server reads the sample as another user
export LC_ALL=C.UTF-8  # sorting, decimal points and the width of characters

resources=50000
mixed_resources=5000
database=fhir
dir=$FHIR_BULK_DIR
sample=$dir/sample
dump=$dir/dump

bold='' dim='' plain='' width=100
if [ -t 1 ]; then
  bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
  read -r _ width < <(stty size 2>/dev/null </dev/tty || echo 0 100)
  if [ "$width" -lt 40 ]; then width=100; fi
fi

# --- time and numbers: microseconds and bytes in, text out

now() { echo "${EPOCHREALTIME/./}"; }
seconds() { printf '%d.%02d s' $(($1 / 1000000)) $(($1 % 1000000 / 10000)); }
milliseconds() { printf '%s ms' "$(count $(($1 / 1000)))"; }
size() {
  if [ "$1" -ge 1000000 ]; then printf '%d.%d MB' $(($1 / 1000000)) $(($1 % 1000000 / 100000))
  else printf '%d kB' $(($1 / 1000))
  fi
}
count() { sed ':a;s/^\([0-9]*[0-9]\)\([0-9]\{3\}\)/\1,\2/;ta' <<<"$1"; }
# BYTES or RESOURCES, and MICROSECONDS (of which there is always at least one)
megabytes_per_second() { printf '%d MB/s' $(($1 / ($2 + 1))); }
resources_per_second() { printf '%s/s' "$(count $(($1 * 1000000 / ($2 + 1))))"; }

# --- steps

steps=()
step_times=()
step='' step_start=0

begin() {
  step=$1 step_start=$(now)
  printf '\n%s%d. %s%s\n' "$bold" $((${#steps[@]} + 1)) "$step" "$plain"
}

end() {
  steps+=("$step")
  step_times+=($(($(now) - step_start)))
  printf '%s   %s%s\n' "$dim" "$(seconds "${step_times[-1]}")" "$plain"
  step=''
}

note() { printf '   %s\n' "$*"; }
fail() { printf '   %s\n' "$*" >&2; exit 1; }

on_exit() {
  local status=$?
  if [ "$status" != 0 ]; then
    printf '\ndemo: failed%s\n' "${step:+ in step $((${#steps[@]} + 1)), $step}" >&2
    if [ -d "$dir/log" ]; then printf 'demo: the log of the server is %s\n' "$dir/log/server.log" >&2; fi
  fi
}
trap on_exit EXIT

# --- SQL

sql() { "$PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" "$@"; }

# Runs a statement with its output in FILE. Sets $took to the time that psql measured.
timed_sql() { # FILE STATEMENT
  local answer
  answer=$(sql -o "$1" -c '\timing on' -c "$2")
  answer=${answer#*Time: }
  answer=${answer%% *} # milliseconds with three digits after the point
  took=$((10#${answer/./}))
}

# Prints one text column unchanged: COPY's text format would double backslashes, and psql would keep its own output in
# memory.
copy_lines() { printf "COPY (%s) TO STDOUT WITH (FORMAT csv, QUOTE e'\\\\x01', DELIMITER e'\\\\x02')" "$1"; }

# --- what the steps do

build() {
  scripts/install.sh | indent
  note "building the proxy and the generator of sample data"
  local quiet=--quiet
  if [ -t 2 ]; then quiet=; fi
  cargo build --release -p fhir_bulk_proxy $quiet
  cargo build --release -p fhir_bulk_sample --bin sample --bin compare $quiet
}

indent() { sed -u 's/^/   /'; }

tool() { "${CARGO_TARGET_DIR:-target}/release/$1" "${@:2}"; }

make_database() {
  # Drops an earlier demo's database, and ends connections to it.
  sql -d postgres -c "SET client_min_messages = warning" -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" \
    -c "CREATE DATABASE $database"
  sql -c "CREATE EXTENSION fhir_bulk"
  # COPY knows the formats in every session from its start.
  sql -c "ALTER DATABASE $database SET session_preload_libraries = 'fhir_bulk'"
  note "database $database with $(sql -c "SELECT extname || ' ' || extversion FROM pg_extension WHERE extname = 'fhir_bulk'")"
}

declare -a types=()
declare -A lines=() bytes=() mixed=() load_time=() dump_time=() dump_bytes=()

make_sample() {
  rm -rf "$sample"
  mkdir -p "$sample"
  local type n size _
  # 50,000 resources, one file per type, and 5,000 others in one file of mixed types.
  while read -r type n size _; do
    note "$(printf '%-20s %8s resources %10s' "$type" "$(count "$n")" "$(size "$size")")"
    lines[$type]=$n bytes[$type]=$size
    if [ "$type" != mixed ]; then types+=("$type"); fi
  done < <(tool sample --out "$sample" --resources "$resources" --seed 1 &&
    tool sample --single "$sample/all.ndjson.gz" --resources "$mixed_resources" --seed 2)
  [ -n "${lines[mixed]:-}" ] || fail "the sample is incomplete"
}

load_types() {
  local type answer
  for type in "${types[@]}"; do
    timed_sql "$dir/answer" "SELECT bulk_load('file://$sample/$type.ndjson.gz', '$type', fhir => true)"
    load_time[$type]=$took
    answer=$(<"$dir/answer")
    [ "$answer" = "{\"total\": ${lines[$type]}}" ] || fail "$type: expected {\"total\": ${lines[$type]}}, got $answer"
    note "$(printf '%-20s %s' "$type" "$answer")"
  done
}

# Without a type argument the file may have mixed types: the answer counts each.
load_mixed() {
  local type n total=0
  timed_sql "$dir/answer" "SELECT bulk_load('file://$sample/all.ndjson.gz', fhir => true)"
  load_time[mixed]=$took
  fold -s -w $((width - 3)) "$dir/answer" | indent
  while IFS=' ' read -r type n; do
    mixed[$type]=$n
    total=$((total + n))
  done < <(tr -d '{}",' <"$dir/answer" | sed 's/: / /g' | xargs -n 2)
  [ "$total" = "${lines[mixed]}" ] || fail "expected ${lines[mixed]} resources, got $total"
}

dump_types() {
  rm -rf "$dump"
  mkdir -p "$dump"
  local type
  for type in "${types[@]}"; do
    timed_sql "$dump/$type.ndjson" "$(copy_lines "SELECT bulk_dump('$type', fhir => true)")"
    dump_time[$type]=$took
    dump_bytes[$type]=$(stat -c %s "$dump/$type.ndjson")
    note "$(printf '%-20s %10s' "$type" "$(size "${dump_bytes[$type]}")")"
  done
}

# The chunks, which a proxy passes on, are the same bytes.
dump_chunks() {
  local n bytes sum zipped
  timed_sql "$dir/answer" "SELECT count(*), sum(length(c)), md5(string_agg(c, '')) \
    FROM (SELECT bulk_dump_chunks('Observation', fhir => true) AS c) AS chunks"
  IFS='|' read -r n bytes sum <"$dir/answer"
  [ "$sum" = "$(md5sum <"$dump/Observation.ndjson" | cut -d' ' -f1)" ] ||
    fail "bulk_dump_chunks('Observation') differs from bulk_dump('Observation')"
  note "Observation: $n chunks, $(size "$bytes"), the same bytes as the rows"
  zipped=$(sql -c "SELECT sum(length(c)) \
    FROM (SELECT bulk_dump_chunks('Observation', fhir => true, gzip => true) AS c) AS chunks")
  note "Observation with gzip: $(size "$zipped"), $((zipped * 100 / bytes)) %"
}

random_password() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# Creates a role with the rights of a client that reads, writes and exports, and the proxy's own user, who may switch to it.
make_roles() {
  local own_password
  password=$(random_password) own_password=$(random_password)
  sql -c "SET client_min_messages = warning" -c "DROP ROLE IF EXISTS proxy, client" \
    -c "CREATE ROLE client LOGIN PASSWORD '$password'" -c "GRANT ALL ON SCHEMA public TO client" \
    -c "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO client" \
    -c "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO client" \
    -c "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO client" -c "GRANT pg_read_server_files TO client" \
    -c "CREATE ROLE proxy LOGIN NOINHERIT PASSWORD '$own_password'" -c "GRANT client TO proxy" \
    -c "GRANT EXECUTE ON FUNCTION bulk_export_file(text) TO proxy"
  (umask 077 && printf '%s\n' "$own_password" >"$dir/proxy.password")
}

serve() {
  make_roles
  scripts/proxy.sh start | indent
  printf 'export FHIR_USER=client:%s\n' "$password" >>"$dir/http.sh"
  . "$dir/http.sh"
  local start answer
  start=$(now)
  http -o "$dir/answer" "$FHIR_URL/Observation/\$dump?fhir=true"
  http_time=$(($(now) - start))
  cmp -s "$dir/answer" "$dump/Observation.ndjson" || fail "the dump over HTTP differs from the one of psql"
  note "Observation: $(size "$(stat -c %s "$dir/answer")") over HTTP in $(milliseconds "$http_time"), the same bytes as psql's"
  answer=$(http -H 'Content-Type: application/gzip' --data-binary "@$sample/Patient.ndjson.gz" "$FHIR_URL/fhir/Patient/\$load")
  [ "$answer" = "{\"total\": ${lines[Patient]}}" ] || fail "Patient: expected {\"total\": ${lines[Patient]}}, got $answer"
  note "Patient: $answer, from the body of a request"
}

http() { curl -sS --fail-with-body -u "$FHIR_USER" "$@"; }

check() { tool compare "$sample" "$dump" | indent; }

# --- the report

sum() { local IFS=+; echo $(($*)); }

report() {
  local i type n loaded loaded_bytes loading dumped_bytes dumping total_time
  printf '\n%s%s%s\n' "$bold" "fhir_bulk: what this run did" "$plain"
  for i in "${!steps[@]}"; do printf '  %-42s %12s\n' "${steps[i]}" "$(seconds "${step_times[i]}")"; done
  total_time=$(sum "${step_times[@]}")
  printf '  %-42s %12s\n\n' "in all" "$(seconds "$total_time")"

  printf '%s  %-20s %10s %12s %10s %12s %10s%s\n' "$bold" type resources loaded in dumped in "$plain"
  for type in "${types[@]}" mixed; do
    n=${lines[$type]}
    if [ "$type" = mixed ]; then
      printf '  %-20s %10s %12s %10s\n' "all types mixed" "$(count "$n")" "$(size "${bytes[$type]}")" \
        "$(milliseconds "${load_time[$type]}")"
    else
      printf '  %-20s %10s %12s %10s %12s %10s\n' "$type" "$(count "$n")" "$(size "${bytes[$type]}")" \
        "$(milliseconds "${load_time[$type]}")" "$(size "${dump_bytes[$type]}")" "$(milliseconds "${dump_time[$type]}")"
    fi
  done

  loaded=$(sum "${lines[@]}") loaded_bytes=$(sum "${bytes[@]}") loading=$(sum "${load_time[@]}")
  dumped_bytes=$(sum "${dump_bytes[@]}") dumping=$(sum "${dump_time[@]}")
  printf '\n  loaded %s resources, %s in %s: %s, %s\n' "$(count "$loaded")" "$(size "$loaded_bytes")" \
    "$(seconds "$loading")" "$(resources_per_second "$loaded" "$loading")" \
    "$(megabytes_per_second "$loaded_bytes" "$loading")"
  printf '  dumped %s resources, %s in %s: %s, %s\n' "$(count "$loaded")" "$(size "$dumped_bytes")" \
    "$(seconds "$dumping")" "$(resources_per_second "$loaded" "$dumping")" \
    "$(megabytes_per_second "$dumped_bytes" "$dumping")"
  printf '  what came out equals what went in\n'

  printf '\n%sThree lines of the dump%s\n' "$bold" "$plain"
  for type in Patient Observation Group; do
    IFS= read -r line <"$dump/$type.ndjson"
    printf '  %s\n' "${line:0:$((width - 3))}"
  done

  printf '\n%sTry it%s\n' "$bold" "$plain"
  printf "  psql 'host=%s/socket port=%s user=postgres passfile=%s/pgpass dbname=%s'\n" "$dir" "$PGPORT" "$dir" "$database"
  printf "  SELECT bulk_dump('Patient', fhir => true) LIMIT 3;\n"
  printf "  SELECT bulk_load('file://%s/Patient.ndjson.gz', 'Patient', fhir => true);\n" "$sample"
  printf "  \\\\copy patient from '%s/Patient.ndjson.gz' (format fhir)\n" "$sample"
  printf "  \\\\copy patient to 'patients.ndjson.gz' (format fhir, gzip)\n"

  printf '\n%sOver HTTP%s\n' "$bold" "$plain"
  printf "  curl -u %s '%s/Patient/\$dump?fhir=true'\n" "$FHIR_USER" "$FHIR_URL"
  printf "  curl -u %s '%s/fhir/Patient/\$load' -H 'Content-Type: application/gzip' --data-binary @%s/Patient.ndjson.gz\n" \
    "$FHIR_USER" "$FHIR_URL" "$sample"
  printf "  curl -u %s '%s/\$dump-sql' -H 'Content-Type: text/yaml' -d 'query: select count(*) from patient'\n" \
    "$FHIR_USER" "$FHIR_URL"
  printf '  in a browser, as role %s with password %s: %s/ui\n' "${FHIR_USER%%:*}" "${FHIR_USER#*:}" "$FHIR_URL"

  printf '\n%sFiles that stay on this machine%s\n' "$bold" "$plain"
  printf '  %s (%s): the cluster, the sample and the dump\n' "$dir" "$(du -sh "$dir" | cut -f1)"
  printf '  the extension in %s and %s\n' "$("$PG_BIN/pg_config" --sharedir)/extension" "$("$PG_BIN/pg_config" --pkglibdir)"
  if [ -s target/installed-by-setup ]; then
    printf '  installed by the setup: %s\n' "$(sort -u target/installed-by-setup | paste -sd, | sed 's/,/, /g')"
  else
    printf '  no packages: everything needed was installed before\n'
  fi
  printf '\n  make stop         stops the cluster and the proxy\n  make clean-demo   stops it and deletes %s\n' "$dir"
}

# --- the demo

begin "Set up"
scripts/setup.sh | indent
end

begin "Build and install the extension"
build
end

begin "Start a private cluster"
scripts/cluster.sh start | indent
. "$dir/env.sh"
end

begin "Create the database and the extension"
make_database
end

begin "Generate a sample of FHIR R4 resources"
make_sample
end

begin "Load it, type by type"
load_types
end

begin "Load a file of mixed types"
load_mixed
end

begin "Dump it through psql"
dump_types
end

begin "Dump the same in chunks"
dump_chunks
end

begin "Compare what came out with what went in"
check
end

begin "Serve it over HTTP"
serve
end

report
