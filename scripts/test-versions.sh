#!/usr/bin/env bash
# Tests each other version of PostgreSQL after the first one (scripts/env.sh), and the first one built with assertions. With
# --within SECONDS it begins none that would not end by then, as far as the last one's time tells; which one comes first
# changes with each commit.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

usage() { sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p}' "$0" >&2; exit 2; }

# Written by scripts/test.sh: what the last version took.
seconds_of_one() { cat target/version-seconds 2>/dev/null || echo 1200; }

within=
case $# in
  0) ;;
  2) [ "$1" = --within ] || usage; within=$2 ;;
  *) usage ;;
esac
servers=("${PG_OTHERS[@]}" "$PG_FIRST-with-assertions")
count=${#servers[@]}
first=0
if [ -n "$within" ]; then first=$(($(git rev-list --count HEAD) % count)); fi
tested=()
for ((at = 0; at < count; at++)); do
  version=${servers[$(((first + at) % count))]}
  # A quarter more than the last one took. With assertions all is slower, and the server has to be built.
  case $version in
    *-with-assertions) needed=$(($(seconds_of_one) * 2 + 300)) ;;
    *) needed=$(($(seconds_of_one) * 5 / 4)) ;;
  esac
  if [ -n "$within" ] && [ $((SECONDS + needed)) -gt "$within" ]; then
    printf '\nPostgreSQL %s is not tested now: it might take %d s, and %d s are left\n' "$version" "$needed" \
      $((within - SECONDS))
    continue
  fi
  case $version in
    *-with-assertions) env -u PG_BIN PG_MAJOR="$PG_FIRST" scripts/asserts.sh ;;
    *) env -u PG_BIN PG_MAJOR="$version" scripts/test.sh ;;
  esac
  tested+=("$version")
done
printf '\ntested: PostgreSQL %s\n' "${tested[*]:-none}"
