#!/usr/bin/env python3
"""Discovery over a real API server: what it holds at rest, and how replicas share a fleet of proxies.

    bench/kubernetes.py [--services N] [--pods N] [--program PATH]
    bench/kubernetes.py --proxies N [--replicas N] [--rounds N] [--age SECONDS] [--services N] [--pods N] [--program PATH] [--fleet PATH]

Starts a cluster by scripts/kubernetes/cluster and fills it with Services, EndpointSlices and pods as rich as those of a Deployment
(with a sidecar).

Without --proxies it lets discovery read the cluster empty, and says what its process holds then, once it is filled, and when it is
started anew. Nothing is connected to it.

With --proxies, simulated sidecars (`meltemi-bench --connect`) are connected to the replicas through a Service's address, which the
kernel leads to one of them at random for each connection, as kube-proxy does it. Objects change, and it is said when all proxies have
the change. Then a replica is killed (its address leads elsewhere 1 s later, as a readiness probe would have it), later started anew,
and it is said how long proxies are without a replica, and how they are spread. With --age, connections are given up at that age.
"""
import argparse
import atexit
import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import ssl
import statistics
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
        try:
            self.local.connection.request(method, path, body, {"content-type": kind, "user-agent": "bench"})
        except (OSError, http.client.HTTPException):  # closed, as it was idle: nothing was sent
            self.local.connection.close()
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
    namespaces = [f"load-{i}" for i in range(NAMESPACES)]
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


def start(program, kubeconfig, log, http_port=18080, more=("--grpcAddr", "", "--monitoringAddr", "")):
    arguments = ["discovery", "--kubeconfig", kubeconfig, "--secureGRPCAddr", "", "--httpsAddr", "", "--httpAddr", f"127.0.0.1:{http_port}", *more]
    process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    atexit.register(process.kill)
    while True:
        try:
            http.client.HTTPConnection("127.0.0.1", http_port).request("GET", "/ready")
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


NAMESPACES = 20
SERVICE = ("10.96.0.50", 15010)  # of discovery
NODE = "10.99.0.1"


