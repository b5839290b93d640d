"""What cases of injection are made of: every value, setting and annotation that injection reads, with what may be said in it."""
import json

# Of `values`: a path, and what may stand there.
VALUES = [
    ("global.caAddress", ["ca.example.com:15012"]),
    ("global.caName", ["GkeWorkloadCertificate", "other"]),
    ("global.imagePullPolicy", ["Always", "IfNotPresent"]),
    ("global.imagePullSecrets", [["one"], ["one", "two"]]),
    ("global.istioNamespace", ["mesh-system"]),
    ("global.logAsJson", [True]),
    ("global.logging.level", ["default:debug", "all:warn"]),
    ("global.meshID", ["mesh-7"]),
    ("global.mountMtlsCerts", [True]),
    ("global.multiCluster.clusterName", ["east", "west-1"]),
    ("global.nativeNftables", [True]),
    ("global.network", ["network1"]),
    ("global.pilotCertProvider", ["none"]),
    ("global.proxy.autoInject", ["disabled"]),
    ("global.proxy.capNetBindService", ["true", "false"]),
    ("global.proxy.clusterDomain", ["cluster.example"]),
    ("global.proxy.componentLogLevel", ["misc:info,upstream:debug"]),
    ("global.proxy.excludeIPRanges", ["10.1.0.0/16"]),
    ("global.proxy.excludeInboundPorts", ["81,82", "15020"]),
    ("global.proxy.excludeOutboundPorts", ["3306", "25,26"]),
    ("global.proxy.holdApplicationUntilProxyStarts", [True, False]),
    ("global.proxy.image", ["proxyTest", "elsewhere.example/proxy:3"]),
    ("global.proxy.includeIPRanges", ["10.0.0.0/8", "10.0.0.0/8,192.168.0.0/16"]),
    ("global.proxy.includeInboundPorts", ["", "80,443"]),
    ("global.proxy.includeOutboundPorts", ["8080"]),
    ("global.proxy.lifecycle", [{"preStop": {"exec": {"command": ["sleep", "5"]}}}, {"postStart": {"httpGet": {"path": "/", "port": 80}}}]),
    ("global.proxy.logLevel", ["debug", "info"]),
    ("global.proxy.outlierLogPath", ["/dev/stdout"]),
    ("global.proxy.privileged", [True]),
    ("global.proxy.readinessFailureThreshold", [7]),
    ("global.proxy.readinessInitialDelaySeconds", [5]),
    ("global.proxy.readinessPeriodSeconds", [2, 30]),
    ("global.proxy.resources", [{"limits": None}, {"requests": {"cpu": "1", "memory": "1Gi"}}, {"limits": {"cpu": None}, "requests": None}]),
    ("global.proxy.seccompProfile", [{"type": "RuntimeDefault"}]),
    ("global.proxy.startupProbe", [{"enabled": False}, {"failureThreshold": 30}]),
    ("global.proxy.statusPort", [15099, 0]),
    ("global.proxy.tracer", ["zipkin", "datadog", "stackdriver", "none"]),
    ("global.proxy_init.forceApplyIptables", [True]),
    ("global.proxy_init.image", ["initTest", "elsewhere.example/init:3"]),
    ("global.sds.token.aud", ["other-audience"]),
    ("global.sts.servicePort", [15463]),
    ("global.tracer", [{"lightstep": {"address": "ls:1", "accessToken": "t"}, "zipkin": {"address": ""}, "datadog": {"address": "dd:8126"}}]),
    ("global.trustBundleName", ["my-roots"]),
    ("global.variant", ["distroless", "debug"]),
    ("cni.provider", ["multus", "default"]),
    ("pilot.env.ENABLE_CLUSTER_TRUST_BUNDLE_API", [True]),
    ("gateways.securityContext", [{"runAsUser": 7, "fsGroup": 8}]),
    ("gateways.seccompProfile", [{"type": "RuntimeDefault"}]),
    ("sidecarInjectorWebhook.rewriteAppHTTPProbe", [False]),
    ("sidecarInjectorWebhook.neverInjectSelector", [[{"matchLabels": {"app": "shop"}}]]),
    ("sidecarInjectorWebhook.alwaysInjectSelector", [[{"matchExpressions": [{"key": "version", "operator": "Exists"}]}]]),
    ("sidecarInjectorWebhook.reinvocationPolicy", ["IfNeeded"]),
]

