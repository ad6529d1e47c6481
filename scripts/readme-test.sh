#!/usr/bin/env bash
# Runs every command of the README: each sh block in a shell, each sql block in psql against the demo's database.
# The README's /srv/fhir is the demo's sample here, and its `loader` a role of this test.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

folder=${FHIR_BULK_DIR:?the demo folder}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Block after block into files 001.sh, 002.sql, …, in the README's order.
awk -v dir="$work" '
  /^```(sh|sql)$/ { count++; file = sprintf("%s/%03d.%s", dir, count, substr($0, 4)); next }
  /^```/          { file = ""; next }
  file            { print > file }
' README.md

run_sql() {
  sed "s#file:///srv/fhir/#file://$folder/sample/#g" "$1" >"$1.run"
  # The extension is there from the demo; the README shows how it came.
  sed -i 's/^CREATE EXTENSION fhir_bulk;/CREATE EXTENSION IF NOT EXISTS fhir_bulk;/' "$1.run"
  psql -X -q -v ON_ERROR_STOP=1 -d fhir -f "$1.run" >"$1.out" 2>&1
}

count=0
for block in "$work"/*.sh "$work"/*.sql; do
  count=$((count + 1))
  case $block in
    # The tests are what runs this.
    *.sh) grep -v '^make test$' "$block" >"$block.run"; bash -euo pipefail "$block.run" >"$block.out" 2>&1 ;;
    *.sql)
      if [ ! -e "$work/connected" ]; then
        # The demo's own snippet says where its server is.
        . "$folder/env.sh"
        psql -X -q -d fhir -c "DROP ROLE IF EXISTS loader" -c "CREATE ROLE loader" 2>/dev/null
        touch "$work/connected"
      fi
      run_sql "$block"
      ;;
  esac || { printf 'README block failed:\n'; cat "$block" "$block.out"; exit 1; }
  printf '.'
done
psql -X -q -d fhir -c "DROP OWNED BY loader" -c "DROP ROLE loader"
printf '\nREADME: %d passed, 0 failed\n' "$count"
