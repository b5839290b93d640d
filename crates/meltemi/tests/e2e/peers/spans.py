"""A collector of traces: OTLP over gRPC (opentelemetry-proto) and Zipkin v2 JSON over HTTP. Writes each span as a line of JSON.

  spans.py OTLP-PORT ZIPKIN-PORT FILE
"""
import http.server
import json
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

lock = threading.Lock()
out = open(sys.argv[3], "a", buffering=1)


def write(**span):
    with lock:
        out.write(json.dumps(span) + "\n")


def plain(attributes):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


class Otlp(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            service = plain(resource.resource.attributes).get("service.name")
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                write(
                    by="otlp",
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    name=span.name,
                    kind={2: "SERVER", 3: "CLIENT"}.get(span.kind, str(span.kind)),
                    service=service,
                    micros=(span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
                    tags=plain(span.attributes),
                )
        return trace_service_pb2.ExportTraceServiceResponse()


class Zipkin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/api/v2/spans" and self.headers["content-type"] == "application/json", self.headers
        for span in json.loads(body):
            write(
                by="zipkin",
                trace=span["traceId"],
                id=span["id"],
                parent=span.get("parentId", ""),
                name=span["name"],
                kind=span["kind"],
                service=span["localEndpoint"]["serviceName"],
                micros=span["duration"],
                tags=span["tags"],
            )
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = grpc.server(futures.ThreadPoolExecutor(4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Otlp(), server)
server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}")
server.start()
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Zipkin).serve_forever()
