#!/usr/bin/env python3
"""What security costs `meltemi proxy` and Envoy under the same configuration: handshakes, policies and tokens.

One worker each, pinned to CPU 1; the client, which is this script, has CPU 0. A round measures every case for both proxies in
turn. Only the proxy's own CPU is counted, by the scheduler's account (see bench/run.py), so that neither the client's speed nor other
load on the machine is in the figures, beyond what they do to caches. The answers are the proxies' own: nothing is behind them.

  bench/security.py                        every case, 3 rounds
  bench/security.py handshakes --rounds 5  one group; others are policies, tokens
  bench/security.py --count 500            fewer handshakes or requests of a measurement (3,000)
"""
import argparse
import base64
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # no folder of caches beside the sources
import run  # noqa: E402

CLIENT = "spiffe://cluster.local/ns/default/sa/client"
REQUEST = "GET {path} HTTP/1.1\r\nhost: bench.example\r\n{fields}\r\n"
POLICIES = (1, 10, 100, 1000)
ISSUER = "https://issuer.example"


# --- certificates and tokens ----------------------------------------------------------------------------------------


def openssl(*words, text=None):
    return subprocess.run(["openssl", *words], check=True, cwd=run.WORK, input=text, capture_output=True).stdout


def certificates():
    """An authority, and server and client of each kind of key, as kind.pem and kind.key."""
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *ec, "-keyout", "root.key", "-out", "root.pem", "-subj", "/O=bench", "-days", "2")
    run.write("ext", f"subjectAltName=URI:{CLIENT}\n")
    for kind, key in (("ec", ec), ("rsa", ["-newkey", "rsa:2048", "-nodes"])):
        openssl("req", *key, "-keyout", f"{kind}.key", "-out", "csr.pem", "-subj", "/CN=bench")
        openssl("x509", "-req", "-in", "csr.pem", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
                "-out", f"{kind}.pem", "-days", "2", "-extfile", "ext")


def encoded(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value):
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwks():
    modulus = int(openssl("rsa", "-in", "rsa.key", "-noout", "-modulus").decode().split("=")[1], 16)
    point = openssl("ec", "-in", "ec.key", "-pubout", "-outform", "DER")[-64:]
    rsa = {"kty": "RSA", "kid": "rsa", "alg": "RS256", "e": "AQAB", "n": number(modulus)}
    ec = {"kty": "EC", "kid": "ec", "alg": "ES256", "crv": "P-256", "x": encoded(point[:32]), "y": encoded(point[32:])}
    return json.dumps({"keys": [rsa, ec]})


def token(kind):
    head = {"alg": {"rsa": "RS256", "ec": "ES256"}[kind], "kid": kind}
    claims = {"iss": ISSUER, "sub": "someone", "aud": "mesh", "exp": int(time.time()) + 86400, "groups": ["staff", "guests"]}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
    signature = openssl("dgst", "-sha256", "-sign", f"{kind}.key", text=signed.encode())
    return f"{signed}.{encoded(signature if kind == 'rsa' else fixed(signature))}"


def fixed(der):
    """The two numbers of an ECDSA signature in DER, 32 bytes each."""
    first = der[4 : 4 + der[3]]
    second = der[6 + der[3] :]
    return b"".join(part.lstrip(b"\0").rjust(32, b"\0") for part in (first, second))


# --- configurations -------------------------------------------------------------------------------------------------


def downstream(kind, mutual):
    files = {"certificate_chain": {"filename": f"{run.WORK}/{kind}.pem"}, "private_key": {"filename": f"{run.WORK}/{kind}.key"}}
    common = {"tls_certificates": [files], "alpn_protocols": ["http/1.1"]}
    if mutual:
        common["validation_context"] = {"trusted_ca": {"filename": f"{run.WORK}/root.pem"}}
    url = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    return run.typed("envoy.transport_sockets.tls", url, common_tls_context=common, require_client_certificate=mutual)


def manager(*filters):
    """Answers by itself."""
    made = run.http_manager("b", hosts=0)
    config = made["typed_config"]
    config["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 100}}}
    ]
    config["http_filters"] = [*filters, config["http_filters"][-1]]
    return made


def rbac(count):
    """AuthorizationPolicies with action ALLOW as translation makes them, of which the last alone lets the client in."""

    def policy(at):
        name = CLIENT if at == count - 1 else f"spiffe://cluster.local/ns/team-{at}/sa/caller-{at}"
        principal = {"authenticated": {"principal_name": {"exact": name}}}
        path = {"url_path": {"path": {"prefix": f"/api/resource-{at}/"}}}
        method = {"header": {"name": ":method", "string_match": {"exact": "GET"}}}
        allowed = {"and_rules": {"rules": [{"or_rules": {"rules": [path]}}, {"or_rules": {"rules": [method]}}]}}
        return {"permissions": [allowed], "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": [principal]}}]}}]}

    policies = {f"ns[default]-policy[team-{at:04}]-rule[0]": policy(at) for at in range(count)}
    url = "envoy.extensions.filters.http.rbac.v3.RBAC"
    return run.typed("envoy.filters.http.rbac", url, rules={"action": "ALLOW", "policies": policies})


def jwt(cached):
    provider = {"issuer": ISSUER, "audiences": ["mesh"], "local_jwks": {"inline_string": jwks()}}
    if cached:
        provider["jwt_cache_config"] = {"jwt_cache_size": 100}
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}]
    url = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
    return run.typed("envoy.filters.http.jwt_authn", url, providers={"issuer": provider}, rules=rules)


