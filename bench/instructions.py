#!/usr/bin/env python3
"""Counts instructions under valgrind: of the request path, and of one translation. A regression shows without a clock.

A figure is the difference between a long and a short run, so that starting costs nothing. The proxy is the real binary in
release mode with one worker, whose thread alone counts; the client and the backend here send the same bytes every time, one
batch after another. The kernel's part is not counted.

  bench/instructions.py             builds, counts, compares with bench/instructions.toml; fails beyond the tolerance
  bench/instructions.py --record    builds, counts, writes bench/instructions.toml
  bench/instructions.py h1          one figure or several (see FIGURES), compared only
"""
import argparse
import atexit
import glob
import json
import os
import platform
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

sys.dont_write_bytecode = True  # no folder of caches beside the sources
import run  # noqa: E402
import security  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
RECORD = os.path.join(HERE, "instructions.toml")
WORK = tempfile.mkdtemp(prefix="meltemi-instructions-")
atexit.register(shutil.rmtree, WORK, ignore_errors=True)

# Beyond this, up or down, a figure has changed. Hash seeds and wake-ups make runs differ by up to 1 %.
TOLERANCE = 0.03
WARMUP = 20
START_SECONDS = 120
ANSWER_SECONDS = 60
HANDSHAKES = 300

HEADERS, DATA, SETTINGS, PING, WINDOW_UPDATE = 1, 0, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MESSAGE = b"\0\0\0\0\x5f" + b"x" * 95


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the other side closed the connection")
        data += part
    return data


# --- HTTP/1 ---------------------------------------------------------------------------------------------------------

H1_REQUEST = (
    b"GET /productpage?u=normal HTTP/1.1\r\nhost: svc-7.default.svc.cluster.local\r\nuser-agent: bench/1.0\r\n"
    b"accept: */*\r\naccept-encoding: gzip\r\nx-b3-sampled: 0\r\n\r\n"
)
H1_RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: bench\r\n"
    b"content-length: 1024\r\n\r\n" + b"x" * 1024
)


def h1_backend(connection):
    data = b""
    while part := connection.recv(65536):
        data += part
        while b"\r\n\r\n" in data:
            data = data.split(b"\r\n\r\n", 1)[1]
            connection.sendall(H1_RESPONSE)


def h1_client(connection, batches):
    for _ in range(batches):
        connection.sendall(H1_REQUEST)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        head, body = head.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {head[:80]!r}")
        read_exactly(connection, 1024 - len(body))


# --- HTTP/2 ---------------------------------------------------------------------------------------------------------


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hpack(fields):
    """Literal fields that nobody puts into a table, so that every request has the same bytes."""
    text = lambda value: bytes([len(value)]) + value
    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


GRPC_REQUEST = hpack([
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/echo.Echo/Echo"),
    (b":authority", b"svc-7.default.svc.cluster.local"), (b"te", b"trailers"), (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-bench/1.0"),
])
GRPC_RESPONSE = hpack([(b":status", b"200"), (b"content-type", b"application/grpc")])
GRPC_TRAILERS = hpack([(b"grpc-status", b"0"), (b"grpc-message", b"")])
# Wide open, so that no window has to be updated again.
OPEN = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31 - 1)) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))


class Frames:
    """Reads frames and answers those that want it."""

    def __init__(self, connection):
        self.connection = connection
        self.data = b""

    def next(self):
        while len(self.data) < 9 or len(self.data) < 9 + self.length():
            part = self.connection.recv(65536)
            if not part:
                raise ConnectionError("the other side closed the connection")
            self.data += part
        length, (kind, flags, stream) = self.length(), struct.unpack(">BBI", self.data[3:9])
        payload, self.data = self.data[9 : 9 + length], self.data[9 + length :]
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.connection.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        return kind, flags, stream, payload

    def length(self):
        return int.from_bytes(self.data[:3], "big")


