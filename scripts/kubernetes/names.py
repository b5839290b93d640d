#!/usr/bin/env python3
"""Names of Services for the pods of a cluster of `cluster up`, which has no DNS: A records of their ClusterIPs, over UDP.

    names.py ADDRESS        asks kubectl; enough for tests, and no more
"""
import json
import socket
import struct
import subprocess
import sys
import time

KEEP_S = 2
A = 1
NO_SUCH_NAME = 3


class Names:
    def __init__(self):
        self.addresses, self.until = {}, 0.0

    def find(self, name):
        if time.monotonic() > self.until:
            listed = subprocess.run(["kubectl", "get", "services", "-A", "-o", "json"], capture_output=True, check=True)
            items = json.loads(listed.stdout)["items"]
            self.addresses = {
                f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.cluster.local": item["spec"]["clusterIP"]
                for item in items
            }
            self.until = time.monotonic() + KEEP_S
        return self.addresses.get(name)


def answer(query, names):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += query[at] + 1
    (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
    question, address = query[12 : at + 5], names.find(".".join(labels))
    found = address not in (None, "", "None") and kind == A
    code = 0 if address else NO_SUCH_NAME
    head = query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, int(found), 0, 0)
    record = struct.pack(">HHHIH", 0xC00C, A, 1, KEEP_S, 4) + socket.inet_aton(address) if found else b""
    return head + question + record


def main():
    server, names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), Names()
    server.bind((sys.argv[1], 53))
    while True:
        query, client = server.recvfrom(2048)
        try:
            server.sendto(answer(query, names), client)
        except (IndexError, struct.error, subprocess.CalledProcessError) as error:
            print(error, file=sys.stderr)


main()
