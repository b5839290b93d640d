#!/usr/bin/env python3
"""Gives pods of a cluster without kubelets machines, addresses and readiness, and prints them as nodes of xDS, in JSON.

  nodes.py KUBECTL...          KUBECTL is the command, with its flags
"""
import ipaddress
import json
import subprocess
import sys

VERSION = "1.31.0"
ADDRESSES = "10.244.8.0/23"
ZONES = ("a", "b")


def kubectl(*arguments, given=None):
    text = json.dumps(given) if given else None
    done = subprocess.run([*sys.argv[1:], *arguments], capture_output=True, check=True, text=True, input=text)
    return done.stdout


def machine(zone):
    labels = {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": zone}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"machine-{zone}", "labels": labels}}


def bind(pod, zone):
    metadata = pod["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
    target = {"apiVersion": "v1", "kind": "Node", "name": f"machine-{zone}"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
    kubectl("create", "--raw", path, "-f", "-", given=binding)


def ready(address):
    conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "PodScheduled", "Initialized")]
    return {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}}


def node(pod, address):
    """What the annotation `peers/metadata` holds, in JSON, is over the rest of its metadata."""
    metadata = pod["metadata"]
    namespace, labels = metadata["namespace"], metadata.get("labels", {})
    kind = "router" if "istio" in labels and labels["istio"].startswith("ingress") else "sidecar"
    account = pod["spec"].get("serviceAccountName", "default")
    return {
        "id": f"{kind}~{address}~{metadata['name']}.{namespace}~{namespace}.svc.cluster.local",
        "cluster": f"{labels.get('app', metadata['name'])}.{namespace}",
        "metadata": {
            "NAME": metadata["name"],
            "NAMESPACE": namespace,
            "SERVICE_ACCOUNT": account,
            "WORKLOAD_NAME": labels.get("app", metadata["name"]),
            "CLUSTER_ID": "Kubernetes",
            "MESH_ID": "cluster.local",
            "LABELS": labels,
            "INSTANCE_IPS": address,
            "INTERCEPTION_MODE": "REDIRECT",
            "ISTIO_VERSION": VERSION,
            "ENVOY_STATUS_PORT": 15021,
            "ENVOY_PROMETHEUS_PORT": 15090,
            "PROXY_CONFIG": {},
            # Of our control plane: the vocabulary that Istio's builds of Envoy have.
            "DIALECT": "istio-proxy",
            **json.loads(metadata.get("annotations", {}).get("peers/metadata", "{}")),
        },
    }


def main():
    pods = json.loads(kubectl("get", "pods", "-A", "-o", "json"))["items"]
    pods.sort(key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"]))
    for zone in ZONES:
        kubectl("apply", "-f", "-", given=machine(zone))
    nodes = []
    taken = {pod.get("status", {}).get("podIP") for pod in pods}
    free = (address for address in ipaddress.ip_network(ADDRESSES).hosts() if str(address) not in taken)
    for index, pod in enumerate(pods):
        metadata = pod["metadata"]
        address = pod.get("status", {}).get("podIP") or str(next(free))
        if "nodeName" not in pod["spec"]:
            bind(pod, ZONES[index % len(ZONES)])
        patch = json.dumps(ready(address))
        kubectl("patch", "pod", "-n", metadata["namespace"], metadata["name"], "--subresource=status", "-p", patch)
        if metadata.get("labels", {}).get("security.istio.io/tlsMode"):
            nodes.append(node(pod, address))
    print(json.dumps(nodes, indent=1))


if __name__ == "__main__":
    main()
