#!/usr/bin/env bash
# Searches for inputs that break a promise: builds the programs of fuzz/ with libFuzzer, and runs each for its share of the time.
#
#   scripts/fuzz.sh [--minutes N] [--asan] [--seed N] [--merge] [TARGET…]
#
# Without targets it runs all of fuzz/targets.txt. The target `server` is none of libFuzzer's: it tries random documents beside
# jsonb_in and jsonb_out, in a server. --asan builds with the address sanitizer, for which the stable compiler has to
# be told that it may. What a run finds stays in target/fuzz/corpus for the next one; --merge also brings what is new into
# fuzz/corpus, as few and small inputs as cover it. Each target adds a line to target/campaign/rows.jsonl. An input that breaks a
# promise is left in target/campaign/crashes, with the command that repeats it, and the script fails after the last target.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=$*

minutes=10 asan= merge= seed=$((RANDOM << 15 | RANDOM)) targets=() programs=()
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2; shift ;;
    --seed) seed=$2; shift ;;
    --asan) asan=1 ;;
    --merge) merge=1 ;;
    -*) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
if [ ${#targets[@]} = 0 ]; then mapfile -t targets < <(awk '/^[a-z]/ { print $1 }' fuzz/targets.txt); fi

target_dir=${CARGO_TARGET_DIR:-target}
build=$target_dir/fuzz/plain
campaign=$target_dir/campaign
flags="--cfg fuzzing"
if [ -n "$asan" ]; then
  build=$target_dir/fuzz/asan
  flags+=" -Zsanitizer=address"
  export RUSTC_BOOTSTRAP=1
  # What a panic's message holds is no leak: the process ends there.
  export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}
fi
# Overflow and assertions count. Without the optimisation of the whole program, which would take an hour for all.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=3
export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
export CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
# A target of its own, so that build scripts and macros are compiled without all this. libFuzzer itself is C++.
host=x86_64-unknown-linux-gnu
if [ "$(uname -m)" = aarch64 ]; then host=aarch64-unknown-linux-gnu; fi
# HL7's examples are inputs to begin with, where a target takes resources; too many for the corpora of the tree.
seeds=$target_dir/fuzz/seeds
write_seeds() {
  rm -rf "$seeds"
  mkdir -p "$seeds/encode" "$seeds/fhir" "$seeds/flat"
  local release
  for release in 4 5; do
    gzip -dc "paths/tests/data/r$release.examples.ndjson.gz" | awk -v folder="$seeds" -v release="$release" 'length($0) < 1900 {
      file = sprintf("r%s-%04d", release, NR)
      print "0" $0 >(folder "/encode/" file); close(folder "/encode/" file)
      print release "0" $0 >(folder "/fhir/" file); close(folder "/fhir/" file)
      if (length($0) < 1000) { print release "name,value[x]\n" $0 >(folder "/flat/" file); close(folder "/flat/" file) }
    }'
  done
}

# Random documents in a server, so many that it takes about its share of the time.
run_server() { # SECONDS
  local start=$SECONDS hundreds=$(($1 * 60)) found=0 log=$campaign/fuzz-server.log
  FHIR_BULK_FUZZ_SEED=$((seed % 1000000)) FHIR_BULK_FUZZ_HUNDREDS=$hundreds \
    scripts/test-in-server.sh random_documents_have_the_bytes >"$log" 2>&1 || found=1
  if [ $found = 1 ]; then
    tail -n 40 "$log" >&2
    failed+=(server)
  fi
  # How far one came that failed is not known.
  row server $((SECONDS - start)) $((found ? 0 : hundreds * 125)) documents $found "random documents, a fifth of them made by PostgreSQL"
}

row() { # WHAT SECONDS TRIED UNIT FOUND NOTE
  printf '{"part":"fuzz","what":"%s","command":"scripts/fuzz.sh %s","seed":%s,"seconds":%d,"tried":%s,"unit":"%s","found":%d,"note":"%s"}\n' \
    "$1" "$arguments" "$seed" "$2" "$3" "$4" "$5" "$6" | tee -a "$campaign/rows.jsonl"
}

features=(--no-default-features --features libfuzzer)
for target in "${targets[@]}"; do
  if [ "$target" = server ]; then continue; fi
  line=$(grep "^$target " fuzz/targets.txt) || { printf 'fuzz: %s is not in fuzz/targets.txt\n' "$target" >&2; exit 2; }
  if [[ $line != *\ codec ]]; then features=(--features libfuzzer); fi
  programs+=(--bin "$target")
done
if [ ${#programs[@]} -gt 0 ]; then
  CXX=${CXX:-clang++} RUSTC_WRAPPER=$PWD/scripts/fuzz-rustc.sh RUSTFLAGS=$flags cargo build --release --quiet -p fhir_bulk_fuzz \
    "${features[@]}" --target "$host" --target-dir "$build" "${programs[@]}"
fi

seconds=$(awk -v minutes="$minutes" -v count=${#targets[@]} 'BEGIN { s = int(minutes * 60 / count); print s < 1 ? 1 : s }')
mkdir -p "$campaign/crashes"
write_seeds
printf 'fuzz: seed %s, %d s for each of %d targets%s\n' "$seed" "$seconds" ${#targets[@]} "${asan:+, with the address sanitizer}"

failed=()
for target in "${targets[@]}"; do
  if [ "$target" = server ]; then
    run_server "$seconds"
    continue
  fi
  read -r _ max_len dictionary _ < <(grep "^$target " fuzz/targets.txt)
  program=$build/$host/release/$target
  kept=$target_dir/fuzz/corpus/$target
  log=$campaign/fuzz-$target${asan:+-asan}.log
  mkdir -p "$kept"
  inputs=("$kept" "fuzz/corpus/$target")
  if [ -d "$seeds/$target" ]; then inputs+=("$seeds/$target"); fi
  options=(-max_len="$max_len" -timeout=10 -rss_limit_mb=4096)
  if [ "$dictionary" != - ]; then options+=(-dict="fuzz/dictionaries/$dictionary.txt"); fi
  start=$SECONDS found=0
  if ! "$program" "${options[@]}" -seed="$seed" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="$campaign/crashes/$target-" "${inputs[@]}" 2>"$log"; then
    found=1
    failed+=("$target")
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    { grep -m 3 -E 'panicked at|ERROR:|SUMMARY' -A 3 "$log" || tail -n 20 "$log"; } >&2
    printf 'fuzz: %s broke; again by: %s %s\n' "$target" "$program" "$input" >&2
  fi
  tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | cut -d' ' -f2 || true)
  row "$target${asan:+ (address sanitizer)}" $((SECONDS - start)) "${tried:-0}" executions "$found" "branches reached: ${covered:-0}"
  if [ -n "$merge" ]; then
    # Those that reach a branch that no other one reaches; how often it is taken does not count.
    smaller=$target_dir/fuzz/merged/$target
    rm -rf "$smaller" && mkdir -p "$smaller"
    "$program" "${options[@]}" -use_counters=0 -merge=1 "$smaller" "${inputs[@]:1}" "$kept" 2>>"$log"
    find "$smaller" -type f -size +4k -delete
    cp -n "$smaller"/* "fuzz/corpus/$target/" 2>/dev/null || true
  fi
done
if [ ${#failed[@]} -gt 0 ]; then
  printf 'fuzz: broken: %s\n' "${failed[*]}" >&2
  exit 1
fi
