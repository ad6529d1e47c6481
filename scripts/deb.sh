#!/usr/bin/env bash
# Makes Debian packages in target/deb/: postgresql-N-fhir-bulk for each version of PostgreSQL whose server is here, and
# fhir-bulk-proxy. They are described in Cargo.toml and proxy/Cargo.toml, and made by cargo-deb, which is installed if it is
# missing (some minutes). The same commit in the same folder gives the same bytes: times are those of SOURCE_DATE_EPOCH, by
# default the commit's. PG_MAJORS='15 18' makes these only.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'deb: %s\n' "$*"; }

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
folder=$(realpath -ms "${CARGO_TARGET_DIR:-target}")/deb

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
  cargo build --quiet --release --locked -p fhir_bulk_proxy
  python3 scripts/bom.py fhir_bulk_proxy >"$folder/fhir_bulk_proxy.cdx.json"
  rm -f "$folder/fhir-bulk-proxy_"*.deb
  cargo deb --quiet --no-build -p fhir_bulk_proxy --output "$folder/"
  rm -f "$folder/fhir_bulk_proxy.cdx.json"
}

mkdir -p "$folder"
install_tool
for major in ${PG_MAJORS:-"$PG_FIRST" "${PG_OTHERS[@]}"}; do
  if has_server "$major"; then make_extension "$major"
  else say "no server of PostgreSQL $major here (make setup PG_MAJOR=$major gets one): no package for it"
  fi
done
make_proxy
(cd "$folder" && sha256sum ./*.deb)
