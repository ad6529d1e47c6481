#!/usr/bin/env bash
# Holds all dependencies to deny.toml by cargo-deny, which it installs if it is missing (some minutes): their licences,
# which versions stand twice, where they come from, and their known flaws. The last are read from a git repository; with
# OFFLINE=1 they are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

if [ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $DENY_VERSION" ]; then
  printf 'deny: installing cargo-deny %s (some minutes)\n' "$DENY_VERSION"
  cargo install cargo-deny --version "$DENY_VERSION" --locked --quiet
fi
checks=(bans licenses sources)
if [ -z "${OFFLINE:-}" ]; then checks+=(advisories); fi
cargo deny --workspace --locked check "${checks[@]}"
