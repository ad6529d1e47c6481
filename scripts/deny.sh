#!/usr/bin/env bash
# Holds all dependencies to deny.toml by cargo-deny: their licences, which versions stand twice, where they come from, and their
# known flaws. It uses the program of `setup.sh --tests`, or installs it by cargo (some minutes). The flaws are read from
# RustSec's git repository, which is in no package registry: ADVISORIES=/path/to/a/clone reads that clone instead, and
# OFFLINE=1 leaves them out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

PATH=$PATH:$PWD/target/venv/bin
if [ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $DENY_VERSION" ]; then
  printf 'deny: installing cargo-deny %s (some minutes)\n' "$DENY_VERSION"
  cargo install cargo-deny --version "$DENY_VERSION" --locked --quiet
fi
checks=(bans licenses sources)
if [ -z "${OFFLINE:-}" ]; then checks+=(advisories); fi
if [ -n "${ADVISORIES:-}" ]; then
  clone=$(realpath -e "$ADVISORIES")
  # git takes the clone for the repository.
  export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.$clone.insteadOf" GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
fi
cargo deny --workspace --locked check "${checks[@]}"
