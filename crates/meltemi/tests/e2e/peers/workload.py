"""SPIFFE's Workload API by others: a server of grpcio with the messages of the package spiffe, and that package's client.

  workload.py server SOCKET FOLDER   serves the newest of FOLDER/1, FOLDER/2, … (svid.der, key.der, bundle.der, other.der, id) and follows them
  workload.py client SOCKET COUNT    prints as JSON each context that comes (id, chain, serial, bundles), until there were COUNT
  workload.py tokens SOCKET AUDIENCE  prints as JSON what became of a token for AUDIENCE: by its keys here, and by who gave it
"""
import json
import os
import sys
import threading
import time
from concurrent import futures

import grpc
from spiffe._proto import workload_pb2, workload_pb2_grpc


def server(socket, folder):
    class Api(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
        def FetchX509SVID(self, request, context):
            if ("workload.spiffe.io", "true") not in [tuple(pair) for pair in context.invocation_metadata()]:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no header")
            sent = None
            while context.is_active():
                newest = max(os.listdir(folder), key=int, default=None)
                if newest is not None and newest != sent:
                    sent = newest

                    def read(name):
                        with open(os.path.join(folder, sent, name), "rb") as file:
                            return file.read()

                    svid = workload_pb2.X509SVID(
                        spiffe_id=read("id").decode(), x509_svid=read("svid.der"), x509_svid_key=read("key.der"), bundle=read("bundle.der"))
                    print("sent", sent, flush=True)
                    yield workload_pb2.X509SVIDResponse(svids=[svid], federated_bundles={"spiffe://other.example": read("other.der")})
                time.sleep(0.05)

    running = grpc.server(futures.ThreadPoolExecutor(8))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(Api(), running)
    running.add_insecure_port(f"unix:{socket}")
    running.start()
    running.wait_for_termination()


def client(socket, count):
    from spiffe import WorkloadApiClient

    left, done = int(count), threading.Event()

    def came(context):
        nonlocal left
        svid = context.default_svid
        print(json.dumps({
            "id": str(svid.spiffe_id), "chain": len(svid.cert_chain), "serial": f"{svid.leaf.serial_number:x}",
            "bundles": told(context.x509_bundle_set),
        }), flush=True)
        left -= 1
        if left == 0:
            done.set()

    def told(bundles):
        return {str(bundle.trust_domain): len(bundle.x509_authorities) for bundle in bundles.bundles}

    def failed(error):
        print(json.dumps({"error": str(error)}), flush=True)
        done.set()

    with WorkloadApiClient(f"unix://{socket}") as api:
        print(json.dumps({"bundles": told(api.fetch_x509_bundles(timeout=20))}), flush=True)
        api.stream_x509_contexts(came, failed)
        done.wait(60)


def tokens(socket, audience):
    from spiffe import JwtSource, SpiffeId, WorkloadApiClient
    from spiffe.svid.jwt_svid import JwtSvid

    def reason(ask):
        try:
            return str(ask())
        except Exception as error:
            return type(error).__name__

    with JwtSource(socket_path=f"unix://{socket}", timeout_in_seconds=20) as source, WorkloadApiClient(f"unix://{socket}") as api:
        svid = source.fetch_svid({audience})
        bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        print(json.dumps({
            "id": str(svid.spiffe_id),
            "audience": sorted(svid.audience),
            "verified": reason(lambda: JwtSvid.parse_and_validate(svid.token, bundle, {audience}).spiffe_id),
            "elsewhere": reason(lambda: JwtSvid.parse_and_validate(svid.token, bundle, {"elsewhere"}).spiffe_id),
            "validated": reason(lambda: api.validate_jwt_svid(svid.token, audience).spiffe_id),
            "refused": reason(lambda: api.validate_jwt_svid(svid.token, "elsewhere").spiffe_id),
            "another": reason(lambda: api.fetch_jwt_svid({audience}, subject=SpiffeId("spiffe://cluster.local/ns/app/sa/admin")).spiffe_id),
        }), flush=True)


{"server": server, "client": client, "tokens": tokens}[sys.argv[1]](*sys.argv[2:])