# --- clients --------------------------------------------------------------------------------------------------------


def context(kind, version, mutual):
    made = ssl.create_default_context(cafile=f"{run.WORK}/root.pem")
    made.check_hostname = False
    made.minimum_version = made.maximum_version = version
    if mutual:
        made.load_cert_chain(f"{run.WORK}/{kind}.pem", f"{run.WORK}/{kind}.key")
    return made


def connect(port, tls=None, session=None):
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain, session=session) if tls else plain


def exchange(connection, request):
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = connection.recv(65536)
        if not more:
            raise RuntimeError(f"closed after {answer!r}")
        answer += more
    head, body = answer.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer)
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    while len(body) < length:
        body += connection.recv(65536)


def shaking(kind, version, mutual, resumed):
    """Handshakes, each with one request on it: the session of the first is offered by those that are to resume it."""
    request = REQUEST.format(path="/", fields="").encode()

    def load(port, count):
        tls, session = context(kind, version, mutual), None
        for _ in range(count):
            connection = connect(port, tls, session if resumed else None)
            exchange(connection, request)
            if connection.session_reused != (resumed and session is not None):
                raise RuntimeError(f"resumed: {connection.session_reused}")
            # In TLS 1.3 each ticket is for one use.
            if resumed:
                session = connection.session
            connection.close()

    return load


def asking(path, fields, tls):
    """Requests on one connection."""
    request = REQUEST.format(path=path, fields="".join(f"{field}\r\n" for field in fields)).encode()

    def load(port, count):
        connection = connect(port, tls)
        for _ in range(count):
            exchange(connection, request)
        connection.close()

    return load


# --- cases ----------------------------------------------------------------------------------------------------------

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def handshakes():
    for kind in ("ec", "rsa"):
        for name, version in (("1.3", V13), ("1.2", V12)):
            for mutual in (False, True):
                for resumed in (False, True):
                    what = f"{'mutual ' if mutual else ''}TLS {name}, {kind.upper()}, {'resumed' if resumed else 'full'}"
                    yield what, (manager(), downstream(kind, mutual)), shaking(kind, version, mutual, resumed)


def policies():
    tls = context("ec", V13, True)
    yield "no policy", (manager(), downstream("ec", True)), asking("/api/resource-0/x", [], tls)
    for count in POLICIES:
        what = f"{count:,} ALLOW polic{'y' if count == 1 else 'ies'}, the last matches"
        yield what, (manager(rbac(count)), downstream("ec", True)), asking(f"/api/resource-{count - 1}/x", [], tls)


def tokens():
    yield "no token asked for", (manager(), None), asking("/", [f"authorization: Bearer {token('rsa')}"], None)
    for kind, name in (("rsa", "RS256"), ("ec", "ES256")):
        for cached in (False, True):
            what = f"{name}, {'cached' if cached else 'verified each time'}"
            yield what, (manager(jwt(cached)), None), asking("/", [f"authorization: Bearer {token(kind)}"], None)


GROUPS = {"handshakes": handshakes, "policies": policies, "tokens": tokens}


def measure(group, args):
    """Microseconds of CPU of each handshake or request: by case, then by proxy, one figure a round."""
    samples = {}
    for number, (what, (network_filter, tls), load) in enumerate(GROUPS[group]()):
        started = {}
        for peer in run.proxies(args.meltemi, args.peers):
            port = run.free_port()
            path = run.write(f"{group}-{number}-{peer.name}.json", json.dumps(run.bootstrap(port, network_filter, [], tls)))
            process = run.start(peer.command(path), 1, f"{peer.name}.log")
            if not run.wait_port(port, process, 60):
                raise RuntimeError(f"{peer.name}\n" + open(f"{run.WORK}/{peer.name}.log").read()[-2000:])
            started[peer.name] = process, port
            load(port, 100)
        rows = samples.setdefault(what, {name: [] for name in started})
        for _ in range(args.rounds):
            for name, (process, port) in started.items():
                before = run.cpu_ns(process.pid)
                load(port, args.count)
                rows[name].append((run.cpu_ns(process.pid) - before) / 1e3 / args.count)
        for process, _ in started.values():
            run.stop(process)
    return samples


def report(group, samples):
    unit = "handshake, with one request" if group == "handshakes" else "request"
    print(f"\n### {group}\n\n| case | Meltemi, CPU µs/{unit} | Envoy | Envoy ÷ Meltemi, round by round |\n|---|---|---|---|")
    for what, rows in samples.items():
        ours, theirs = rows.get("meltemi", []), rows.get("envoy", [])
        figures = [run.spread(each) if each else "" for each in (ours, theirs)]
        ratio = run.spread([b / a for a, b in zip(ours, theirs)], "{:.2f}") if ours and theirs else ""
        print(f"| {what} | {' | '.join(figures)} | {ratio} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=3000, help="handshakes or requests of a measurement; default 3000")
    parser.add_argument("--peers", nargs="*", default=["meltemi", "envoy"])
    parser.add_argument("--meltemi", default=os.environ.get("MELTEMI", run.ROOT + "/target/release/meltemi"))
    args = parser.parse_args()
    if not os.path.exists(args.meltemi):
        parser.error(f"{args.meltemi} is not there: run `cargo build --release`, or name the binary with --meltemi")
    os.sched_setaffinity(0, {0})
    certificates()
    for group in args.groups or GROUPS:
        report(group, measure(group, args))


if __name__ == "__main__":
    main()
