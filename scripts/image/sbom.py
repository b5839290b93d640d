"""What a binary is made of, as CycloneDX 1.5: reads `cargo metadata` on standard input, writes JSON.

    cargo metadata --format-version 1 | sbom.py --lock Cargo.lock --version VERSION

Packages that only tests, build scripts and macros use are left out. The same dependencies give the same bytes.
"""

import argparse
import json
import sys
import tomllib
import uuid

ROOT = "meltemi"


def linked(node):
    """Dependencies that end up in the binary."""
    for dependency in node["deps"]:
        if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
            yield dependency["pkg"]


def reached(nodes, root):
    found, pending = set(), [root]
    while pending:
        package = pending.pop()
        if package not in found:
            found.add(package)
            pending.extend(linked(nodes[package]))
    return found


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    out = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package.get("license"):
        # Cargo takes a slash for "or".
        out["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        out["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        out["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", required=True)
    parser.add_argument("--version", required=True)
    arguments = parser.parse_args()
    with open(arguments.lock, "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(it["name"], it["version"]): it.get("checksum") for it in locked}
    metadata = json.load(sys.stdin)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(it["id"] for it in packages.values() if it["name"] == ROOT and it["source"] is None)
    inside = sorted(reached(nodes, root), key=lambda it: (packages[it]["name"], packages[it]["version"]))
    components = [component(packages[it], checksums) for it in inside if it != root]
    graph = [
        {"ref": reference(packages[it]), "dependsOn": sorted({reference(packages[to]) for to in linked(nodes[it])})}
        for it in inside
    ]
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([components, graph], sort_keys=True))
    main_component = {"type": "application", "bom-ref": reference(packages[root]), "name": ROOT, "version": arguments.version}
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {"component": main_component},
        "components": components,
        "dependencies": graph,
    }
    json.dump(bom, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


main()
