#!/usr/bin/env bash
# Tries to break the installed extension and the proxy (campaign/); arguments are its own. Rows of what was tried are added to
# target/campaign/rows.jsonl: scripts/campaign.sh --minutes 10 kills faults
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

cargo run --quiet -p fhir_bulk_campaign --bin fhir_bulk_campaign -- "$@"
