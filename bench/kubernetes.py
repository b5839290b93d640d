#!/usr/bin/env python3
"""Memory of an idle discovery over a real API server.

    bench/kubernetes.py [--services N] [--pods N] [--program PATH]

Starts a cluster by scripts/kubernetes/cluster, lets discovery read it empty, fills it with Services, EndpointSlices and pods as
rich as those of a Deployment (with a sidecar), and reads what discovery's process holds then. Nothing is connected to it.
"""
import argparse
import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "scripts/kubernetes/cluster"
WRITERS = 16
QUIET = 5  # seconds without a change before memory is read


class Api:
    """A keep-alive connection of each thread to the API server."""

    def __init__(self, kubeconfig):
        text = pathlib.Path(kubeconfig).read_text()
        field = lambda name: base64.b64decode(re.search(rf"{name}: (\S+)", text).group(1))
        self.host, self.port = re.search(r"server: https://([^:]+):(\d+)", text).groups()
        self.context = ssl.create_default_context(cadata=field("certificate-authority-data").decode())
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(field("client-certificate-data") + field("client-key-data"))
            pair.flush()
            self.context.load_cert_chain(pair.name)
        self.local = threading.local()

    def send(self, method, path, document):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPSConnection(self.host, int(self.port), context=self.context)
        body, kind = json.dumps(document), "application/json"
        if method == "PATCH":
            kind = "application/merge-patch+json"
        self.local.connection.request(method, path, body, {"content-type": kind, "user-agent": "bench"})
        answer = self.local.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {content[:300]}")


def container(name, ports):
    env = [{"name": f"SETTING_{i}", "value": f"value-of-setting-{i}"} for i in range(20)]
    mounts = [{"name": "data", "mountPath": "/data"}]
    probe = {"httpGet": {"path": "/healthz", "port": 15021}, "periodSeconds": 10}
    resources = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}
    return {"name": name, "image": f"registry.test/{name}:1.2.3", "env": env, "ports": ports, "volumeMounts": mounts,
            "readinessProbe": probe, "resources": resources}


def pod(namespace, service, number, address):
    labels = {"app": service, "version": "v1", "pod-template-hash": "5d4f8c7b9", "security.istio.io/tlsMode": "istio",
              "service.istio.io/canonical-name": service, "service.istio.io/canonical-revision": "v1"}
    annotations = {"sidecar.istio.io/status": json.dumps({"containers": ["istio-proxy"], "volumes": ["istio-data"] * 8}),
                   "kubectl.kubernetes.io/default-container": "app", "prometheus.io/path": "/stats/prometheus"}
    spec = {"nodeName": f"node-{number % 50}", "serviceAccountName": "default", "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [container("app", [{"name": "http", "containerPort": 8080}]),
                           container("istio-proxy", [{"name": "http-envoy-prom", "containerPort": 15090}])]}
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": "2026-01-01T00:00:00Z",
              "conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                             for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")]}
    metadata = {"name": f"{service}-5d4f8c7b9-{number:05}", "namespace": namespace, "labels": labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, status


def fill(api, services, pods):
    namespaces = [f"load-{i}" for i in range(20)]
    for name in namespaces:
        api.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        account = {"metadata": {"name": "default", "namespace": name}}
        try:
            api.send("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
        except SystemExit:
            pass  # the controller was first
    each = max(1, pods // services)

    def one(index):
        namespace, service = namespaces[index % len(namespaces)], f"service-{index}"
        port = {"name": "http", "port": 80, "targetPort": 8080}
        api.send("POST", f"/api/v1/namespaces/{namespace}/services",
                 {"metadata": {"name": service}, "spec": {"ports": [port]}})
        endpoints = []
        for number in range(index * each, (index + 1) * each):
            address = f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"
            document, status = pod(namespace, service, number, address)
            path = f"/api/v1/namespaces/{namespace}/pods"
            api.send("POST", path, document)
            name = document["metadata"]["name"]
            api.send("PATCH", f"{path}/{name}/status", {"status": status})
            endpoints.append({"addresses": [address], "conditions": {"ready": True, "serving": True},
                              "nodeName": f"node-{number % 50}", "targetRef": {"kind": "Pod", "name": name, "namespace": namespace}})
        labels = {"kubernetes.io/service-name": service}
        api.send("POST", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
                 {"metadata": {"name": f"{service}-1", "labels": labels}, "addressType": "IPv4", "endpoints": endpoints,
                  "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})

    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(one, range(services)))


def start(program, kubeconfig, log):
    arguments = ["discovery", "--kubeconfig", kubeconfig, "--grpcAddr", "", "--secureGRPCAddr", "", "--monitoringAddr", "", "--httpsAddr", "",
                 "--httpAddr", "127.0.0.1:18080"]
    process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    while True:
        try:
            http.client.HTTPConnection("127.0.0.1", 18080).request("GET", "/ready")
            return process
        except OSError:
            if process.poll() is not None:
                sys.exit(f"discovery ended; see {log.name}")
            time.sleep(0.1)


def resident(process):
    """MiB: all of it, and what is its own."""
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    kib = lambda name: int(re.search(rf"{name}:\s+(\d+)", text).group(1))
    return kib("VmRSS") / 1024, kib("RssAnon") / 1024


def inside(options):
    """In the cluster's network."""
    kubeconfig = os.environ["KUBECONFIG"]
    api = Api(kubeconfig)
    api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "istio-system"}})
    with open(pathlib.Path(kubeconfig).parent / "bench.log", "w") as log:
        watching = start(options.program, kubeconfig, log)
        time.sleep(QUIET)
        before = resident(watching)
        began = time.monotonic()
        fill(api, options.services, options.pods)
        wrote = time.monotonic() - began
        time.sleep(QUIET)
        grown = resident(watching)
        watching.terminate()
        watching.wait()
        began = time.monotonic()
        listing = start(options.program, kubeconfig, log)
        listed = time.monotonic() - began
        time.sleep(QUIET)
        fresh = resident(listing)
        listing.terminate()
        listing.wait()
    print(f"{options.services} services, {options.pods} pods, written in {wrote:.0f} s; MiB resident (of it anonymous)")
    print(f"an empty cluster                {before[0]:6.1f} ({before[1]:.1f})")
    print(f"after it was filled             {grown[0]:6.1f} ({grown[1]:.1f})")
    print(f"started anew, ready in {listed:4.1f} s   {fresh[0]:6.1f} ({fresh[1]:.1f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--program", default=str(ROOT / "target/release/meltemi"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options)
        return
    environment = {**os.environ, "KUBE_NS": f"bench-{os.getpid()}"}
    cluster = lambda *arguments: subprocess.run([CLUSTER, *arguments], env=environment, check=True)
    cluster("up", "--api-only")
    try:
        cluster("exec-netns", sys.executable, __file__, "--inside", "--services", str(options.services), "--pods",
                str(options.pods), "--program", os.path.abspath(options.program))
    finally:
        cluster("down")


main()
