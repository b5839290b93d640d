#!/usr/bin/env python3
"""A load balancer for the Services of a cluster of `cluster up`, which has none: each Service of type LoadBalancer gets an address of
its own, to which kube-proxy then leads.

    balancer.py FIRST URL   FIRST is the first address; URL is where `kubectl proxy` answers
"""
import ipaddress
import json
import sys
import time
import urllib.request

PAUSE_S = 1


def ask(url, method="GET", body=None):
    headers = {"Content-Type": "application/merge-patch+json"} if body else {}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers, method=method)
    return urllib.request.urlopen(request, timeout=330)


class Balancer:
    def __init__(self, first, server):
        self.next, self.server, self.given = ipaddress.ip_address(first), server, {}

    def see(self, service):
        spec, meta = service["spec"], service["metadata"]
        if spec.get("type") != "LoadBalancer" or service["status"].get("loadBalancer", {}).get("ingress"):
            return
        wanted = spec.get("loadBalancerIP")
        if not wanted and meta["uid"] not in self.given:
            self.given[meta["uid"]], self.next = str(self.next), self.next + 1
        address = wanted or self.given[meta["uid"]]
        url = f"{self.server}/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}/status"
        ask(url, "PATCH", {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}).read()
        print(f"{meta['namespace']}/{meta['name']}: {address}", flush=True)

    def follow(self):
        listed = json.load(ask(f"{self.server}/api/v1/services"))
        for service in listed["items"]:
            self.see(service)
        version = listed["metadata"]["resourceVersion"]
        with ask(f"{self.server}/api/v1/services?watch=true&timeoutSeconds=300&resourceVersion={version}") as events:
            for line in events:
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    self.see(event["object"])


def main():
    balancer = Balancer(sys.argv[1], sys.argv[2])
    while True:
        try:
            balancer.follow()
        except (OSError, KeyError, ValueError) as error:
            print(error, file=sys.stderr, flush=True)
        time.sleep(PAUSE_S)


main()
