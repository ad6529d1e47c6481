"""Prints the bill of materials of a package of this workspace as CycloneDX 1.5: each crate that is linked into it on Linux, with
its version, licence, checksum and source. Usage: bom.py PACKAGE [FEATURES]; cargo metadata and Cargo.lock are its sources."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

root = Path(__file__).resolve().parent.parent
package, features = sys.argv[1], sys.argv[2:]
command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu",
           "--no-default-features", *(["--features", ",".join(features)] if features else [])]
metadata = json.loads(subprocess.run(command, cwd=root, check=True, capture_output=True).stdout)
packages = {found["id"]: found for found in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
lock = tomllib.loads((root / "Cargo.lock").read_text())
checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
[top] = [found for found in packages.values() if found["name"] == package and found["source"] is None]


def linked(start):
    """All that a package needs when it runs: no dependencies of builds or tests."""
    seen, open_ones = set(), [start]
    while open_ones:
        node = open_ones.pop()
        if node not in seen:
            seen.add(node)
            open_ones += [dependency["pkg"] for dependency in nodes[node]["deps"]
                          if any(kind["kind"] is None for kind in dependency["dep_kinds"])]
    return seen


def component(found, kind="library"):
    reference = f"pkg:cargo/{found['name']}@{found['version']}"
    described = {"type": kind, "bom-ref": reference, "name": found["name"], "version": found["version"], "purl": reference}
    if found["license"]:
        described["licenses"] = [{"expression": found["license"].replace("/", " OR ")}]
    checksum = checksums.get((found["name"], found["version"]))
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


everything = linked(top["id"])
crates = sorted((packages[node] for node in everything - {top["id"]}), key=lambda found: (found["name"], found["version"]))
reference = {node: component(packages[node])["bom-ref"] for node in everything}
dependencies = [{"ref": reference[node], "dependsOn": sorted({reference[dependency["pkg"]] for dependency in nodes[node]["deps"]
                 if dependency["pkg"] in everything})} for node in sorted(everything, key=reference.get)]
json.dump({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
           "metadata": {"component": component(top, "application")},
           "components": [component(found) for found in crates], "dependencies": dependencies}, sys.stdout, indent=1)
print()
