#!/usr/bin/env bash
# Makes Debian packages in target/deb/: postgresql-N-fhir-bulk for each version of PostgreSQL whose server is here, and
# fhir-bulk-proxy. They are described in Cargo.toml and proxy/Cargo.toml, and made by cargo-deb, which is installed if it is
# missing (some minutes). The same commit gives the same bytes in any folder (scripts/test-reproducible.sh): times are those of
# SOURCE_DATE_EPOCH, by default the commit's, and no path of this machine is in a program. PG_MAJORS='15 18' makes these only.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'deb: %s\n' "$*"; }

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
folder=$(realpath -ms "${CARGO_TARGET_DIR:-target}")/deb

# What the compiler is told: the paths of sources, which are in messages of panics and errors, begin with the same words on
# every machine. Of two that match, the later one counts. Arguments are further flags.
set_flags() { # FLAG...
  local cargo_home=${CARGO_HOME:-$HOME/.cargo} registry flags
  flags=("--remap-path-prefix=$PWD=fhir_bulk" "--remap-path-prefix=$(realpath -ms "${CARGO_TARGET_DIR:-target}")=target")
  # A mirror's folder has another name than the registry's own.
  for registry in "$cargo_home"/registry/src/*/; do flags+=("--remap-path-prefix=${registry%/}=crates"); done
  flags+=("$@")
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
  export CARGO_ENCODED_RUSTFLAGS
}

install_tool() {
  if [ "$(cargo deb --version 2>/dev/null)" = "cargo-deb $DEB_VERSION" ]; then return; fi
  say "installing cargo-deb $DEB_VERSION (some minutes)"
  cargo install cargo-deb --version "$DEB_VERSION" --locked --quiet
}

has_server() { # MAJOR
  (unset PG_BIN; PG_MAJOR=$1; . scripts/env.sh; [ -x "$PG_BIN/postgres" ] && [ -x "$PG_BIN/pg_config" ])
}

# Builds the extension for a version, and lays its files where Debian's server of that version looks for them, wherever the
# server it was built with is.
lay_files() { # MAJOR
  (
    if [ "$1" != "$PG_MAJOR" ]; then unset PG_BIN; fi
    PG_MAJOR=$1
    . scripts/env.sh
    scripts/setup.sh
    # cargo-pgrx's own flag, which those from outside replace.
    set_flags -Clink-arg=-Wl,--no-gc-sections
    scripts/install.sh --package
    package=$(realpath -ms "${CARGO_TARGET_DIR:-target}")/package-pg$1
    files=$folder/files
    rm -rf "$files"
    mkdir -p "$files/usr/lib/postgresql/$1/lib" "$files/usr/share/postgresql/$1/extension" \
      "$files/usr/share/doc/postgresql-$1-fhir-bulk"
    cp "$package$("$PG_BIN/pg_config" --pkglibdir)/fhir_bulk.so" "$files/usr/lib/postgresql/$1/lib/"
    strip --strip-unneeded "$files/usr/lib/postgresql/$1/lib/fhir_bulk.so"
    cp "$package$("$PG_BIN/pg_config" --sharedir)"/extension/fhir_bulk* "$files/usr/share/postgresql/$1/extension/"
    cp README.md CHANGELOG.md "$files/usr/share/doc/postgresql-$1-fhir-bulk/"
    python3 scripts/bom.py fhir_bulk "pg$1" >"$files/usr/share/doc/postgresql-$1-fhir-bulk/fhir_bulk.cdx.json"
  )
}

make_extension() { # MAJOR
  lay_files "$1"
  local variant=()
  if [ "$1" != "$PG_FIRST" ]; then variant=(--variant "pg$1"); fi
  rm -f "$folder/postgresql-$1-fhir-bulk_"*.deb
  cargo deb --quiet --no-build --no-strip -p fhir_bulk "${variant[@]}" --output "$folder/"
  rm -rf "$folder/files"
}

make_proxy() {
  set_flags
  cargo build --quiet --release --locked -p fhir_bulk_proxy
  python3 scripts/bom.py fhir_bulk_proxy >"$folder/fhir_bulk_proxy.cdx.json"
  rm -f "$folder/fhir-bulk-proxy_"*.deb
  cargo deb --quiet --no-build -p fhir_bulk_proxy --output "$folder/"
  rm -f "$folder/fhir_bulk_proxy.cdx.json"
}

mkdir -p "$folder"
install_tool
cargo fetch --quiet --locked
for major in ${PG_MAJORS:-"$PG_FIRST" "${PG_OTHERS[@]}"}; do
  if has_server "$major"; then make_extension "$major"
  else say "no server of PostgreSQL $major here (make setup PG_MAJOR=$major gets one): no package for it"
  fi
done
make_proxy
(cd "$folder" && sha256sum ./*.deb)
