#!/usr/bin/env bash
# Prints the port of the argument if nothing listens there, else any free port below those that the system assigns itself.
set -euo pipefail

port=${1:-}
for _ in {1..100}; do
  if [ -n "$port" ] && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "$port"
    exit
  fi
  port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
done
echo "free-port: no free port found" >&2
exit 1
