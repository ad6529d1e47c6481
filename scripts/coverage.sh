#!/usr/bin/env bash
# Which lines of the codec its tests and the small corpora of fuzz/ run: prints how many, and each that is not run. Fails if they are
# less than 98 %. Needs LLVM's tools of the version that the compiler has, which scripts/setup.sh --coverage brings.
set -euo pipefail
cd "$(dirname "$0")/.."

least=98
version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
tools=/usr/lib/llvm-$version/bin
[ -x "$tools/llvm-cov" ] || { printf 'coverage: needs llvm-%s, as this compiler has it (scripts/setup.sh --coverage)\n' "$version" >&2; exit 1; }

out=${CARGO_TARGET_DIR:-target}/coverage
mkdir -p "$out"
rm -rf "$out/raw"
export RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/coverage-rustc.sh LLVM_PROFILE_FILE=$PWD/$out/raw/%p-%m.profraw
arguments=(test --quiet -p fhir_bulk_codec -p fhir_bulk_fuzz --no-default-features --tests --target-dir "$out/build")
mapfile -t programs < <(cargo "${arguments[@]}" --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
cargo "${arguments[@]}" >"$out/tests.log" 2>&1 || { tail -n 30 "$out/tests.log" >&2; exit 1; }

"$tools/llvm-profdata" merge --sparse "$out"/raw/*.profraw -o "$out/all.profdata"
objects=()
for program in "${programs[@]}"; do objects+=(--object "$program"); done
"$tools/llvm-cov" export --format=lcov --instr-profile "$out/all.profdata" "${objects[@]}" --sources codec/src >"$out/lcov.info"
# Of a line in several programs and instances, one that ran is enough; tests within the files do not count.
python3 - "$out/lcov.info" "$least" <<'END'
import sys, os
lines, file = {}, None
for line in open(sys.argv[1]):
    if line.startswith("SF:"):
        file = os.path.relpath(line[3:].strip())
    elif line.startswith("DA:"):
        number, count = map(int, line[3:].split(",")[:2])
        lines[file, number] = max(lines.get((file, number), 0), count)
text = {file: open(file).read().split("\n") for file, _ in lines}
tests = {file: next((at for at, line in enumerate(all, 1) if line.startswith("#[cfg(test)]")), len(all) + 1) for file, all in text.items()}
lines = {at: count for at, count in lines.items() if at[1] < tests[at[0]]}
missed = sorted(at for at, count in lines.items() if count == 0)
for file, number in missed:
    print(f"{file}:{number}: {text[file][number - 1].strip()}")
share = 100 * (1 - len(missed) / len(lines))
print(f"{len(lines) - len(missed)} of {len(lines)} lines of the codec ran: {share:.2f} %")
sys.exit(share < float(sys.argv[2]))
END
