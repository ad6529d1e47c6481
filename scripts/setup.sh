#!/usr/bin/env bash
# Installs what building and running fhir_bulk needs and is missing: the PostgreSQL server of PG_MAJOR and its headers (from the
# system's archive or, if it has none, below target/: scripts/server.sh), clang (for bindgen), and cargo-pgrx; with --tests also
# what `make test` needs: valgrind, Node.js, Chromium, the JDBC driver where there is a JDK, tools of PyPI and npm in folders of
# their own below target/, and Citus where its archive is beside the checkout; with --evaluators also other evaluators of SQL on
# FHIR, for the bench; with --coverage also LLVM's tools, of the compiler's version, for scripts/coverage.sh. Says what it does;
# safe to run again; touches no cluster.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

with_tests=${1:-}
# What this script has installed in all its runs in this checkout, for the demo's report.
installed=target/installed-by-setup

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else die "'$*' needs root: run this as root, or install sudo, or install the packages by hand"
  fi
}

# Inside sudo, because sudo keeps no environment.
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >/dev/null; }

has_server() { [ -x "$PG_BIN/postgres" ] && [ -x "$PG_BIN/initdb" ]; }
has_headers() { [ -f "$("$PG_BIN/pg_config" --includedir-server 2>/dev/null)/postgres.h" ]; }

# Whether the archive has the browser itself. Before the first apt-get update nothing is known of any package.
has_chromium() { ! grep -qi '^ID=ubuntu' /etc/os-release; }

