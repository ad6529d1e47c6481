#!/usr/bin/env bash
# Cargo calls this in place of rustc for scripts/coverage.sh: of the workspace, the codec notes which of its lines run. Who calls it
# is compiled so, too, for the sake of what is generic: only the codec's own files are reported.
set -euo pipefail

case ${CARGO_CRATE_NAME:-} in
  build_script_*) exec "$@" ;;
  *) exec "$@" -Cinstrument-coverage ;;
esac
