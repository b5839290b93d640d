"""Foreign peers for the tests, all from PyPI: gRPC servers and xDS clients of grpcio, and an ADS server of xds-protos.

  peers.py grpc-server NAME PORT          answers /echo.Echo/Echo with NAME
  peers.py grpc-client TARGET COUNT       calls TARGET COUNT times and prints how often each server answered, as JSON
  peers.py grpc-xds-server PORT METHOD... serves on PORT as xDS says, calls itself, and prints the code of each call, as JSON
  peers.py ads-server PORT FILE           serves the resources of FILE (a JSON list of messages with "@type") by ADS, delta and
                                          state of the world, again whenever FILE changes; prints each ACK and NACK
  peers.py ratelimit-client TARGET FILE   asks a rate limit server each request of FILE (a JSON list of RateLimitRequests) and
                                          prints the answers, as a JSON list
"""
import collections
import importlib
import json
import os
import pkgutil
import queue
import sys
import threading
import time
from concurrent import futures

import grpc


def grpc_server(name, port):
    def handler(_details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())

    class Generic(grpc.GenericRpcHandler):
        def service(self, details):
            return handler(details)

    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Generic(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def grpc_xds_server(port, *methods):
    class Generic(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"served")

    server = grpc.server(futures.ThreadPoolExecutor(8), xds=True)
    server.add_generic_rpc_handlers((Generic(),))
    server.add_secure_port(f"127.0.0.1:{port}", grpc.xds_server_credentials(grpc.insecure_server_credentials()))
    server.start()

    def call(method):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                return channel.unary_unary(method)(b"hi", timeout=20, wait_for_ready=True).decode()
            except grpc.RpcError as error:
                return error.code().name

    print(json.dumps({method: call(method) for method in methods}), flush=True)
    server.stop(None)


def grpc_client(target, count):
    call = grpc.insecure_channel(target).unary_unary("/echo.Echo/Echo")
    seen = collections.Counter(call(b"hi", timeout=20, wait_for_ready=True).decode() for _ in range(int(count)))
    print(json.dumps(seen))


def import_all(package):
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        if found.name.endswith("_pb2"):
            importlib.import_module(found.name)


def ads_server(port, file):
    from google.protobuf import any_pb2, json_format
    from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

    import_all("envoy.config")
    import_all("envoy.extensions")

    def name_of(message):
        return getattr(message, "cluster_name", None) or message.name

    def load():
        with open(file) as f:
            documents = json.load(f)
        found = collections.defaultdict(dict)
        for document in documents:
            packed = any_pb2.Any()
            json_format.ParseDict(document, packed)
            inner = json_format.ParseDict({k: v for k, v in document.items() if k != "@type"}, _message(packed))
            found[packed.type_url][name_of(inner)] = packed
        return found

    def _message(packed):
        from google.protobuf import symbol_database

        return symbol_database.Default().GetSymbol(packed.type_url.split("/")[-1])()

    streams = []
    state = {"resources": load(), "version": 1}

    def watch():
        stamp = os.stat(file).st_mtime_ns
        while True:
            time.sleep(0.05)
            if os.stat(file).st_mtime_ns != stamp:
                stamp = os.stat(file).st_mtime_ns
                state["resources"] = load()
                state["version"] += 1
                for stream in list(streams):
                    stream.put(None)

    def report(kind, request):
        if request.response_nonce:
            verdict = "NACK " + request.error_detail.message if request.error_detail.code else "ACK"
            print(f"{kind} {request.type_url.split('.')[-1]} {verdict}", flush=True)

    class Server(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
        def pump(self, requests, inbox):
            def read():
                try:
                    for request in requests:
                        inbox.put(request)
                except grpc.RpcError:
                    pass
                inbox.put(False)

            streams.append(inbox)
            threading.Thread(target=read, daemon=True).start()

        def StreamAggregatedResources(self, requests, context):
            inbox, subscribed, sent = queue.Queue(), {}, {}
            self.pump(requests, inbox)
            while (item := inbox.get()) is not False:
                if item is not None:
                    report("sotw", item)
                    subscribed[item.type_url] = list(item.resource_names)
                    if item.response_nonce and sent.get(item.type_url) == (state["version"], tuple(item.resource_names)):
                        continue
                for type_url, names in list(subscribed.items()):
                    key = (state["version"], tuple(names))
                    if sent.get(type_url) == key:
                        continue
                    sent[type_url] = key
                    all_ = state["resources"][type_url]
                    chosen = [r for n, r in all_.items() if not names or n in names]
                    yield discovery_pb2.DiscoveryResponse(
                        version_info=str(key[0]), nonce=f"{type_url[-3:]}{key[0]}", type_url=type_url, resources=chosen
                    )

        def DeltaAggregatedResources(self, requests, context):
            inbox, subscribed, sent = queue.Queue(), collections.defaultdict(set), collections.defaultdict(dict)
            self.pump(requests, inbox)
            nonce = 0
            while (item := inbox.get()) is not False:
                if item is not None:
                    report("delta", item)
                    names = subscribed[item.type_url]
                    names.update(item.resource_names_subscribe)
                    names.difference_update(item.resource_names_unsubscribe)
                    wildcard_type = item.type_url.endswith((".Cluster", ".Listener"))
                    if not names and wildcard_type:
                        names.add("*")
                for type_url, names in list(subscribed.items()):
                    all_ = state["resources"][type_url]
                    wanted = {n: r for n, r in all_.items() if "*" in names or n in names}
                    changed = {n: r for n, r in wanted.items() if sent[type_url].get(n) != r.value}
                    removed = [n for n in sent[type_url] if n not in wanted]
                    if not changed and not removed:
                        continue
                    for n in removed:
                        del sent[type_url][n]
                    sent[type_url].update({n: r.value for n, r in changed.items()})
                    nonce += 1
                    yield discovery_pb2.DeltaDiscoveryResponse(
                        nonce=str(nonce),
                        type_url=type_url,
                        system_version_info=str(state["version"]),
                        resources=[
                            discovery_pb2.Resource(name=n, version=str(state["version"]), resource=r) for n, r in changed.items()
                        ],
                        removed_resources=removed,
                    )

    server = grpc.server(futures.ThreadPoolExecutor(32))
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(Server(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    threading.Thread(target=watch, daemon=True).start()
    server.wait_for_termination()


def ratelimit_client(target, file):
    from google.protobuf import json_format
    from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

    service = rls_pb2_grpc.RateLimitServiceStub(grpc.insecure_channel(target))
    with open(file) as requests:
        parsed = [json_format.ParseDict(one, rls_pb2.RateLimitRequest()) for one in json.load(requests)]
    answers = [service.ShouldRateLimit(one, timeout=20, wait_for_ready=True) for one in parsed]
    print(json.dumps([json_format.MessageToDict(one) for one in answers]))


if __name__ == "__main__":
    roles = {
        "grpc-server": grpc_server,
        "grpc-xds-server": grpc_xds_server,
        "grpc-client": grpc_client,
        "ads-server": ads_server,
        "ratelimit-client": ratelimit_client,
    }
    roles[sys.argv[1]](*sys.argv[2:])
