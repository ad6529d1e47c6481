#!/usr/bin/env bash
# Runs every command of the README and of docs/, in order: each sh block in a shell, each sql block in psql on the demo's
# database. If a text block follows a block, it is the expected output. The README's /srv/fhir is the demo's sample here, its
# `loader` is a role of this test, its python3 is the one with the tests' packages, and the clients are those of the tests.
#
#   readme-test.sh [PAGE...]   only these pages, with a demo that runs already
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

folder=${FHIR_BULK_DIR:?the demo folder}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PATH=$PWD/target/venv/bin:$PATH:$PWD/target/venv-smart-fetch/bin PGTZ=UTC
# As if the reader had installed it there.
ln -s "$PWD/target/fhir-kit-client/node_modules" "$work/node_modules"
pages=("$@")
if [ $# = 0 ]; then pages=(README.md docs/*.md); fi

# Writes each block to a file 01001.sh, 01002.sql, …, and its expected output to 01002.sql.expected. The first two digits are
# the number of the document.
awk -v dir="$work" '
  FNR == 1        { document++; count = 0; file = "" }
  /^```(sh|sql)$/ { file = block = sprintf("%s/%02d%03d.%s", dir, document, ++count, substr($0, 4)); next }
  /^```text$/     { file = block ".expected"; next }
  /^```/          { file = ""; next }
  file            { print > file }
' "${pages[@]}"

# Reads the address of the demo's server, if there is a demo.
connect() {
  . "$folder/env.sh"
  . "$folder/http.sh"
  psql -X -q -d fhir -c "DROP ROLE IF EXISTS loader" -c "CREATE ROLE loader" 2>/dev/null
}

run_sh() { # FILE
  # The tests themselves run this script.
  grep -v '^make test$' "$1" | sed "s#/srv/fhir/#$folder/sample/#g" >"$1.run"
  # Only make needs the checkout; other blocks must not write into it.
  if grep -q '^make ' "$1"; then bash -euo pipefail "$1.run"
  else (cd "$work" && bash -euo pipefail "$1.run")
  fi
}

run_sql() { # FILE
  sed "s#/srv/fhir/#$folder/sample/#g" "$1" |
    # The demo has already created the extension.
    sed 's/^CREATE EXTENSION fhir_bulk;/CREATE EXTENSION IF NOT EXISTS fhir_bulk;/' |
    (cd "$work" && psql -X -q -At -v ON_ERROR_STOP=1 -d fhir)
}

count=0
if [ $# -gt 0 ]; then connect; fi
find "$work" -name '*.sh' -o -name '*.sql' | sort >"$work/blocks"
while IFS= read -r block <&3; do
  case $block in
    *.sh) run_sh "$block" ;;
    *.sql) run_sql "$block" ;;
  esac >"$block.out" 2>&1 </dev/null || { printf 'block failed:\n'; cat "$block" "$block.out"; exit 1; }
  if [ -e "$block.expected" ] && ! diff -u "$block.expected" "$block.out"; then
    printf 'this block does not print what the document says:\n'
    cat "$block"
    exit 1
  fi
  # The README's first block makes the demo.
  if [ "$count" = 0 ] && [ $# = 0 ]; then connect; fi
  count=$((count + 1))
  printf '.'
done 3<"$work/blocks"
psql -X -q -d fhir -c "DROP OWNED BY loader" -c "DROP ROLE loader"
printf '\nREADME and docs: %d passed, 0 failed\n' "$count"
