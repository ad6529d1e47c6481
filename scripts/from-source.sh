# shellcheck shell=bash
# Sourced by the scripts that need a PostgreSQL which is built in another way than the system's: from Debian's source package, in
# a folder of its own.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }
die() { say "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Sources come from the same archives as packages; the system's own lists stay unchanged.
fetch_source() { # FOLDER
  local folder=$1
  mkdir -p "$folder/apt" "$folder/lists/partial"
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    if [ -f "$file" ]; then sed -n 's/^deb /deb-src /p' "$file" >"$folder/apt/$(basename "$file" .list)_src.list"; fi
  done
  for file in /etc/apt/sources.list.d/*.sources; do
    if [ -f "$file" ]; then sed 's/^Types:.*/Types: deb-src/' "$file" >"$folder/apt/$(basename "$file")"; fi
  done
  local apt=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$folder/apt"
    -o "Dir::State::lists=$folder/lists" -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" update
  local version
  # The newest version that can be downloaded: an archive may list versions whose files are not there yet.
  for version in $(apt-cache "${apt[@]}" showsrc "postgresql-$PG_MAJOR" | sed -n 's/^Version: //p' | sort -rV); do
    rm -f "$folder"/*.orig.tar.*
    if (cd "$folder" && apt-get "${apt[@]}" source --download-only "postgresql-$PG_MAJOR=$version" 2>/dev/null); then
      return
    fi
  done
  die "no source package of postgresql-$PG_MAJOR could be downloaded"
}

# Builds it unless it is there. The first time takes some minutes.
build_server() { # FOLDER CFLAGS PACKAGES CONFIGURE-OPTION…
  local folder=$1 flags=$2 needed=(bison dpkg-dev flex libicu-dev liblz4-dev libssl-dev libxml2-dev libzstd-dev make pkg-config
    zlib1g-dev)
  read -ra more <<<"$3"
  needed+=("${more[@]}")
  shift 3
  if [ -x "$folder/pg/bin/postgres" ]; then return; fi
  say "installing what the build needs: ${needed[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${needed[@]}" >/dev/null
  mkdir -p "$folder"
  fetch_source "$folder"
  say "building PostgreSQL $PG_MAJOR in $folder"
  rm -rf "$folder/src" "$folder/new"
  mkdir "$folder/src"
  tar xf "$folder"/*.orig.tar.* -C "$folder/src" --strip-components=1
  (
    cd "$folder/src"
    ./configure --prefix="$folder/pg" "$@" --enable-debug --with-lz4 --with-zstd --with-openssl --with-icu --with-libxml \
      --without-readline CFLAGS="$flags"
    make -j"$(nproc)" -s world-bin
    make -s install-world-bin DESTDIR="$folder/new"
  ) >"$folder/build.log" 2>&1 || { tail -n 20 "$folder/build.log" >&2; die "the build failed: $folder/build.log"; }
  # Moved when it is complete, so that an interrupted build is done again.
  mv "$folder/new$folder/pg" "$folder/pg"
  if [ -f "$folder/src/src/tools/valgrind.supp" ]; then cp "$folder/src/src/tools/valgrind.supp" "$folder/pg/"; fi
  rm -rf "$folder/new" "$folder/src"
}
