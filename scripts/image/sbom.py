"""What an image is made of, as CycloneDX 1.5: reads `cargo metadata` on standard input, writes JSON.

    cargo metadata --format-version 1 | sbom.py --lock Cargo.lock --version VERSION -- FILES...   (as files.py has them)

Of the binary, packages that only tests, build scripts and macros use are left out. The files beside it are told by Debian
package, or by themselves where no package has them. The same dependencies and files give the same bytes.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tomllib
import uuid

from files import entries

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


def spellings(path):
    """/lib is a link to /usr/lib, and a package knows a file by either."""
    return {path, path.removeprefix("/usr"), "/usr" + path}


def query(*arguments):
    try:
        # It fails where one of the files is nobody's.
        return subprocess.run(["dpkg-query", *arguments], capture_output=True, text=True, check=False).stdout.splitlines()
    except FileNotFoundError:
        return []


def owners(paths):
    """Name, version and architecture of the Debian package that each file is of, where one is."""
    names = sorted({name for path in paths for name in spellings(path)})
    lines = (line.partition(": ") for line in query("-S", *names))
    packages = {path: package for package, _, path in lines if "," not in package and not package.startswith("diversion")}
    shown = query("-W", "-f=${binary:Package} ${Package} ${Version} ${Architecture}\n", *sorted(set(packages.values())))
    known = {}
    for line in shown:
        binary, *rest = line.split(" ")
        known[binary] = known[binary.partition(":")[0]] = tuple(rest)
    found = {path: next((packages[name] for name in spellings(path) if name in packages), None) for path in paths}
    return {path: known[package] for path, package in found.items() if package in known}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed(arguments):
    """A component for each Debian package, with its files in the image; and one for each other file."""
    files = [(destination, os.path.realpath(source)) for destination, source, target in entries(arguments) if target is None]
    package_of = owners([source for _, source in files])
    packages, alone = {}, []
    for destination, source in files:
        file = {"type": "file", "name": "/" + destination, "hashes": [{"alg": "SHA-256", "content": sha256(source)}]}
        if source in package_of:
            packages.setdefault(package_of[source], []).append(file)
        else:
            alone.append(file | {"bom-ref": f"file:/{destination}"})
    for (name, version, architecture), files in sorted(packages.items()):
        purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "components": files,
        }
    yield from alone


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("files", nargs=argparse.REMAINDER)
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
    components += installed([argument for argument in arguments.files if argument != "--"])
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