# Of the mesh configuration.
MESH = [
    ("trustDomain", ["example.org", "td.example"]),
    ("enablePrometheusMerge", [False]),
    ("rootNamespace", ["roots"]),
    ("proxyListenPort", [16001]),
    ("proxyInboundListenPort", [16006]),
    ("inboundTrafficPolicy", [{"mode": "LOCALHOST"}]),
    ("extensionProviders", [[{"name": "otel", "opentelemetry": {
        "service": "otel.default.svc", "port": 4317, "serviceAttributeEnrichment": "OTEL_SEMANTIC_CONVENTIONS"}}]]),
    ("accessLogFile", ["/dev/stdout"]),
]

# Of a proxy's configuration, in the mesh's and in annotations.
PROXY = [
    ("concurrency", [0, 1, 4]),
    ("image", [{"imageType": "debug"}, {"imageType": "default"}, {"imageType": "distroless"}]),
    ("readinessProbe", [{"httpGet": {"path": "/up", "port": 8080}, "periodSeconds": 3, "failureThreshold": 2}, {"exec": {"command": ["true"]}}]),
    ("proxyMetadata", [{"A": "b"}, {"ISTIO_META_DNS_CAPTURE": "true", "ISTIO_META_DNS_AUTO_ALLOCATE": "true"},
                       {"ISTIO_META_ENABLE_HBONE": "true"}, {"IPTABLES_TRACE_LOGGING": "true"}, {"ENVOY_SECURE_MERGED_METRICS_PORT": "15099"},
                       {"OUTPUT_CERTS": "/etc/certs", "Z": "1", "M": "two words"}]),
    ("gatewayTopology", [{"numTrustedProxies": 2}, {"numTrustedProxies": 1, "forwardClientCertDetails": "SANITIZE_SET"}, {"proxyProtocol": {}}]),
    ("holdApplicationUntilProxyStarts", [True, False]),
    ("caCertificatesPem", [["-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]]),
    ("drainDuration", ["10s", "45s", "1m30s", "90s"]),
    ("terminationDrainDuration", ["5s", "7s", "20s", "0.5s"]),
    ("discoveryAddress", ["istiod.elsewhere.svc:15012", "istiod.istio-system.svc:15012"]),
    ("interceptionMode", ["TPROXY", "NONE", "REDIRECT"]),
    ("statusPort", [15099, 15020]),
    ("proxyAdminPort", [15001, 15000]),
    ("statNameLength", [189, 250]),
    ("serviceCluster", ["mine", "istio-proxy"]),
    ("tracingServiceName", ["CANONICAL_NAME_ONLY", "APP_LABEL_AND_NAMESPACE"]),
    ("configPath", ["/etc/istio/other", "./etc/istio/proxy"]),
    ("binaryPath", ["/usr/bin/envoy", "/usr/local/bin/envoy"]),
    ("customConfigFile", ["/etc/custom.json"]),
    ("controlPlaneAuthPolicy", ["NONE", "MUTUAL_TLS"]),
    ("tracing", [{}, {"zipkin": {"address": "z:9411"}, "sampling": 10}, {"sampling": 0.5, "maxPathTagLength": 9}, {"tlsSettings": {"caCertificates": "/etc/ls/ca.pem", "mode": "SIMPLE"}},
                 {"customTags": {"a": {"literal": {"value": "b"}}, "h": {"header": {"name": "x", "defaultValue": "y"}}}},
                 {"openCensusAgent": {"address": "oc:1", "context": ["B3"]}}]),
    ("envoyAccessLogService", [{"address": "als:9000"}, {"address": "als:9000", "tcpKeepalive": {"probes": 3, "time": "10s"}}]),
    ("envoyMetricsService", [{"address": "ms:9000"}]),
    ("availabilityZone", ["z1"]),
    ("extraStatTags", [["one", "two"]]),
    ("proxyStatsMatcher", [{"inclusionPrefixes": ["cluster"]}, {"inclusionRegexps": [".*"]}]),
    ("proxyBootstrapTemplatePath", ["/etc/template.json"]),
    ("privateKeyProvider", [{"cryptomb": {"pollDelay": "0.010s"}}, {"qat": {"pollDelay": "1s", "fallback": True}}]),
    ("runtimeValues", [{"x.y": "1"}]),
    ("proxyHeaders", [{"server": {"disabled": True}}, {"forwardedClientCert": "SANITIZE", "requestId": {"disabled": False}}, {"attemptCount": {"disabled": True}}]),
    ("meshId", ["mesh-9"]),
    ("statsdUdpAddress", ["1.2.3.4:8125"]),
    ("zipkinAddress", ["z:9411"]),
    ("fileFlushInterval", ["2s"]),
    ("fileFlushMinSizeKb", [32]),
    ("statsCompression", [False, True]),
]

# Of pods: what is right, and what is not.
ANNOTATIONS = [
    ("sidecar.istio.io/inject", ["true", "false", "perhaps"], []),
    ("sidecar.istio.io/interceptionMode", ["REDIRECT", "TPROXY", "NONE"], ["", "tproxy"]),
    ("sidecar.istio.io/proxyImage", ["custom/proxy:1", "plain"], []),
    ("sidecar.istio.io/proxyImageType", ["debug", "default", "distroless", ""], []),
    ("sidecar.istio.io/proxyCPU", ["100m", "1", "0.5", "1e3"], ["", "much", "1 "]),
    ("sidecar.istio.io/proxyMemory", ["128Mi", "1G", "0.5Gi"], ["128MiB", "-"]),
    ("sidecar.istio.io/proxyCPULimit", ["2", "1500m"], ["x"]),
    ("sidecar.istio.io/proxyMemoryLimit", ["1Gi", "512M"], ["1Q"]),
    ("sidecar.istio.io/logLevel", ["debug", "trace"], []),
    ("sidecar.istio.io/componentLogLevel", ["misc:error,http:debug", ""], []),
    ("sidecar.istio.io/agentLogLevel", ["default:debug", ""], []),
    ("sidecar.istio.io/bootstrapOverride", ["my-bootstrap", ""], []),
    ("sidecar.istio.io/capNetBindService", ["true", "false"], []),
    ("sidecar.istio.io/nativeSidecar", ["true", "false", "maybe", ""], []),
    ("sidecar.istio.io/rewriteAppHTTPProbers", ["true", "false", "T", "0"], ["yes"]),
    ("sidecar.istio.io/discoveryAddress", ["istiod.other.svc:15012"], []),
    ("sidecar.istio.io/statsInclusionPrefixes", ["cluster,listener"], []),
    ("sidecar.istio.io/extraStatTags", ["a,b"], []),
    ("sidecar.istio.io/statsFlushInterval", ["3s"], []),
    ("sidecar.istio.io/userVolume", ['{"extra":{"emptyDir":{}}}', '{"a":{"secret":{"secretName":"s","optional":true}},"b":{"configMap":{"name":"c"}}}', "{}"], ["{", "[1]"]),
    ("sidecar.istio.io/userVolumeMount", ['{"extra":{"mountPath":"/extra","readOnly":true}}', '{"b":{"mountPath":"/b"},"a":{"mountPath":"/a","subPath":"x"}}', "{}"], ["{", '"text"']),
    ("status.sidecar.istio.io/port", ["15099", "0", "15020"], ["70000", "x", "-1"]),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", ["3", "0"], ["-3", "x", ""]),
    ("readiness.status.sidecar.istio.io/periodSeconds", ["5"], ["1.5"]),
    ("readiness.status.sidecar.istio.io/failureThreshold", ["9"], ["4294967296"]),
    ("readiness.status.sidecar.istio.io/applicationPorts", ["80,81", ""], ["x"]),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", ["*", "10.0.0.0/8", "10.0.0.0/8,fd00::/8", ""], ["10.0.0.0", "*,10.0.0.0/8", "10.0.0.0/33"]),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", ["169.254.169.254/32", ""], ["*", "10.0.0.0/8, 11.0.0.0/8"]),
    ("traffic.sidecar.istio.io/includeInboundPorts", ["*", "80", "80,443", ""], ["80-90", "80,,90", "*,80"]),
    ("traffic.sidecar.istio.io/excludeInboundPorts", ["81", "15020", "81, 82", ""], ["*", "65536"]),
    ("traffic.sidecar.istio.io/includeOutboundPorts", ["3306", "*", ""], []),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", ["25", "25,26", ""], ["25;26"]),
    ("traffic.sidecar.istio.io/excludeInterfaces", ["eth1", "net1,net2", ""], ["1bad", "averyveryverylongname", "eth 1"]),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", ["net1", "net1,net2", ""], ["a/b"]),
    ("istio.io/reroute-virtual-interfaces", ["k6t-eth0", ""], ["$(x)"]),
    ("prometheus.io/scrape", ["true", "false", "odd"], []),
    ("prometheus.io/port", ["9090", "15090", "15020"], ["15000", "x", "0"]),
    ("prometheus.io/path", ["/metrics", "/m?x=1"], []),
    ("prometheus.istio.io/merge-metrics", ["true", "false"], ["maybe"]),
    ("prometheus.istio.io/scrape-targets", ["9090", "9090:/a,9091:/b", ""], ["15001", ":x"]),
    ("k8s.v1.cni.cncf.io/networks", ["other", '[{"name":"other"}]', '[{"name":"istio-cni","namespace":"default"}]', "default/istio-cni"], []),
    ("kubectl.kubernetes.io/default-container", ["mine"], []),
    ("kubectl.kubernetes.io/default-logs-container", ["mine"], []),
    ("apm.datadoghq.com/env", ['{"DD_ENV":"prod","DD_SERVICE":"s"}'], ["{"]),
    ("resource.opentelemetry.io/service.version", ["9"], []),
    ("resource.opentelemetry.io/service.namespace", ["ns"], []),
    ("ambient.istio.io/dns-capture", ["true"], []),
    ("ambient.istio.io/redirection", ["enabled"], []),
    ("topology.istio.io/controlPlaneClusters", ["*"], []),
    ("inject.istio.io/templates", ["sidecar", "gateway", "grpc-agent", "grpc-simple", "sidecar,grpc-simple", " gateway , sidecar", "grpc-agent,gateway"],
     ["nowhere", "", "sidecar,nowhere"]),
    ("proxy.istio.io/overrides", ['{"containers":[{"name":"istio-proxy","resources":{"limits":{"cpu":"3"}}}]}'], ["{"]),
    ("sidecar.istio.io/status", ['{"containers":["extra"],"initContainers":["prepare"]}', "{", "{}"], []),
]

LABELS = [
    ("app", ["shop"]),
    ("version", ["v2"]),
    ("app.kubernetes.io/name", ["named"]),
    ("app.kubernetes.io/version", ["3.1"]),
    ("service.istio.io/canonical-name", ["canon"]),
    ("service.istio.io/canonical-revision", ["rev"]),
    ("service.istio.io/workload-name", ["work"]),
    ("security.istio.io/tlsMode", ["disabled"]),
    ("networking.istio.io/tunnel", ["none"]),
    ("topology.istio.io/network", ["label-net"]),
    ("sidecar.istio.io/inject", ["true", "false", "odd"]),
    ("istio.io/rev", ["canary"]),
]

PROBES = [
    {"httpGet": {"path": "/up", "port": 80}},
    {"httpGet": {"port": "http", "scheme": "HTTPS", "host": "h", "httpHeaders": [{"name": "x", "value": "y"}]}, "timeoutSeconds": 3},
    {"httpGet": {"port": "unknown"}},
    {"httpGet": {"path": "/a&b<c>", "port": 15020}},
    {"tcpSocket": {"port": 90}, "initialDelaySeconds": 4},
    {"tcpSocket": {"port": "http", "host": "h"}},
    {"grpc": {"port": 91}, "failureThreshold": 2},
    {"grpc": {"port": 91, "service": "health"}, "timeoutSeconds": 1},
    {"exec": {"command": ["true"]}},
    {"periodSeconds": 3},
]
HANDLERS = [
    {"httpGet": {"path": "/bye", "port": "http"}},
    {"tcpSocket": {"port": 80}},
    {"exec": {"command": ["sleep", "1"]}},
    {"sleep": {"seconds": 2}},
]
CONTAINER = [
    ("image", ["hello:1.0", "registry:5000/hello@sha256:abc", "hello"]),
    ("imagePullPolicy", ["Never"]),
    ("command", [["run", "it"]]),
    ("args", [["--port", "80"]]),
    ("env", [[{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]]),
    ("envFrom", [[{"configMapRef": {"name": "c"}}]]),
    ("ports", [[{"name": "http", "containerPort": 80}], [{"containerPort": 80, "protocol": "UDP"}, {"name": "http", "containerPort": 8080, "hostPort": 8081}]]),
    ("resources", [{"limits": {"cpu": "1", "memory": "0.5Gi"}, "requests": {"cpu": 0.1}}, {"claims": [{"name": "gpu"}]}]),
    ("securityContext", [{"runAsUser": 1337}, {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}, {"privileged": True}]),
    ("volumeMounts", [[{"name": "data", "mountPath": "/data"}]]),
    ("readinessProbe", PROBES),
    ("livenessProbe", PROBES),
    ("startupProbe", PROBES),
    ("lifecycle", [{"preStop": handler} for handler in HANDLERS] + [{"postStart": handler} for handler in HANDLERS]),
    ("stdin", [True]),
    ("tty", [True]),
    ("workingDir", ["/work"]),
    ("terminationMessagePolicy", ["FallbackToLogsOnError"]),
]
# Containers of ours that users write themselves.
PROXY_CONTAINER = [
    ("image", ["auto", "custom/proxy:2"]),
    ("securityContext", [{"runAsUser": 1234}, {"runAsUser": 0}, {"runAsGroup": 5678}, {"runAsUser": 11, "runAsGroup": 12}, {"allowPrivilegeEscalation": True}]),
    ("resources", [{"requests": {"cpu": "300m"}}, {"limits": {"memory": "2Gi"}}]),
    ("env", [[{"name": "EXTRA", "value": "1"}], [{"name": "POD_NAME", "value": "fixed"}]]),
    ("args", [["proxy", "sidecar", "--mine"]]),
    ("lifecycle", [{"preStop": {"exec": {"command": ["sleep", "9"]}}}]),
    ("volumeMounts", [[{"name": "certs", "mountPath": "/certs"}]]),
    ("readinessProbe", [{"httpGet": {"path": "/mine", "port": 8080}}, PROBES[4]]),
    ("ports", [[{"containerPort": 8443, "name": "tls"}], [{"containerPort": 15090, "name": "other"}]]),
    ("startupProbe", [{"tcpSocket": {"port": 1}}]),
]
POD = [
    ("serviceAccountName", ["shopper"]),
    ("automountServiceAccountToken", [False]),
    ("hostNetwork", [True]),
    ("dnsPolicy", ["Default"]),
    ("restartPolicy", ["OnFailure"]),
    ("nodeName", ["node-1"]),
    ("securityContext", [{"fsGroup": 1337}, {"runAsUser": 1337, "runAsNonRoot": True}, {"sysctls": [{"name": "a", "value": "b"}]}, {}]),
    ("imagePullSecrets", [[{"name": "mine"}], [{"name": "one"}]]),
    ("volumes", [[{"name": "data", "emptyDir": {}}], [{"name": "istio-data", "hostPath": {"path": "/d"}}], [{"name": "certs", "secret": {"secretName": "c"}}]]),
    ("tolerations", [[{"key": "a", "operator": "Exists"}]]),
    ("nodeSelector", [{"disk": "fast"}]),
    ("affinity", [{"nodeAffinity": {}}]),
    ("hostAliases", [[{"ip": "1.2.3.4", "hostnames": ["a"]}]]),
    ("topologySpreadConstraints", [[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]]),
    ("terminationGracePeriodSeconds", [0, 60]),
    ("shareProcessNamespace", [True]),
    ("readinessGates", [[{"conditionType": "x"}]]),
    ("overhead", [{"cpu": "250m"}]),
    ("dnsConfig", [{"searches": ["a.b"]}]),
    ("enableServiceLinks", [False]),
]
KINDS = ["Pod", "Pod", "Deployment", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "List"]
VERSIONS = {"Pod": "v1", "ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}


def features(chance):
    """Variables of the control plane."""
    chosen = {"ENABLE_NATIVE_SIDECARS": chance.choice(["true", "false"])}
    if chance.random() < 0.1:
        chosen["COMPLIANCE_POLICY"] = chance.choice(["fips-140-2", "fips-140-3"])
    return chosen


def place(tree, path, value):
    *before, last = path.split(".")
    for key in before:
        tree = tree.setdefault(key, {})
    tree[last] = value


def some(chance, table, share):
    """About so many of a table's rows, with one of the choices of each."""
    return [(row[0], chance.choice(row[1])) for row in table if chance.random() < share]


def proxy_config(chance, share):
    chosen = dict(some(chance, PROXY, share))
    if "serviceCluster" in chosen:
        chosen.pop("tracingServiceName", None)
    if "zipkinAddress" in chosen:
        chosen.pop("tracing", None)
    return chosen


def installation(chance):
    """The spec of an IstioOperator."""
    values, mesh = {}, {}
    for path, value in some(chance, VALUES, 0.15):
        place(values, path, value)
    for path, value in some(chance, MESH, 0.15):
        place(mesh, path, value)
    if chance.random() < 0.6:
        mesh["defaultConfig"] = proxy_config(chance, 0.12)
    spec = {"values": values, "meshConfig": mesh}
    if chance.random() < 0.25:
        place(spec, "components.cni.enabled", True)
        place(spec, "components.cni.namespace", "kube-system")
    if chance.random() < 0.15:
        spec["revision"] = "canary"
        values["revision"] = "canary"
    return spec


def annotations(chance, foreign):
    wrong_one = chance.choice(ANNOTATIONS) if chance.random() < 0.12 else None
    chosen = {}
    for row in ANNOTATIONS:
        name, right, wrong = row
        share = 0.02 if name in ("sidecar.istio.io/inject", "proxy.istio.io/overrides", "sidecar.istio.io/status") else 0.07
        if row is wrong_one and wrong:
            chosen[name] = chance.choice(wrong)
        elif chance.random() < share:
            chosen[name] = chance.choice(right)
    if chance.random() < 0.3:
        # JSON is YAML, too.
        chosen["proxy.istio.io/config"] = json.dumps(proxy_config(chance, 0.08))
    if chance.random() < 0.15 and "inject.istio.io/templates" not in chosen:
        chosen["inject.istio.io/templates"] = foreign
    return chosen


def container(chance, name):
    made = {"name": name, **dict(some(chance, CONTAINER, 0.2))}
    return made


def pod_spec(chance):
    names = ["hello", "extra"] if chance.random() < 0.3 else ["hello"]
    containers = [container(chance, name) for name in names]
    inits = [container(chance, "prepare")] if chance.random() < 0.2 else []
    if inits and chance.random() < 0.3:
        inits[0]["restartPolicy"] = "Always"
    if chance.random() < 0.2:
        proxy = {"name": "istio-proxy", **dict(some(chance, PROXY_CONTAINER, 0.3))}
        target = inits if chance.random() < 0.2 else containers
        target.insert(chance.randrange(len(target) + 1), proxy)
    if chance.random() < 0.06:
        inits.append({"name": "istio-init", **dict(some(chance, PROXY_CONTAINER, 0.2))})
    spec = {"containers": containers}
    if inits:
        spec["initContainers"] = inits
    for name, value in some(chance, POD, 0.06):
        spec[name] = value
    return spec


def metadata(chance, foreign):
    made = {}
    labels = dict(some(chance, LABELS, 0.15))
    if "sidecar.istio.io/inject" in labels and chance.random() < 0.7:
        del labels["sidecar.istio.io/inject"]
    if labels:
        made["labels"] = labels
    own = annotations(chance, foreign)
    if own:
        made["annotations"] = own
    return made


def document(chance, foreign):
    kind = chance.choice(KINDS)
    if kind == "List":
        return {"apiVersion": "v1", "kind": "List", "items": [one(chance, foreign, chance.choice(KINDS[:5])) for _ in range(2)]}
    return one(chance, foreign, kind)


def one(chance, foreign, kind):
    pod = {"metadata": metadata(chance, foreign), "spec": pod_spec(chance)}
    own = {"name": "hello" if chance.random() < 0.9 else "a" * 60 + ".b-c-def"}
    if chance.random() < 0.4:
        own["namespace"] = chance.choice(["shop", "kube-system", "shop"])
    document = {"apiVersion": VERSIONS.get(kind, "apps/v1"), "kind": kind, "metadata": own}
    if kind == "Pod":
        document["metadata"].update(pod["metadata"])
        document["spec"] = pod["spec"]
    elif kind == "CronJob":
        document["spec"] = {"schedule": "@daily", "jobTemplate": {"spec": {"template": pod}}}
    else:
        document["spec"] = {"template": pod}
        if kind == "StatefulSet":
            document["spec"]["serviceName"] = "hello"
        if kind != "Job":
            document["spec"]["selector"] = {"app": "hello"} if kind == "ReplicationController" else {"matchLabels": {"app": "hello"}}
    return document


def template(expression):
    return "metadata:\n  annotations:\n    result: {{ " + expression + " | toString | toJson }}\n"


def plain(name):
    """A pod of a template."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hello", "namespace": "shop", "labels": {"app": "hello"}, "annotations": {"inject.istio.io/templates": name}},
        "spec": {"containers": [{"name": "hello", "image": "hello:1.0"}]},
    }
