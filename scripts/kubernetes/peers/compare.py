#!/usr/bin/env python3
"""Holds what two control planes give the same nodes against each other.

  compare.py THEIRS OURS NODES [--known FILE] [--dump FOLDER] [--patience SECONDS]

THEIRS and OURS are ADS addresses, NODES a JSON list of nodes. Order that means nothing is put aside. Differences that the file
of known ones names (a pattern of "TYPE path" and a reason, a tab between them) are counted apart. Where there are others, all is
asked for again until there are none or the patience is at its end. The exit code is 1 where some remain, and 2 for wrong usage.
"""
import argparse
import fnmatch
import json
import pathlib
import re
import sys
import time

import ads

# What names an element of a list; lists of others are compared in order, or sorted where their order means nothing.
NAMES = ("name", "cluster_name", "key")
UNORDERED = {"domains", "server_names", "application_protocols", "prefix_ranges", "source_prefix_ranges", "lb_endpoints", "endpoints"}
# Elements that are told apart by name, whatever their order.
KEYED = {"filter_chains", "virtual_hosts", "socket_options"}
SHOWN = 3
ABSENT = object()


def sort_key(value):
    return json.dumps(value, sort_keys=True)


def label(element):
    if isinstance(element, dict):
        for name in NAMES:
            if isinstance(element.get(name), str):
                return element[name]
        if "filter_chain_match" in element:
            return sort_key(element["filter_chain_match"])
    return None


def labelled(values):
    """By name; `None` where they have none, or two the same."""
    labels = [label(value) for value in values]
    return dict(zip(labels, values)) if all(labels) and len(set(labels)) == len(labels) else None


def differences(theirs, ours, path="", key=""):
    """Triples of path, theirs, ours; what one of the two lacks is told of once, by its top."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        yield from of_mappings(theirs, ours, path + "." if path else "", "")
    elif isinstance(theirs, list) and isinstance(ours, list):
        yield from of_lists(theirs, ours, path, key)
    elif theirs is not ours and theirs != ours:
        yield path, theirs, ours


def of_mappings(theirs, ours, before, after):
    for key in sorted(theirs.keys() | ours.keys()):
        yield from differences(theirs.get(key, ABSENT), ours.get(key, ABSENT), f"{before}{key}{after}", key)


def of_lists(theirs, ours, path, key):
    if key in UNORDERED:
        theirs, ours = sorted(theirs, key=sort_key), sorted(ours, key=sort_key)
    mine, other = labelled(ours), labelled(theirs)
    if mine is not None and other is not None:
        yield from of_mappings(other, mine, path + "[", "]")
        order = [name for name in other if name in mine]
        if key not in KEYED and order != [name for name in mine if name in other]:
            yield f"{path}.order", list(other), list(mine)
        return
    longest = max(len(theirs), len(ours))
    theirs, ours = theirs + [ABSENT] * (longest - len(theirs)), ours + [ABSENT] * (longest - len(ours))
    for index, (one, two) in enumerate(zip(theirs, ours)):
        yield from differences(one, two, f"{path}[{index}]")


def of_node(theirs, ours):
    for kind in ads.TYPES:
        names = theirs[kind].keys() | ours[kind].keys()
        for name in sorted(names):
            if name not in ours[kind]:
                yield kind, f"<{name}>", "there", ABSENT
            elif name not in theirs[kind]:
                yield kind, f"<{name}>", ABSENT, "there"
            else:
                for path, other, mine in differences(theirs[kind][name], ours[kind][name]):
                    yield kind, f"<{name}>.{path}", other, mine


def general(kind, path):
    """The path without the names in it, by which like differences are told together."""
    below = re.sub(r"^<[^>]*>\.", "", path)
    return kind + " " + re.sub(r"<[^>]*>", "<>", re.sub(r"\[[^\]]*\]", "[]", below))


def read_known(path):
    if not path:
        return []
    lines = [line for line in pathlib.Path(path).read_text().splitlines() if line and not line.startswith("#")]
    return [line.split("\t")[0].strip() for line in lines]


def is_known(patterns, text):
    escaped = text.replace("[", "(").replace("]", ")")
    return any(fnmatch.fnmatchcase(escaped, pattern.replace("[", "(").replace("]", ")")) for pattern in patterns)


def short(value):
    if value is ABSENT:
        return "-"
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 300 else text[:297] + "..."


def report(found):
    groups = {}
    for node, kind, path, other, mine in found:
        groups.setdefault(general(kind, path), []).append((node, path, other, mine))
    for name, members in sorted(groups.items(), key=lambda group: (group[0].split()[0], -len(group[1]), group[0])):
        print(f"\n{name}  ({len(members)})")
        for node, path, other, mine in members[:SHOWN]:
            print(f"  {node} {path}\n    theirs {short(other)}\n    ours   {short(mine)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("theirs")
    parser.add_argument("ours")
    parser.add_argument("nodes")
    parser.add_argument("--known")
    parser.add_argument("--dump")
    parser.add_argument("--patience", type=float, default=0)
    arguments = parser.parse_args()
    ads.load()
    patterns = read_known(arguments.known)
    end = time.monotonic() + arguments.patience
    found, known, compared = compare(arguments, patterns)
    while found and time.monotonic() < end:
        time.sleep(1)
        found, known, compared = compare(arguments, patterns)
    report(found)
    print(f"\n{compared} resources, {known} known differences, {len(found)} others")
    return 1 if found else 0


def compare(arguments, patterns):
    """Differences that are not known, the number of those that are, and of the resources."""
    found, known, compared = [], 0, 0
    for node in json.loads(pathlib.Path(arguments.nodes).read_text()):
        name = node["id"].split("~")[2]
        theirs, ours = ads.everything(arguments.theirs, node), ads.everything(arguments.ours, node)
        if arguments.dump:
            folder = pathlib.Path(arguments.dump)
            folder.mkdir(parents=True, exist_ok=True)
            for side, value in (("theirs", theirs), ("ours", ours)):
                (folder / f"{name}.{side}.json").write_text(json.dumps(value, indent=1, sort_keys=True))
        compared += sum(len(theirs[kind]) for kind in ads.TYPES)
        for kind, path, other, mine in of_node(theirs, ours):
            if is_known(patterns, f"{kind} {path}") or is_known(patterns, general(kind, path)):
                known += 1
            else:
                found.append((name, kind, path, other, mine))
    return found, known, compared


if __name__ == "__main__":
    sys.exit(main())
