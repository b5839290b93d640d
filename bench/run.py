#!/usr/bin/env python3
"""Compares `meltemi proxy` with Envoy, nginx and HAProxy on one machine, the same Envoy configuration given to Envoy and to us.

Each peer runs with one worker pinned to CPU 1; load generator and backend share CPU 0. A round measures every peer once, in
turn; figures are medians over the rounds, ratios are taken round by round. CPU is the scheduler's own account of the
process (/proc/PID/task/*/schedstat), which other load on the machine disturbs far less than it does requests per second.

  bench/run.py                      every case, 3 rounds of 4 s
  bench/run.py h1 grpc --rounds 5   two cases
  bench/run.py h1 hosts routes ring maglev   what large tables cost
  bench/run.py memory               memory at rest and with 1,000 and 5,000 clusters, from a file and over ADS
"""
import argparse
import atexit
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WORK = tempfile.mkdtemp(prefix="meltemi-bench-")
ACCESS_LOG = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
TYPE = "type.googleapis.com/"
running = []


def tool(name, *candidates):
    for candidate in (name, *candidates):
        path = shutil.which(os.path.expanduser(candidate))
        if path:
            return path
    return None


def cache():
    return os.environ.get("MELTEMI_CACHE", os.path.expanduser("~/.cache/meltemi"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def write(name, text):
    path = os.path.join(WORK, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def start(command, cpu, log):
    out = open(os.path.join(WORK, log), "ab")
    process = subprocess.Popen(["taskset", "-c", str(cpu), *command], stdout=out, stderr=out, cwd=WORK)
    running.append(process)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    running.remove(process)


@atexit.register
def cleanup():
    for process in list(running):
        process.kill()
        process.wait()
    shutil.rmtree(WORK, ignore_errors=True)


def wait_port(port, process, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        if process.poll() is not None:
            return False
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def children(pid):
    found = [pid]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found += children(int(entry))
            except (OSError, IndexError):
                pass
    return found


def cpu_ns(pid):
    total = 0
    for each in children(pid):
        for task in os.listdir(f"/proc/{each}/task"):
            with open(f"/proc/{each}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
    return total


def memory_kib(pid):
    rss = anon = 0
    for each in children(pid):
        with open(f"/proc/{each}/smaps_rollup") as f:
            text = f.read()
        rss += int(re.search(r"^Rss:\s+(\d+)", text, re.M).group(1))
        anon += int(re.search(r"^Anonymous:\s+(\d+)", text, re.M).group(1))
    return rss, anon


# --- configurations -------------------------------------------------------------------------------------------------


def address(port, host="127.0.0.1"):
    return {"socket_address": {"address": host, "port_value": port}}


def typed(name, url, **fields):
    return {"name": name, "typed_config": {"@type": TYPE + url, **fields}}


def access_log():
    return [
        typed(
            "envoy.access_loggers.file",
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            path="/dev/null",
            log_format={"text_format_source": {"inline_string": ACCESS_LOG}},
        )
    ]


def http_protocol(http2):
    explicit = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    url = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {url: {"@type": TYPE + url, "explicit_http_config": explicit}}


def cluster(name, port, http2=False, tls=None, endpoints=None, policy="LEAST_REQUEST"):
    ends = endpoints or [("127.0.0.1", port)]
    made = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": policy,
        "typed_extension_protocol_options": http_protocol(http2),
        "circuit_breakers": {
            "thresholds": [
                {k: 4294967295 for k in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}
            ]
        },
        "outlier_detection": {"consecutive_5xx": 5, "interval": "10s"},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(p, h)}} for h, p in ends]}],
        },
    }
    if tls:
        made["transport_socket"] = tls
    return made