missing_packages() {
  has_server || echo "postgresql-$PG_MAJOR"
  has_headers || echo "postgresql-server-dev-$PG_MAJOR"
  command -v cc >/dev/null 2>&1 || echo gcc libc6-dev
  command -v clang >/dev/null 2>&1 || echo clang
  ls /usr/lib/llvm-*/lib/libclang.so* >/dev/null 2>&1 || echo libclang-dev
  command -v pkg-config >/dev/null 2>&1 || echo pkg-config
  command -v curl >/dev/null 2>&1 || echo curl
  if [ "$with_tests" = --coverage ]; then
    local llvm
    llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    [ -x "/usr/lib/llvm-$llvm/bin/llvm-cov" ] || echo "llvm-$llvm"
  fi
  if [ "$with_tests" = --tests ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    command -v valgrind >/dev/null 2>&1 || echo valgrind
    command -v node >/dev/null 2>&1 || echo nodejs
    command -v npm >/dev/null 2>&1 || echo npm
    # The page of the proxy is tested in it. Ubuntu has none but as a snap, without which its tests are left out.
    command -v chromium >/dev/null 2>&1 || ! has_chromium || echo chromium
    # A driver to test with, where there is a JDK anyway.
    ! command -v javac >/dev/null 2>&1 || [ -f /usr/share/java/postgresql.jar ] || echo libpostgresql-jdbc-java
  fi
}

# Set if no archive has the server.
without_server=

note_installed() { printf '%s\n' "$@" >>"$installed"; }

install_packages() {
  local packages=("$@")
  command -v apt-get >/dev/null 2>&1 ||
    die "needs ${packages[*]}, and this system has no apt-get: install their equivalents and run again"
  say "apt-get update"
  apt_get update
  if [[ " ${packages[*]} " == *" postgresql-$PG_MAJOR "* ]]; then
    if ! apt-cache show "postgresql-$PG_MAJOR" >/dev/null 2>&1; then
      without_server=1
      mapfile -t packages < <(printf '%s\n' "${packages[@]}" | grep -v "^postgresql-.*$PG_MAJOR\$"
        # It makes the user that runs servers for root.
        [ "$(id -u)" != 0 ] || id postgres >/dev/null 2>&1 || echo postgresql-common
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
        [ -d /usr/share/zoneinfo ] || echo tzdata)
    fi
    # Otherwise a server's package would create and start a cluster named main on port 5432.
    local no_main=/etc/postgresql-common/createcluster.d/fhir_bulk_setup.conf
    as_root mkdir -p "${no_main%/*}"
    printf 'create_main_cluster = false\n' | as_root tee "$no_main" >/dev/null
    # shellcheck disable=SC2064  # the path is local to this function
    trap "as_root rm -f '$no_main'" EXIT
  fi
  if [ ${#packages[@]} = 0 ]; then return; fi
  say "installing ${packages[*]}"
  apt_get install -y --no-install-recommends "${packages[@]}"
  note_installed "${packages[@]}"
}

install_python_tools() { # FOLDER PACKAGE...
  local venv=$1
  shift
  if [ "$(cat "$venv/tools" 2>/dev/null)" = "$*" ]; then return; fi
  say "installing $* into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
  # Written last, so that an interrupted installation is done again.
  printf '%s\n' "$*" >"$venv/tools"
}

install_npm_package() { # FOLDER PACKAGE
  local folder=$1
  if [ "$(cat "$folder/tools" 2>/dev/null)" = "$2" ]; then return; fi
  say "installing $2 into $folder"
  rm -rf "$folder"
  mkdir -p "$folder"
  # No scripts of packages run.
  npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error "$2" >/dev/null
  printf '%s\n' "$2" >"$folder/tools"
}

mkdir -p target
mapfile -t packages < <(missing_packages | tr ' ' '\n')
if [ ${#packages[@]} -gt 0 ]; then install_packages "${packages[@]}"; fi
if [ -n "$without_server" ]; then
  say "this release has no postgresql-$PG_MAJOR"
  scripts/server.sh
  . scripts/env.sh
fi
[[ "$("$PG_BIN/pg_config" --version)" =~ ^PostgreSQL\ $PG_MAJOR[^0-9] ]] ||
  die "PG_MAJOR is $PG_MAJOR, and $PG_BIN has $("$PG_BIN/pg_config" --version): set both, or only PG_MAJOR"

command -v cargo >/dev/null 2>&1 || die "cargo is not installed: install Rust (rustup) and run again"

if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $PGRX_VERSION" ]; then
  say "installing cargo-pgrx $PGRX_VERSION (some minutes)"
  quiet=--quiet
  if [ -t 2 ]; then quiet=; fi # show cargo's progress on a terminal
  cargo install cargo-pgrx --version "$PGRX_VERSION" --locked $quiet
  note_installed "cargo-pgrx $PGRX_VERSION (cargo install)"
fi
if [ "$with_tests" = --evaluators ]; then
  install_python_tools target/venv-evaluators "${EVALUATORS[@]}"
fi
if [ "$with_tests" = --tests ]; then
  install_python_tools target/venv "${PYTHON_TOOLS[@]}"
  install_python_tools target/venv-smart-fetch "${BULK_CLIENT[@]}"
  install_npm_package target/fhirpath-js "$FHIRPATH_JS"
  install_npm_package target/fhir-kit-client "$FHIR_CLIENT_JS"
  install_npm_package target/axe-core "$AXE_JS"
  scripts/citus.sh
fi

# Writes what `cargo pgrx init` would write, without starting a server: pgrx only needs the path of each version's pg_config.
mkdir -p "$PGRX_HOME"
{
  printf '[configs]\n'
  {
    sed -n '/^pg[0-9]* = /p' "$PGRX_HOME/config.toml" 2>/dev/null | grep -v "^pg$PG_MAJOR = " || true
    printf 'pg%s = "%s"\n' "$PG_MAJOR" "$PG_BIN/pg_config"
  } | sort
} >"$PGRX_HOME/config.toml.new"
if cmp -s "$PGRX_HOME/config.toml.new" "$PGRX_HOME/config.toml"; then rm "$PGRX_HOME/config.toml.new"
else mv "$PGRX_HOME/config.toml.new" "$PGRX_HOME/config.toml"; fi
say "ready: $("$PG_BIN/postgres" --version), cargo-pgrx $PGRX_VERSION"
