#!/usr/bin/env bash
# Stops the demo's proxy and cluster; the data stays. With --remove, deletes the demo's folder, too.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
  '') scripts/cluster.sh stop ;;
  --remove) scripts/cluster.sh remove ;;
  *) echo "usage: $0 [--remove]" >&2; exit 2 ;;
esac