def tls_context(direction, alpn):
    common = {
        "tls_certificates": [
            {"certificate_chain": {"filename": WORK + "/cert.pem"}, "private_key": {"filename": WORK + "/key.pem"}}
        ],
        "validation_context": {"trusted_ca": {"filename": WORK + "/ca.pem"}},
        "alpn_protocols": alpn,
    }
    fields = {"common_tls_context": common}
    if direction == "Downstream":
        fields["require_client_certificate"] = True
    return typed(
        "envoy.transport_sockets.tls", f"envoy.extensions.transport_sockets.tls.v3.{direction}TlsContext", **fields
    )


def http_manager(target, hosts=200, routes=1, hashed=False):
    """Virtual hosts of so many routes each, of which the bench's requests take the last."""
    route = {
        "match": {"prefix": "/"},
        "name": "default",
        "decorator": {"operation": "backend.default.svc.cluster.local:80/*"},
        "route": {
            "cluster": target,
            "timeout": "0s",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                "num_retries": 2,
                "retry_host_predicate": [
                    typed(
                        "envoy.retry_host_predicates.previous_hosts",
                        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                    )
                ],
                "host_selection_retry_max_attempts": "5",
            },
        },
    }
    if hashed:
        route["route"]["hash_policy"] = [{"header": {"header_name": ":authority"}}]
    table = [{**route, "name": f"route-{i}", "match": {"prefix": f"/api/resource-{i}/"}} for i in range(routes - 1)] + [route]
    vhosts = [
        {"name": f"svc-{i}", "domains": [f"svc-{i}.default.svc.cluster.local", f"svc-{i}"], "routes": [route]}
        for i in range(hosts)
    ]
    vhosts.append({"name": "any", "domains": ["*"], "routes": table})
    filters = [
        typed("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault"),
        typed("envoy.filters.http.cors", "envoy.extensions.filters.http.cors.v3.Cors"),
        typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
    ]
    return typed(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="bench",
        server_name="istio-envoy",
        normalize_path=True,
        use_remote_address=False,
        route_config={"name": "80", "virtual_hosts": vhosts},
        http_filters=filters,
        access_log=access_log(),
    )


def tcp_proxy(target):
    return typed(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix="bench",
        cluster=target,
        access_log=access_log(),
    )


def loopback_hosts(count):
    """So many addresses of this machine, to listen on each."""
    return [f"127.1.{i >> 8}.{i & 255}" for i in range(1, count + 1)]


def table_config(case, port, backend):
    """The configuration of one of TABLE_CASES."""
    if case in ("ring", "maglev"):
        policy = {"ring": "RING_HASH", "maglev": "MAGLEV"}[case]
        ends = [(host, backend) for host in loopback_hosts(ENDPOINTS)]
        return bootstrap(port, http_manager("b", hashed=True), [cluster("b", backend, endpoints=ends, policy=policy)])
    manager = http_manager("b", hosts=HOSTS) if case == "hosts" else http_manager("b", hosts=0, routes=ROUTES)
    return bootstrap(port, manager, [cluster("b", backend)])


def bootstrap(port, network_filter, clusters, tls=None):
    chain = {"filters": [network_filter]}
    if tls:
        chain["transport_socket"] = tls
    listener = {"name": "bench", "address": address(port), "filter_chains": [chain]}
    admin = {"address": address(free_port())}
    return {"admin": admin, "static_resources": {"listeners": [listener], "clusters": clusters}}


def nginx_config(port, backend, case):
    upstream = f"upstream b {{ server 127.0.0.1:{backend}; keepalive 256; }}"
    if case == "tcp":
        modules = "load_module modules/ngx_stream_module.so;" if os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so") else ""
        return f"""{modules}daemon off; worker_processes 1; error_log /dev/null; pid {WORK}/nginx-{port}.pid;
events {{ worker_connections 4096; }} stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{backend}; }} }}"""
    body = (
        "location / { grpc_pass grpc://b; }"
        if case == "grpc"
        else 'location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; }'
    )
    h2 = " http2" if case == "grpc" else ""
    return f"""daemon off; worker_processes 1; error_log /dev/null; pid {WORK}/nginx-{port}.pid;
events {{ worker_connections 4096; }} http {{ access_log off; keepalive_requests 10000000; {upstream}
server {{ listen 127.0.0.1:{port}{h2}; {body} }} }}"""


