#!/usr/bin/env bash
# Counts the instructions of the hot loops per byte of NDJSON, and shows where they are. callgrind counts them, so the number
# does not depend on the load of the machine. --check only compares the counts with bench/instructions.txt, and fails if a
# loop takes over 25 % more. --record writes that file.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

mode=${1:-}
recorded=bench/instructions.txt
loops=(encode-aidbox encode-fhir write-aidbox write-fhir view-csv)
out=${CARGO_TARGET_DIR:-target}/profile
mkdir -p "$out"

command -v valgrind >/dev/null 2>&1 || { echo "profile: needs valgrind (apt-get install valgrind)" >&2; exit 1; }
# Symbols for callgrind_annotate; the code is the same as in a release.
CARGO_PROFILE_RELEASE_DEBUG=line-tables-only cargo build --release --quiet -p fhir_bulk_bench --bin loops --target-dir "$out/build"
program=$out/build/release/loops

# instructions LOOP RUNS: the count of the whole process.
instructions() {
  valgrind --tool=callgrind --callgrind-out-file="$out/$1.$2.callgrind" "$program" "$1" "$2" 2>&1 >"$out/bytes" |
    awk '/Collected/ { print $4 }'
}

for loop in "${loops[@]}"; do
  # Two runs minus one run is a run without its preparation.
  one=$(instructions "$loop" 1)
  two=$(instructions "$loop" 2)
  awk -v loop="$loop" -v count=$((two - one)) -v bytes="$(cat "$out/bytes")" \
    'BEGIN { printf "%-14s %6.2f instructions a byte\n", loop, count / bytes }'
done | tee "$out/instructions.txt"

case $mode in
  --record) cp "$out/instructions.txt" "$recorded" ;;
  --check)
    awk 'NR == FNR { before[$1] = $2; next }
      !($1 in before) { printf "profile: %s is not in bench/instructions.txt\n", $1; bad = 1; next }
      $2 > before[$1] * 1.25 { printf "profile: %s takes %.2f instructions a byte, %.2f before\n", $1, $2, before[$1]; bad = 1 }
      END { exit bad }' "$recorded" "$out/instructions.txt"
    ;;
  *)
    for loop in "${loops[@]}"; do
      printf '\n%s\n' "$loop"
      callgrind_annotate --threshold=90 "$out/$loop.2.callgrind" | grep -E '^ *[0-9,]+ \(' | head -15 | cut -c1-150
    done
    ;;
esac