def grpc_backend(batch):
    """Answers when a batch is complete, in one write: what the proxy reads does not depend on who was faster."""

    def serve(connection):
        read_exactly(connection, len(PREFACE))
        connection.sendall(OPEN)
        frames, ended = Frames(connection), []
        while True:
            kind, flags, stream, payload = frames.next()
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                ended.append(stream)
            if len(ended) == batch:
                answer = lambda s: frame(HEADERS, END_HEADERS, s, GRPC_RESPONSE) + frame(DATA, 0, s, MESSAGE) + frame(
                    HEADERS, END_HEADERS | END_STREAM, s, GRPC_TRAILERS
                )
                connection.sendall(b"".join(map(answer, ended)))
                ended = []

    return serve


def grpc_client(batch):
    def drive(connection, batches, state={}):
        if connection not in state:
            connection.sendall(PREFACE + OPEN)
            state[connection] = (Frames(connection), [1])
        frames, stream = state[connection]
        for _ in range(batches):
            request = b""
            for _ in range(batch):
                request += frame(HEADERS, END_HEADERS, stream[0], GRPC_REQUEST)
                request += frame(DATA, END_STREAM, stream[0], MESSAGE)
                stream[0] += 2
            connection.sendall(request)
            ended = 0
            while ended < batch:
                kind, flags, _, payload = frames.next()
                if kind == HEADERS and flags & END_STREAM and b"grpc-status" not in payload and len(payload) > 64:
                    raise RuntimeError(f"answered {payload!r}")
                ended += bool(kind in (HEADERS, DATA) and flags & END_STREAM)

    return drive


# --- counting -------------------------------------------------------------------------------------------------------


def serve_forever(listeners, backend):
    def one(connection):
        try:
            backend(connection)
        except (ConnectionError, OSError):
            pass

    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                try:
                    connection, _ = key.fileobj.accept()
                except OSError:
                    return
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=one, args=(connection,), daemon=True).start()


def counts(pattern):
    """Instructions of each thread, from callgrind's files: (names of functions, total)."""
    found = []
    for path in glob.glob(pattern):
        with open(path) as f:
            text = f.read()
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
        found.append((text, int(total.group(1)) if total else 0))
    return found


def on_one_connection(drive):
    def load(port, batches):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            drive(connection, batches)

    return load


