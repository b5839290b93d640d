"""What a control plane gives one node over ADS, as plain values: clusters, endpoints, listeners, routes, by name.

Needs grpcio and xds-protos. Of messages whose types xds-protos does not have, which are Istio's own, the name alone is kept.
"""
import base64
import importlib
import pkgutil
import queue

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2, symbol_database
from google.protobuf.descriptor import FieldDescriptor

PATIENCE = 30
PREFIX = "type.googleapis.com/"
CLUSTERS = PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENERS = PREFIX + "envoy.config.listener.v3.Listener"
ROUTES = PREFIX + "envoy.config.route.v3.RouteConfiguration"
# Messages by another name, in JSON.
TYPED_STRUCTS = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
TYPES = {"CDS": CLUSTERS, "EDS": ENDPOINTS, "LDS": LISTENERS, "RDS": ROUTES}


def load():
    """Every message of xds-protos becomes known by its name."""
    for name in ("envoy", "udpa", "xds"):
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, name + "."):
            if found.name.endswith("_pb2"):
                importlib.import_module(found.name)


def plain(message):
    """A message as dictionaries, lists and scalars; fields that are not set are absent."""
    if isinstance(message, any_pb2.Any):
        return packed(message)
    if isinstance(message, (struct_pb2.Struct, struct_pb2.Value, struct_pb2.ListValue)):
        return json_format.MessageToDict(message)
    if isinstance(message, duration_pb2.Duration):
        return f"{message.seconds + message.nanos / 1e9:g}s"
    if message.DESCRIPTOR.full_name.startswith("google.protobuf.") and message.DESCRIPTOR.name.endswith("Value"):
        return message.value
    return {field.name: value_of(field, value) for field, value in message.ListFields()}


def packed(message):
    name = message.type_url.rsplit("/", 1)[-1]
    try:
        known = symbol_database.Default().GetSymbol(name)
    except KeyError:
        return {"@type": name}
    fields = plain(known.FromString(message.value))
    if name in TYPED_STRUCTS:
        return {"@type": fields["type_url"].rsplit("/", 1)[-1]}
    return {"@type": name} | fields


def value_of(field, value):
    if field.message_type and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): scalar(inner, item) for key, item in value.items()}
    if field.is_repeated:
        return [scalar(field, item) for item in value]
    return scalar(field, value)


def scalar(field, value):
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return plain(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value


class Stream:
    """One ADS stream, state of the world."""

    def __init__(self, address, node):
        self.requests = queue.Queue()
        self.node = json_format.ParseDict(node, base_pb2.Node())
        options = [("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options)
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self.channel)
        self.responses = stub.StreamAggregatedResources(iter(self.requests.get, None), timeout=PATIENCE)

    def ask(self, kind, names=()):
        """The first response of a type; later ones of other types are acknowledged and dropped."""
        self.requests.put(discovery_pb2.DiscoveryRequest(node=self.node, type_url=kind, resource_names=names))
        for response in self.responses:
            acknowledged = discovery_pb2.DiscoveryRequest(
                type_url=response.type_url,
                version_info=response.version_info,
                response_nonce=response.nonce,
                resource_names=names if response.type_url == kind else (),
            )
            if response.type_url == kind:
                self.requests.put(acknowledged)
                return [packed(resource) for resource in response.resources]
        raise RuntimeError(f"the stream ended before {kind}")

    def close(self):
        self.requests.put(None)
        self.responses.cancel()
        self.channel.close()


def everything(address, node):
    """All that a node has, by short type and name."""
    stream = Stream(address, node)
    clusters = stream.ask(CLUSTERS)
    of_eds = [cluster["name"] for cluster in clusters if cluster.get("type") == "EDS"]
    endpoints = stream.ask(ENDPOINTS, sorted(of_eds)) if of_eds else []
    listeners = stream.ask(LISTENERS)
    routes = sorted(set(route_names(listeners)))
    routes = stream.ask(ROUTES, routes) if routes else []
    stream.close()
    by_name = lambda resources, key="name": {resource[key]: resource for resource in resources}
    return {
        "CDS": by_name(clusters),
        "EDS": by_name(endpoints, "cluster_name"),
        "LDS": by_name(listeners),
        "RDS": by_name(routes),
    }


def route_names(value):
    if isinstance(value, dict):
        if isinstance(value.get("rds"), dict):
            yield value["rds"]["route_config_name"]
        for inner in value.values():
            yield from route_names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from route_names(inner)