def backend_config(port, hosts=("127.0.0.1",)):
    body = "x" * 1024
    listen = " ".join(f"listen {host}:{port};" for host in hosts)
    return f"""daemon off; worker_processes 1; error_log /dev/null; pid {WORK}/backend-{port}.pid;
events {{ worker_connections {4096 + len(hosts)}; }} http {{ access_log off; keepalive_requests 100000000;
server {{ {listen} location / {{ return 200 "{body}"; }} }} }}"""


def haproxy_config(port, backend, case):
    """HAProxy as it comes: no log, one backend, no header of its own."""
    proto = " proto h2" if case == "grpc" else ""
    mode = "tcp" if case == "tcp" else "http"
    return f"""global
  nbthread 1
  maxconn 8192
defaults
  mode {mode}
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{port}{proto}
  default_backend b
backend b
  server s 127.0.0.1:{backend}{proto}
"""


DUTIES = "haproxy (same duties)"
# What the proxies log, in HAProxy's terms.
HAPROXY_LOG = (
    '[%tr] "%HM %HU %HV" %ST %tsc "%[capture.req.hdr(0)]" %U %B %Ta %Tr "%[capture.req.hdr(1)]" "%[capture.req.hdr(2)]" '
    '"%ID" "%[capture.req.hdr(3)]" "%si:%sp" %b %bi:%bp %fi:%fp %ci:%cp %s'
)


def haproxy_duties_config(port, backend, case):
    """HAProxy doing what the Envoy configuration asks of the others, as far as it can: an access log of the same fields (into a
    ring in memory: no system call), a map of 200 services, path normalisation, a request id, the same added headers, retries,
    least requests, passive health. It has no CORS or fault filter to look at."""
    proto = " proto h2" if case == "grpc" else ""
    hosts = "".join(f"svc-{i}.default.svc.cluster.local b\nsvc-{i} b\n" for i in range(200))
    services = write(f"haproxy-{port}.map", hosts)
    return f"""global
  nbthread 1
  maxconn 8192
  expose-experimental-directives
ring accesslog
  format raw
  maxlen 2048
  size 262144
defaults
  mode http
  log ring@accesslog local0
  log-format '{HAPROXY_LOG}'
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  retries 2
  option redispatch
frontend f
  bind 127.0.0.1:{port}{proto}
  declare capture request len 64
  declare capture request len 64
  declare capture request len 64
  declare capture request len 64
  http-request normalize-uri path-strip-dot
  http-request normalize-uri path-strip-dotdot
  http-request capture hdr(x-forwarded-for) id 1
  http-request capture hdr(user-agent) id 2
  http-request capture hdr(host) id 3
  unique-id-format %[uuid()]
  unique-id-header x-request-id
  http-request set-header x-forwarded-proto http
  use_backend %[req.hdr(host),lower,map_str({services},b)]
backend b
  balance leastconn
  http-response set-header server istio-envoy
  http-response set-header x-envoy-upstream-service-time %Tr
  server s 127.0.0.1:{backend}{proto} check inter 10s observe layer7 error-limit 5 on-error mark-down
"""


