#!/usr/bin/env bash
# Makes a new, minimal Debian in a folder, from the system's own mirror, as root: scripts/debian.sh RELEASE FOLDER. Does nothing
# if the folder is there.
set -euo pipefail
release=$1 folder=$2

if [ -e "$folder" ]; then exit; fi
# Not all of these files are there.
mirror=$({ sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list.d/*.sources \
  /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } | head -n 1)
printf 'debian: making a new Debian %s in %s\n' "$release" "$folder"
rm -rf "$folder.new"
mkdir -p "${folder%/*}"
debootstrap --variant=minbase --include=ca-certificates "$release" "$folder.new" ${mirror:+"$mirror"} >"$folder.log" ||
  { tail "$folder.log" >&2; printf 'debian: debootstrap failed\n' >&2; exit 1; }
# Only a whole one has its name.
mv "$folder.new" "$folder"
