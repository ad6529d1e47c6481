"""Checks META.json by PGXN's specification 1.0.0: which members there must be, what they may be, and that the files it names and
the version of the release are those of this checkout. Usage: check-meta.py META.json VERSION"""

import json
import re
import sys
from pathlib import Path

SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
TERM = re.compile(r"[^\s/\\\x00-\x1f\x7f]{2,}")
MEMBERS = set("name version abstract maintainer license provides meta-spec description generated_by tags no_index prereqs "
              "release_status resources".split())
LICENCES = set("agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3 lgpl_2_1 "
               "lgpl_3_0 mit mozilla_1_0 mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib open_source restricted "
               "unrestricted unknown".split())
PHASES = {"configure", "build", "test", "runtime", "develop"}
RELATIONS = {"requires", "recommends", "suggests", "conflicts"}


def is_text(value):
    return isinstance(value, str) and value.strip() != ""


def is_url(value):
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/]\S*", value) is not None


def is_list_of_text(value):
    return is_text(value) or isinstance(value, list) and bool(value) and all(map(is_text, value))


def is_range(value):
    parts = [part.strip() for part in str(value).split(",")]
    return value == 0 or all(re.fullmatch(r"(<=|<|>=|>|==|!=)?\s*" + SEMVER.pattern, part) for part in parts)


def is_licence(value):
    if isinstance(value, dict):
        return bool(value) and all(is_text(name) and is_url(url) for name, url in value.items())
    return is_list_of_text(value) and all(name in LICENCES for name in ([value] if isinstance(value, str) else value))


# What may be in `resources` and `no_index`; members of others begin with x_.
RESOURCES = {
    "homepage": is_url,
    "license": lambda value: is_list_of_text(value) and all(map(is_url, [value] if isinstance(value, str) else value)),
    "bugtracker": {"web": is_url, "mailto": lambda value: is_text(value) and "@" in value},
    "repository": {"web": is_url, "url": is_url, "type": lambda value: is_text(value) and value == value.lower()},
}
NO_INDEX = {"file": is_list_of_text, "directory": is_list_of_text}


def wrong_members(value, allowed, place):
    """What is wrong with an object whose members are checked by functions, or by objects of functions."""
    if not isinstance(value, dict):
        return [f"{place} is no object"]
    found = []
    for name, member in value.items():
        check = allowed.get(name)
        if isinstance(check, dict):
            found += wrong_members(member, check, f"{place}.{name}")
        elif not (name.lower().startswith("x_") if check is None else check(member)):
            found.append(f"{place}.{name} is not what the specification has there")
    return found


def mistakes(meta, version, folder):
    def expect(holds, what):
        return [] if holds else [what]

    found = [f"{member} is missing" for member in
             "name version abstract maintainer license provides meta-spec".split() if member not in meta]
    found += [f"{member} is no member" for member in meta if member not in MEMBERS and not member.lower().startswith("x_")]
    found += expect(TERM.fullmatch(meta.get("name", "")), "name is no term")
    found += expect(meta.get("version") == version and SEMVER.fullmatch(version), f"version is not {version}")
    found += expect(is_text(meta.get("abstract")), "abstract is no text")
    found += expect(is_list_of_text(meta.get("maintainer")), "maintainer is no list of texts")
    found += expect(is_licence(meta.get("license")), "license is unknown")
    found += wrong_members(meta.get("meta-spec", {}), {"version": lambda value: value == "1.0.0", "url": is_url}, "meta-spec")
    found += [f"{member} is no text" for member in ("description", "generated_by") if member in meta and not is_text(meta[member])]
    found += wrong_members(meta.get("resources", {}), RESOURCES, "resources")
    found += wrong_members(meta.get("no_index", {}), NO_INDEX, "no_index")
    found += expect(meta.get("release_status", "stable") in {"stable", "testing", "unstable"}, "release_status is unknown")
    found += expect(is_list_of_text(meta.get("tags", "none")), "tags are no list of texts")
    found += expect(all(len(str(tag)) < 256 for tag in meta.get("tags", [])), "a tag is too long")
    found += expect(meta.get("provides") != {}, "provides has no extension")
    for name, extension in meta.get("provides", {}).items():
        found += expect(TERM.fullmatch(name), f"provides: {name} is no term")
        found += expect(SEMVER.fullmatch(extension.get("version", "")), f"provides: {name} has no version")
        for member in ("file", "docfile"):
            required = member == "file"
            path = extension.get(member)
            found += expect(path is None and not required or path and (folder / path).is_file(),
                            f"provides: {member} of {name} is not there")
    for phase, relations in meta.get("prereqs", {}).items():
        found += expect(phase in PHASES, f"prereqs: {phase} is no phase")
        for relation, needed in relations.items():
            found += expect(relation in RELATIONS, f"prereqs: {relation} is no relation")
            found += [f"prereqs: {of} has no range of versions" for of, range_ in needed.items() if not is_range(range_)]
    return found


path = Path(sys.argv[1])
found = mistakes(json.loads(path.read_text()), sys.argv[2], path.resolve().parent)
for mistake in found:
    print(f"{path}: {mistake}", file=sys.stderr)
sys.exit(bool(found))