def certificates():
    if os.path.exists(WORK + "/cert.pem"):
        return
    run = lambda *a: subprocess.run(["openssl", *a], check=True, cwd=WORK, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/O=bench", "-days", "2")
    run("req", *ec, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=bench")
    write("ext", "subjectAltName=URI:spiffe://cluster.local/ns/default/sa/bench\n")
    run("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem", "-days", "2", "-extfile", "ext")


# --- peers ----------------------------------------------------------------------------------------------------------


class Peer:
    def __init__(self, name, command):
        self.name, self.command = name, command


def proxies(meltemi, wanted):
    """Those that run an Envoy configuration."""
    envoy = tool("envoy", cache() + "/venv/bin/envoy", *os.environ.get("ENVOY", "").split())
    found = []
    if envoy:
        found.append(Peer("envoy", lambda c: [envoy, "-c", c, "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]))
    found.append(Peer("meltemi", lambda c: [meltemi, "proxy", "-c", c, "--concurrency", "1", "--log-level", "error"]))
    return [p for p in found if p.name in wanted]


def launch(case, peer, meltemi, backend):
    """Starts a peer for a case; gives its processes and its port."""
    port = free_port()
    if peer.name in ("envoy", "meltemi"):
        http2 = case in ("grpc", "mtls-h2")
        if case.startswith("mtls"):
            certificates()
            second = free_port()
            inner = ["h2"] if http2 else ["http/1.1"]
            a = bootstrap(port, http_manager("b"), [cluster("b", second, http2, tls_context("Upstream", inner))])
            b = bootstrap(second, http_manager("b"), [cluster("b", backend)], tls_context("Downstream", inner))
            configs = [(second, b), (port, a)]
        elif case == "tcp":
            configs = [(port, bootstrap(port, tcp_proxy("b"), [cluster("b", backend)]))]
        elif case == "chain":
            second = free_port()
            a = bootstrap(port, http_manager("b"), [cluster("b", second)])
            b = bootstrap(second, http_manager("b"), [cluster("b", backend)])
            configs = [(second, b), (port, a)]
        elif case in TABLE_CASES:
            configs = [(port, table_config(case, port, backend))]
        else:
            configs = [(port, bootstrap(port, http_manager("b"), [cluster("b", backend, http2)]))]
        processes = []
        for number, config in configs:
            path = write(f"{peer.name}-{number}.json", json.dumps(config))
            process = start(peer.command(path), 1, f"{peer.name}.log")
            processes.append(process)
            if not wait_port(number, process, 60):
                raise RuntimeError(f"{peer.name} did not start: see its output\n" + open(f"{WORK}/{peer.name}.log").read()[-2000:])
        return processes, port
    config = {"nginx": nginx_config, "haproxy": haproxy_config, DUTIES: haproxy_duties_config}[peer.name]
    path = write(f"{peer.name.split()[0]}-{port}.conf", config(port, backend, case))
    process = start(peer.command(path), 1, f"{peer.name}.log")
    if not wait_port(port, process):
        raise RuntimeError(f"{peer.name} did not start\n" + open(f"{WORK}/{peer.name}.log").read()[-2000:])
    return [process], port


def load(case, port, seconds, connections=64):
    """Runs the load; gives requests done, requests that failed, seconds, p50 and p99 in microseconds."""
    if case == "grpc":
        command = ["h2load", "-c16", "-m32", "-t1", f"-D{seconds}", "-d", WORK + "/message", "-H", "te: trailers",
                   "-H", "content-type: application/grpc", f"http://127.0.0.1:{port}/echo.Echo/Echo"]
        out = subprocess.run(["taskset", "-c", "0", *command], capture_output=True, text=True, check=True).stdout
        done = re.search(r"requests: (\d+) total.*?(\d+) succeeded, (\d+) failed", out)
        total, failed = int(done.group(2)), int(done.group(3))
        mean = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", out)
        return total, failed, seconds, micros(mean.group(1)) if mean else 0, 0
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"]
    if case == "hosts":
        command += ["-H", f"Host: svc-{HOSTS - 1}"]
    out = subprocess.run(["taskset", "-c", "0", *command], capture_output=True, text=True, check=True).stdout
    total, took = re.search(r"(\d+) requests in ([\d.]+)s", out).groups()
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    bad += sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", out))
    quantile = lambda q: micros(re.search(rf"^\s+{q}%\s+(\S+)", out, re.M).group(1))
    return int(total), bad, float(took), quantile(50), quantile(99)


def micros(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


# --- cases ----------------------------------------------------------------------------------------------------------

HOSTS, ROUTES, ENDPOINTS = 5000, 1000, 10000
# h1 with a large table.
TABLE_CASES = {
    "hosts": f"HTTP/1.1 with {HOSTS:,} virtual hosts",
    "routes": f"HTTP/1.1 with {ROUTES:,} routes in the virtual host, the last of which is taken",
    "ring": f"HTTP/1.1 with a ring hash over {ENDPOINTS:,} endpoints",
    "maglev": f"HTTP/1.1 with a Maglev table over {ENDPOINTS:,} endpoints",
}
LOAD_CASES = {
    "h1": "HTTP/1.1, 1 KiB body, 64 connections, one sidecar",
    "chain": "HTTP/1.1 through two sidecars, plain text between them",
    "grpc": "gRPC-shaped HTTP/2, 100 B messages, 16 connections × 32 streams",
    "tcp": "TCP proxy under the same HTTP load",
    "mtls-h1": "pair with mTLS, HTTP/1.1 inside",
    "mtls-h2": "pair with mTLS, HTTP/2 inside",
    **TABLE_CASES,
}


def peers_for(case, meltemi, wanted):
    found = proxies(meltemi, wanted)
    if case in ("h1", "grpc", "tcp"):
        haproxy, nginx = lambda c: ["haproxy", "-f", c], lambda c: ["nginx", "-p", WORK, "-c", c]
        for name, flags in (("haproxy", haproxy), (DUTIES, haproxy), ("nginx", nginx)):
            program = name.split()[0]
            if program in wanted and tool(program, "/usr/sbin/" + program):
                if name == "nginx" and case == "tcp" and not os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so"):
                    continue
                if name == DUTIES and case == "tcp":
                    continue
                found.append(Peer(name, flags))
    return found


def start_backend(case, meltemi):
    port = free_port()
    if case == "grpc":
        process = start([meltemi, "echo", "--http", str(port), "--address", "127.0.0.1", "--log-level", "error"], 0, "backend.log")
    else:
        hosts = ["127.0.0.1", *loopback_hosts(ENDPOINTS if case in ("ring", "maglev") else 0)]
        process = start(["nginx", "-p", WORK, "-c", write(f"backend-{port}.conf", backend_config(port, hosts))], 0, "backend.log")
    if not wait_port(port, process):
        raise RuntimeError("the backend did not start\n" + open(WORK + "/backend.log").read()[-2000:])
    return process, port


def run_case(case, args):
    peers = peers_for(case, args.meltemi, args.peers)
    backend, backend_port = start_backend(case, args.meltemi)
    started = {peer.name: launch(case, peer, args.meltemi, backend_port) for peer in peers}
    samples = {peer.name: [] for peer in peers}
    for peer in peers:
        load(case, started[peer.name][1], 1)
    for _ in range(args.rounds):
        for peer in peers:
            processes, port = started[peer.name]
            before = sum(cpu_ns(p.pid) for p in processes)
            total, failed, took, p50, p99 = load(case, port, args.seconds)
            spent = sum(cpu_ns(p.pid) for p in processes) - before
            rss = sum(memory_kib(p.pid)[0] for p in processes) / 1024
            samples[peer.name].append((spent / 1e3 / max(total, 1), total / took, p50, p99, rss, failed))
    for processes, _ in started.values():
        for process in processes:
            stop(process)
    stop(backend)
    report(case, samples)
    return samples


def spread(values, form="{:.1f}"):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{form.format(middle)} [{form.format(low)}-{form.format(high)}]"


def report(case, samples):
    print(f"\n### {case}: {LOAD_CASES[case]}\n")
    print("| proxy | CPU µs/request | CPU ratio to Meltemi, round by round | requests/s | p50 µs | p99 µs | RSS MiB | failed |")
    print("|---|---|---|---|---|---|---|---|")
    ours = samples.get("meltemi")
    for name, rows in samples.items():
        ratio = spread([r[0] / o[0] for r, o in zip(rows, ours)], "{:.2f}") if ours else "-"
        p50, p99 = statistics.median(r[2] for r in rows), statistics.median(r[3] for r in rows)
        print(
            f"| {name} | {spread([r[0] for r in rows])} | {ratio} | {spread([r[1] for r in rows], '{:.0f}')} | {p50:.0f} | "
            f"{p99 or float('nan'):.0f} | {max(r[4] for r in rows):.1f} | {sum(r[5] for r in rows)} |"
        )
    sys.stdout.flush()


def many_clusters(count, port):
    clusters = [
        cluster(f"outbound|80||svc-{i}.default.svc.cluster.local", 0, endpoints=[(f"10.{i >> 8 & 255}.{i & 255}.1", 8080), (f"10.{i >> 8 & 255}.{i & 255}.2", 8080)])
        for i in range(count)
    ]
    manager = http_manager(clusters[0]["name"] if clusters else "none", max(count, 1))
    for i, vhost in enumerate(manager["typed_config"]["route_config"]["virtual_hosts"][:count]):
        vhost["routes"] = [json.loads(json.dumps(vhost["routes"][0]))]
        vhost["routes"][0]["route"]["cluster"] = clusters[i]["name"]
    if not clusters:
        manager["typed_config"]["route_config"]["virtual_hosts"] = []
    return bootstrap(port, manager, clusters)


def over_ads(static, control_plane):
    """The same listener, routes and clusters as resources of an ADS server, and the bootstrap that subscribes to them."""
    statics = static["static_resources"]
    (listener,) = statics["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    ads = {"ads": {}, "resource_api_version": "V3"}
    routes = {"@type": TYPE + "envoy.config.route.v3.RouteConfiguration", **manager.pop("route_config")}
    manager["rds"] = {"route_config_name": routes["name"], "config_source": ads}
    resources = [routes, {"@type": TYPE + "envoy.config.listener.v3.Listener", **listener}]
    for each in statics["clusters"]:
        assignment = each.pop("load_assignment")
        each.update(type="EDS", eds_cluster_config={"eds_config": ads})
        resources.append({"@type": TYPE + "envoy.config.cluster.v3.Cluster", **each})
        resources.append({"@type": TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment", **assignment})
    service = {"envoy_grpc": {"cluster_name": "control-plane"}}
    boot = {
        "admin": static["admin"],
        "node": {"id": "bench", "cluster": "bench"},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [service]},
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [cluster("control-plane", control_plane, http2=True)]},
    }
    return boot, resources


def start_ads(resources):
    """A foreign ADS server of PyPI's grpcio and xds-protos; none where they are not installed."""
    python = cache() + "/venv/bin/python"
    if not os.path.exists(python):
        return None, 0
    port = free_port()
    peers = ROOT + "/crates/meltemi/tests/e2e/peers/peers.py"
    file = write(f"resources-{port}.json", json.dumps(resources))
    process = start([python, peers, "ads-server", str(port), file], 0, "ads.log")
    if not wait_port(port, process, 120):
        raise RuntimeError("the ADS server did not start\n" + open(WORK + "/ads.log").read()[-2000:])
    return process, port


def settled(pid):
    """Waits until the process has come to rest, and a moment more."""
    spent, still = cpu_ns(pid), 0
    while still < 4:
        time.sleep(0.5)
        now = cpu_ns(pid)
        still = still + 1 if now - spent < 10e6 else 0
        spent = now


def run_memory(args):
    print("\n### memory: RSS and anonymous MiB, and CPU to load\n")
    print("| proxy | clusters | from | RSS MiB | anonymous MiB | CPU s |\n|---|---|---|---|---|---|")
    for source in ("file", "ADS"):
        for count in (0, 1000, 5000):
            for peer in proxies(args.meltemi, args.peers):
                memory_of(peer, source, count)


def memory_of(peer, source, count):
    port = free_port()
    boot, server = many_clusters(count, port), None
    if source == "ADS":
        # The bootstrap must name the server's port, which is known once it runs; the resources do not.
        _, resources = over_ads(many_clusters(count, port), 1)
        server, control_plane = start_ads(resources)
        if server is None:
            return print(f"| {peer.name} | {count} | skipped: no xds-protos; scripts/install-test-deps.sh installs it |")
        boot, _ = over_ads(boot, control_plane)
    path = write(f"{peer.name}-memory-{source}-{count}.json", json.dumps(boot))
    process = start(peer.command(path), 1, f"{peer.name}.log")
    if not wait_port(port, process, 120):
        raise RuntimeError(f"{peer.name} did not start\n" + open(f"{WORK}/{peer.name}.log").read()[-2000:])
    settled(process.pid)
    rss, anon = memory_kib(process.pid)
    print(f"| {peer.name} | {count} | {source} | {rss / 1024:.1f} | {anon / 1024:.1f} | {cpu_ns(process.pid) / 1e9:.2f} |")
    sys.stdout.flush()
    for each in filter(None, (process, server)):
        stop(each)


def run_idle(args):
    connections = 4000
    print(f"\n### idle: anonymous KiB for each of {connections} idle keep-alive connections\n\n| proxy | KiB/connection |\n|---|---|")
    backend, backend_port = start_backend("h1", args.meltemi)
    for peer in proxies(args.meltemi, args.peers):
        (process,), port = launch("h1", peer, args.meltemi, backend_port)
        load("h1", port, 1)
        time.sleep(1)
        before = memory_kib(process.pid)[1]
        held = []
        for _ in range(connections):
            s = socket.create_connection(("127.0.0.1", port))
            s.sendall(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
            got = b""
            while len(got) < 1024 or b"\r\n\r\n" not in got:
                got += s.recv(65536)
            held.append(s)
        time.sleep(2)
        print(f"| {peer.name} | {(memory_kib(process.pid)[1] - before) / connections:.1f} |")
        sys.stdout.flush()
        for s in held:
            s.close()
        stop(process)
    stop(backend)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"{', '.join(LOAD_CASES)}, memory, idle; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--peers", default="meltemi,envoy,haproxy,nginx", type=lambda t: t.split(","))
    parser.add_argument("--meltemi", default=os.environ.get("MELTEMI", ROOT + "/target/release/meltemi"))
    args = parser.parse_args()
    unknown = set(args.cases) - set(LOAD_CASES) - {"memory", "idle"}
    if unknown:
        parser.error("unknown case: " + ", ".join(sorted(unknown)))
    if not os.path.exists(args.meltemi):
        parser.error(f"{args.meltemi} is not there: run `cargo build --release`, or name the binary with --meltemi")
    for name in ("wrk", "h2load", "nginx", "openssl", "taskset"):
        if not tool(name, "/usr/sbin/" + name):
            parser.error(f"{name} is missing: scripts/install-test-deps.sh installs wrk and h2load; nginx (the backend) and openssl are Debian's")
    for name in args.peers:
        if name != "meltemi" and not tool(name, "/usr/sbin/" + name, cache() + "/venv/bin/" + name):
            print(f"left out: {name} is not installed")
    if os.cpu_count() < 2:
        parser.error("two CPUs are needed: one for the load, one for the proxy")
    os.environ["PATH"] += ":/usr/sbin"
    # Five bytes of gRPC framing and a message of 95.
    with open(WORK + "/message", "wb") as f:
        f.write(b"\0\0\0\0\x5f" + b"x" * 95)
    chosen = args.cases or [*LOAD_CASES, "memory", "idle"]
    for case in chosen:
        if case == "memory":
            run_memory(args)
        elif case == "idle":
            run_idle(args)
        else:
            run_case(case, args)


if __name__ == "__main__":
    main()
