#!/usr/bin/env python3
"""What a ResiliencePolicy does for the clients of five endpoints, of which one is slow and one flaps.

The slow endpoint takes 50 ms longer than the others; the flapping one answers 503 in every other second. The proxy has what a
ResiliencePolicy makes of its routes and of its cluster, or Istio's defaults. With anomalyDetection half of the endpoints may be
ejected. Rounds go through all settings in turn.

  bench/resilience.py                       3 rounds of 4 s of each setting
  bench/resilience.py --rounds 5 --seconds 6
"""
import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import time

sys.dont_write_bytecode = True  # no folder of caches beside the sources
import run  # noqa: E402

ENDPOINTS = ("one", "two", "three", "slow", "flapping")
SLOW_SECONDS = 0.05
BODY = b"x" * 100
OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
FAILED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
REPEATABLE = "gateway-error,reset,reset-before-request,connect-failure,refused-stream"
UNSEEN = "reset-before-request,connect-failure,refused-stream"


def endpoints(ports, counts):
    """A process of all five; counts what each answers."""

    async def serve(index, reader, writer):
        name = ENDPOINTS[index]
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                counts[index] += 1
                if name == "slow":
                    await asyncio.sleep(SLOW_SECONDS)
                down = name == "flapping" and int(time.monotonic()) % 2
                writer.write(FAILED if down else OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def all_of_them():
        handler = lambda index: lambda reader, writer: serve(index, reader, writer)
        servers = [await asyncio.start_server(handler(i), "127.0.0.1", port) for i, port in enumerate(ports)]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(all_of_them())


def split(route):
    """The two routes of automaticRetries with 3 attempts, as translation makes them."""
    predicate = route["route"]["retry_policy"]["retry_host_predicate"]

    def with_retries(on, headers):
        policy = {
            "retry_on": on,
            "num_retries": 2,
            "retry_host_predicate": predicate,
            "host_selection_retry_max_attempts": "5",
        }
        return {
            **route,
            "match": {"prefix": "/", "headers": headers},
            "route": {**route["route"], "retry_policy": policy},
        }

    idempotent = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"}}}
    return [with_retries(REPEATABLE, [idempotent]), with_retries(UNSEEN, [])]


def configuration(port, ports, retries, adaptive, anomalies):
    manager = run.http_manager("b", hosts=0)
    (host,) = manager["typed_config"]["route_config"]["virtual_hosts"]
    cluster = run.cluster("b", 0, endpoints=[("127.0.0.1", each) for each in ports])
    # Passive health checks would hide the difference for ten seconds at a time.
    del cluster["outlier_detection"]
    if retries:
        host["routes"] = split(host["routes"][0])
        budget = {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3}
        cluster["circuit_breakers"]["thresholds"][0]["retry_budget"] = budget
    if anomalies:
        asked = {"sensitivity": "medium", "eject": "true", "policy": "bench/bench"}
        cluster["metadata"] = {"filter_metadata": {"meltemi.anomaly_detection": asked}}
        none = {"enforcing_consecutive_5xx": 0, "enforcing_success_rate": 0, "enforcing_consecutive_gateway_failure": 0}
        cluster["outlier_detection"] = {"max_ejection_percent": 50, **none}
    if adaptive:
        url = "envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma"
        config = run.typed("envoy.load_balancing_policies.peak_ewma", url, decay_time="10s")
        del cluster["lb_policy"]
        cluster["load_balancing_policy"] = {"policies": [{"typed_extension_config": config}]}
    return run.bootstrap(port, manager, [cluster])


SETTINGS = {
    "Istio's defaults": (False, False, False),
    "automaticRetries": (True, False, False),
    "adaptiveLoadBalancing": (False, True, False),
    "anomalyDetection, EJECT": (False, False, True),
    "all three": (True, True, True),
}


def measure(args):
    ports = [run.free_port() for _ in ENDPOINTS]
    counts = multiprocessing.Array("Q", len(ENDPOINTS), lock=False)
    backend = multiprocessing.Process(target=endpoints, args=(ports, counts), daemon=True)
    backend.start()
    started = {}
    for number, (name, features) in enumerate(SETTINGS.items()):
        port = run.free_port()
        path = run.write(f"resilience-{number}.json", json.dumps(configuration(port, ports, *features)))
        command = [args.meltemi, "proxy", "-c", path, "--concurrency", "1", "--log-level", "error"]
        process = run.start(command, 1, f"resilience-{number}.log")
        if not run.wait_port(port, process):
            raise RuntimeError(open(f"{run.WORK}/resilience-{number}.log").read()[-2000:])
        started[name] = port
        run.load("h1", port, 1, args.connections)
    samples = {name: [] for name in SETTINGS}
    for _ in range(args.rounds):
        for name, port in started.items():
            before = list(counts)
            total, failed, _, p50, p99 = run.load("h1", port, args.seconds, args.connections)
            answered = [now - then for now, then in zip(counts, before)]
            shares = [each / max(sum(answered), 1) * 100 for each in answered]
            samples[name].append((failed / max(total, 1) * 100, p50 / 1000, p99 / 1000, shares[3], shares[4]))
    backend.terminate()
    return samples


def report(samples):
    print("| setting | failed % | p50 ms | p99 ms | share of the slow endpoint % | of the flapping one % |")
    print("|---|---|---|---|---|---|")
    for name, rows in samples.items():
        figures = (run.spread([row[at] for row in rows], "{:.2f}") for at in range(5))
        print(f"| {name} | {' | '.join(figures)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=8, help="that ask one after the other; default 8")
    parser.add_argument("--meltemi", default=os.environ.get("MELTEMI", run.ROOT + "/target/release/meltemi"))
    args = parser.parse_args()
    if not os.path.exists(args.meltemi):
        parser.error(f"{args.meltemi} is not there: run `cargo build --release`, or name the binary with --meltemi")
    if not run.tool("wrk"):
        parser.error("wrk is missing: scripts/install-test-deps.sh installs it")
    report(measure(args))


if __name__ == "__main__":
    main()