class Replica:
    """A discovery of the Service."""

    def __init__(self, options, kubeconfig, number):
        self.port, self.monitoring, self.number = 15100 + number, 15200 + number, number
        log = open(pathlib.Path(kubeconfig).parent / f"replica-{number}.log", "a")
        self.process = start(options.program, kubeconfig, log, 15300 + number, (
            "--grpcAddr", f"{NODE}:{self.port}", "--monitoringAddr", f"127.0.0.1:{self.monitoring}", "--podName", f"replica-{number}",
            "--keepaliveMaxServerConnectionAge", f"{options.age}s"))

    def connected(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.monitoring)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return sum(int(float(value)) for value in re.findall(r"^pilot_xds(?:\{.*\})? (\S+)$", text, re.M))

    def cpu(self):
        """Seconds."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def lead_to(replicas):
    """A connection to the Service goes to one of these at random."""
    rules = ["*nat", ":BENCH -", "-F BENCH"]
    for left, replica in zip(range(len(replicas), 0, -1), replicas):
        chance = f"-m statistic --mode random --probability {1 / left:.6f}" if left > 1 else ""
        rules.append(f"-A BENCH -p tcp {chance} -j DNAT --to-destination {NODE}:{replica.port}")
    subprocess.run(["iptables-restore", "--noflush"], input="\n".join(rules + ["COMMIT", ""]), text=True, check=True)


class Fleet:
    """The simulated proxies."""

    def __init__(self, options):
        namespaces = ",".join(f"load-{i}" for i in range(NAMESPACES))
        self.process = subprocess.Popen(
            [options.fleet, "--connect", f"{SERVICE[0]}:{SERVICE[1]}", "--proxies", str(options.proxies), "--namespaces", namespaces],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit("the fleet ended")

    def reached(self, kind, name, change):
        """Milliseconds from the change until it was at half, at 99 of 100 and at all of the proxies, and how many these are."""
        self.process.stdin.write(f"wait {kind} {name}\n")
        self.process.stdin.flush()
        self.answer()
        began = time.time() * 1000
        change()
        arrived = [at - began for at in self.answer()["arrived_ms"]]
        share = lambda part: arrived[max(0, -(-len(arrived) * part // 100) - 1)]
        return share(50), share(99), share(100), len(arrived)


def changes(api):
    """Each kind of change: how it is known at a proxy, and how it is made the nth time."""
    host = "service-0.load-0.svc.cluster.local"
    slices = "/apis/discovery.k8s.io/v1/namespaces/load-0/endpointslices"
    routes = "/apis/networking.istio.io/v1/namespaces/load-0/virtualservices"
    route = lambda n: {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "changing"}, "spec": {
        "hosts": [host], "http": [{"timeout": f"{n + 1}s", "route": [{"destination": {"host": host}}]}]}}
    endpoint = lambda n: {"endpoints": [{"addresses": [f"10.99.{n}.9"], "conditions": {"ready": True}}]}

    def change_route(n):
        if n == 0:
            api.send("POST", routes, route(n))
        else:
            api.send("PATCH", f"{routes}/changing", route(n))

    def add_service(n):
        port = {"name": "http", "port": 80, "targetPort": 8080}
        api.send("POST", "/api/v1/namespaces/load-0/services", {"metadata": {"name": f"new-{n}"}, "spec": {"ports": [port]}})

    return [
        ("one endpoint", "ClusterLoadAssignment", lambda n: f"outbound|80||{host}", lambda n: api.send("PATCH", f"{slices}/service-0-1", endpoint(n))),
        ("one VirtualService", "RouteConfiguration", lambda n: "80", change_route),
        ("one new service", "Cluster", lambda n: f"outbound|80||new-{n}.load-0.svc.cluster.local", add_service),
    ]


def wait_for_all(replicas, proxies, limit=600):
    """Seconds until the replicas have so many proxies, and how many each has."""
    began = time.monotonic()
    while True:
        each = [replica.connected() for replica in replicas]
        if sum(each) >= proxies:
            return time.monotonic() - began, each
        if time.monotonic() - began > limit:
            sys.exit(f"of {proxies} proxies {each} are connected")
        time.sleep(0.1)


def spread(values):
    return f"{statistics.median(values):.0f} [{min(values):.0f}-{max(values):.0f}]"


def converge(options, replicas, fleet, kinds, first, state):
    for title, kind, name, change in kinds:
        taken, cpu, reached = [], [], set()
        for n in range(first, first + options.rounds):
            before = [replica.cpu() for replica in replicas]
            *times, count = fleet.reached(kind, name(n), lambda: change(n))
            taken.append(times)
            reached.add(count)
            cpu.append(sum(replica.cpu() for replica in replicas) * 1000 - sum(before) * 1000)
        p50, p99, last = (spread(values) for values in zip(*taken))
        counts = "-".join(str(count) for count in sorted({min(reached), max(reached)}))
        print(f"| {state} | {title} | {counts} | {p50} | {p99} | {last} | {spread(cpu)} |", flush=True)


def scale_out(options, kubeconfig, api):
    subprocess.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 65000"], check=False)
    subprocess.run(["ip", "route", "add", SERVICE[0], "dev", "lo", "src", NODE], check=True)
    subprocess.run(["iptables", "-t", "nat", "-N", "BENCH"], check=True)
    subprocess.run(["iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", SERVICE[0], "--dport", str(SERVICE[1]), "-j", "BENCH"], check=True)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    definitions = subprocess.run([options.program, "x", "crds"], capture_output=True, check=True).stdout
    subprocess.run(["kubectl", "apply", "--server-side", "-f", "-"], input=definitions, stdout=subprocess.DEVNULL, check=True)
    fill(api, options.services, options.pods)
    replicas = [Replica(options, kubeconfig, number) for number in range(options.replicas)]
    lead_to(replicas)
    fleet = Fleet(options)
    settled = fleet.answer()
    each = [replica.connected() for replica in replicas]
    print(f"{options.proxies} proxies at {options.replicas} replicas, {options.services} services, {options.pods} pods; "
          f"{settled['settled']} had their first configuration within {settled['last_ms'] / 1000:.1f} s; spread {each}")
    print("\n| replicas | change | proxies reached | p50 ms | p99 ms | last ms | CPU ms, all replicas |\n|---|---|---|---|---|---|---|")
    kinds = changes(api)
    converge(options, replicas, fleet, kinds, 0, options.replicas)
    usage = lambda: "; ".join(f"{resident(r.process)[1]:.0f} MiB ({resident(r.process)[0]:.0f}), {r.cpu():.1f} s" for r in replicas)
    print(f"\nanonymous MiB (RSS), CPU of each since its start: {usage()}")
    gone = replicas.pop(0)
    had = gone.connected()
    gone.process.kill()
    gone.process.wait()
    began = time.monotonic()
    time.sleep(1)
    lead_to(replicas)
    _, each = wait_for_all(replicas, options.proxies)
    print(f"a replica with {had} proxies killed: all are back after {time.monotonic() - began:.1f} s; spread {each}\n", flush=True)
    converge(options, replicas, fleet, kinds, options.rounds, len(replicas))
    print(f"\nanonymous MiB (RSS), CPU of each since its start: {usage()}")
    replicas.append(Replica(options, kubeconfig, gone.number))
    lead_to(replicas)
    print(f"a replica started anew; spread {[replica.connected() for replica in replicas]}")
    if options.age:
        began = time.monotonic()
        while time.monotonic() - began < 2.5 * options.age:
            time.sleep(options.age / 4)
            each = [replica.connected() for replica in replicas]
            print(f"after {time.monotonic() - began:.0f} s, connections living {options.age} s: spread {each}", flush=True)


def inside(options):
    """In the cluster's network."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with us
    kubeconfig = os.environ["KUBECONFIG"]
    api = Api(kubeconfig)
    api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "istio-system"}})
    if options.proxies:
        scale_out(options, kubeconfig, api)
        return
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
    parser.add_argument("--proxies", type=int, default=0)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--age", type=int, default=0, help="seconds that a connection lives; 0 is for ever")
    parser.add_argument("--fleet", default=str(ROOT / "target/release/meltemi-bench"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options)
        return
    # The pods' nodes do not exist: these would delete the pods amid a measurement.
    controllers = "*,-pod-garbage-collector-controller,-node-lifecycle-controller"
    environment = {**os.environ, "KUBE_NS": f"bench-{os.getpid()}", "KUBE_CONTROLLERS": controllers}
    cluster = lambda *arguments: subprocess.run([CLUSTER, *arguments], env=environment, check=True)
    cluster("up", "--api-only")
    try:
        options.program, options.fleet = os.path.abspath(options.program), os.path.abspath(options.fleet)
        given = [f"--{name}={value}" for name, value in vars(options).items() if name != "inside"]
        cluster("exec-netns", sys.executable, os.path.abspath(__file__), "--inside", *given)
    finally:
        cluster("down")


main()