def with_backend(configure, hosts, serve):
    """Starts a backend, on a port of its own at each of the hosts; gives the configuration that leads there, and the end of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    backend_port = listener.getsockname()[1]
    listeners = [listener, *(socket.create_server((host, backend_port)) for host in hosts)]
    threading.Thread(target=serve_forever, args=(listeners, serve), daemon=True).start()
    return lambda port: configure(port, backend_port), lambda: [each.close() for each in listeners]


def worker_instructions(meltemi, configure, load, batches):
    """What the worker thread of a proxy executed from its start to its end, with so many batches in between."""
    port = run.free_port()
    path = os.path.join(WORK, "proxy.json")
    with open(path, "w") as f:
        json.dump(configure(port), f)
    out = os.path.join(WORK, f"proxy-{batches}")
    command = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"]
    command += [meltemi, "proxy", "-c", path, "--concurrency", "1", "--log-level", "error", "--drain-time-s", "0"]
    log = os.path.join(WORK, "proxy.log")
    with open(log, "w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        if not run.wait_port(port, process, START_SECONDS):
            raise RuntimeError("the proxy did not start\n" + open(log).read()[-2000:])
        load(port, batches)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    workers = [total for text, total in counts(out + "*") if "meltemi_proxy::worker::run" in text]
    if len(workers) != 1:
        raise RuntimeError(f"{len(workers)} threads look like the worker\n" + open(log).read()[-2000:])
    return workers[0]


def difference(args, configure, load, batches):
    """Of one batch."""
    few = worker_instructions(args.meltemi, configure, load, WARMUP)
    return (worker_instructions(args.meltemi, configure, load, WARMUP + batches) - few) / batches


def request(http2, client, backend, batch, batches, table=None):
    def configure(port, backend_port):
        if table:
            return run.table_config(table, port, backend_port)
        return run.bootstrap(port, run.http_manager("b"), [run.cluster("b", backend_port, http2)])

    def count(args):
        hosts = run.loopback_hosts(run.ENDPOINTS) if table in ("ring", "maglev") else []
        made, end = with_backend(configure, hosts, backend)
        try:
            return difference(args, made, on_one_connection(client), batches) / batch
        finally:
            end()

    return count


def handshake(mutual, resumed):
    """A connection with one request, which the proxy answers by itself, and its end."""

    def count(args):
        security.certificates()
        tls = security.downstream("ec", mutual)
        configure = lambda port: run.bootstrap(port, security.manager(), [], tls)
        return difference(args, configure, security.shaking("ec", security.V13, mutual, resumed), HANDSHAKES)

    return count


def translation(what):
    def count(args):
        out = os.path.join(WORK, f"translation-{what}")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no"]
        command += ["--toggle-collect=*::measured", args.translation, what]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        # The program says how often it did what is measured.
        return counts(out + "*")[0][1] / int(done.stdout)

    return count


FIGURES = {
    "h1": ("HTTP/1.1 request, 1 KiB back, one connection", request(False, h1_client, h1_backend, 1, 500)),
    **{f"h1-{case}": (what, request(False, h1_client, h1_backend, 1, 500, case)) for case, what in run.TABLE_CASES.items()},
    "grpc": ("gRPC call, one at a time", request(True, grpc_client(1), grpc_backend(1), 1, 500)),
    "grpc-32": ("gRPC call, 32 at a time", request(True, grpc_client(32), grpc_backend(32), 32, 40)),
    "mtls": ("mutual TLS 1.3 handshake, EC, one request", handshake(True, False)),
    "mtls-resumed": ("the same, resumed", handshake(True, True)),
    "translation": ("everything of one sidecar among 100 services", translation("first")),
    "translation-equal": ("the same for a second, equal sidecar", translation("equal")),
    "translation-endpoint": ("one endpoint changed: its assignment", translation("endpoint")),
}


def build():
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "meltemi", "-p", "meltemi-bench"], check=True, cwd=ROOT)
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")


def recorded():
    if not os.path.exists(RECORD):
        return {}
    with open(RECORD, "rb") as f:
        return tomllib.load(f)


def record(counted):
    known = {**recorded(), platform.machine(): {name: round(value) for name, value in counted.items()}}
    with open(RECORD, "w") as f:
        f.write("# Instructions, written by `bench/instructions.py --record`; see bench/README.md.\n")
        for machine, figures in sorted(known.items()):
            f.write(f"\n[{machine}]\n")
            f.writelines(f"{name} = {value}\n" for name, value in figures.items())


def compare(counted, known):
    """Prints the table; gives the figures that are off."""
    off = []
    print("| figure | instructions | recorded | change | what |\n|---|---|---|---|---|")
    for name, value in counted.items():
        before = known.get(name)
        change = "-" if before is None else f"{(value / before - 1) * 100:+.2f} %"
        print(f"| {name} | {value:.0f} | {before or '-'} | {change} | {FIGURES[name][0]} |")
        if before is None or abs(value / before - 1) > TOLERANCE:
            off.append(name)
    return off


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", help=f"{', '.join(FIGURES)}; default: all")
    parser.add_argument("--built", metavar="DIR", help="a cargo output folder to take the programs from, in place of building")
    parser.add_argument("--record", action="store_true", help="write what is counted as the recorded figures")
    args = parser.parse_args()
    unknown = set(args.figures) - set(FIGURES)
    if unknown:
        parser.error("unknown figure: " + ", ".join(sorted(unknown)))
    if args.record and args.figures:
        parser.error("--record writes all figures")
    if not shutil.which("valgrind"):
        print("skipped: valgrind is not installed (scripts/install-test-deps.sh installs it)")
        return 0
    known = recorded().get(platform.machine())
    if known is None and not (args.record or args.built):
        print(f"skipped: nothing is recorded for {platform.machine()}")
        return 0
    folder = args.built or build()
    args.meltemi, args.translation = os.path.join(folder, "meltemi"), os.path.join(folder, "meltemi-translation")
    counted = {name: FIGURES[name][1](args) for name in args.figures or FIGURES}
    off = compare(counted, known or {})
    if args.record:
        record(counted)
        return 0
    if off:
        limit = f"{TOLERANCE * 100:.0f} %, or not recorded"
        print(f"\noff by more than {limit}: {', '.join(off)}. Slower: find out why. Faster, or slower for a reason: bench/instructions.py --record")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
