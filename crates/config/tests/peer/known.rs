//! Where we differ from Istio on purpose, and why.

/// On which side more is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Refused here, taken by Istio.
    Stricter,
    /// Taken here, refused by Istio.
    Laxer,
    /// A warning here alone.
    Louder,
    /// A warning of Istio's alone.
    Quieter,
}

/// A difference that is meant: parts of what is said by the side that says more, and why.
pub struct Known {
    pub side: Side,
    pub says: &'static [&'static str],
    pub reason: &'static str,
}

const fn stricter(says: &'static [&'static str], reason: &'static str) -> Known {
    Known { side: Side::Stricter, says, reason }
}

const fn laxer(says: &'static [&'static str], reason: &'static str) -> Known {
    Known { side: Side::Laxer, says, reason }
}

const fn louder(says: &'static [&'static str], reason: &'static str) -> Known {
    Known { side: Side::Louder, says, reason }
}

const fn quieter(says: &'static [&'static str], reason: &'static str) -> Known {
    Known { side: Side::Quieter, says, reason }
}

pub const KNOWN: &[Known] = &[
    stricter(&["unknown field"], "no field is ignored in silence"),
    stricter(
        &["only one of ", "exactly one provider must be set", "duplicate field"],
        "of two members of a oneof Istio takes the last in silence",
    ),
    stricter(&["found nothing", ", found null"], "Istio passes over null in lists and maps"),
    stricter(&["is not one of "], "an enum has no such number"),
    stricter(
        &["`from` must not be empty", "`to` must not be empty"],
        "refused by Istio where it sees it: its webhook reads an empty list as none",
    ),
    stricter(
        &["unknown attribute \"request.", "unknown attribute \"experimental."],
        "Istio looks at the first letters alone, and no such attribute exists",
    ),
    stricter(
        &["%eth0\" is not a valid ", "\"fe80::1%eth0\""],
        "proxies know no zones of addresses, and refuse the configuration",
    ),
    stricter(&["label value ", "a label value has at most 63"], "no label of Kubernetes is longer than 63 characters"),
    stricter(
        &["httpHeaderName: header name cannot be empty", "is not a valid header name"],
        "no such header can be sent",
    ),
    stricter(&["'%' opens no command"], "Envoy refuses what is no command of its"),
    stricter(&["must be one line"], "no such header can be sent"),
    stricter(&["root HTTP route must not specify direct_response"], "a route cannot answer and delegate"),
    stricter(&["spec.gateways[", "gateways["], "Istio stops at the first name without a namespace"),
    stricter(&["sourceNamespace", "sourceSubnet"], "Istio looks at it in HTTP matches alone"),
    stricter(&["fault.delay.percent: percentage"], "Istio looks at percentage alone"),
    stricter(&["is higher than maxProtocolVersion"], "no handshake can succeed"),
    stricter(&["outbound_.<port>_.<subset>_.<host>"], "Istio looks for a digit and a letter alone"),
    stricter(&["spec.template."], "a workload with it could not register: its WorkloadEntry would be refused"),
    stricter(&["spec.egress[0].bind", "].bind: "], "services' ports are listened on there"),
    stricter(
        &["url has", "is not a URL", "url must have scheme http:// or https:// and a host"],
        "nothing can be fetched from there",
    ),
    stricter(&["failed to parse url"], "Istio takes what is no URL for the host of another"),
    stricter(
        &[
            "readinessProbe",
            "zipkinAddress",
            "ca.",
            "envoyAccessLogService",
            "envoyMetricsService.address",
            "ExportTo[",
            "defaultHttpRetryPolicy",
            "dnsRefreshRate",
            "proxyInboundListenPort",
            "outlierDetectionHttpErrorCodes",
            "caCertificates[",
            "fileFlushInterval",
            "hboneIdleTimeout",
            "tracing.sampling",
            "defaultConfig.concurrency",
            "terminationDrainDuration",
            "tlsSettings",
            "statsdUdpAddress",
            "tcpKeepalive",
            "outboundTrafficPolicy",
        ],
        "Istio does not look at it",
    ),
    stricter(&["name a header, or the start or end"], "an empty pattern matches every header"),
    stricter(&["exactly one of fromCidr", "exactly one of registryServiceName"], "it says nothing"),
    stricter(
        &[
            "connectionSettings.listenerPerConnectionBufferLimitBytes",
            "connectionSettings.clusterPerConnectionBufferLimitBytes",
        ],
        "nothing is unbounded",
    ),
    stricter(&["defaultInboundHttpRetryPolicy"], "a field that is newer than the release that is asked"),
    louder(
        &["ignored by the default inbound http retry policy"],
        "a field that is newer than the release that is asked",
    ),
    stricter(&["invalid namespace value: \"~"], "no provider is in what is left out"),
    laxer(
        &["json: cannot unmarshal object into Go value of type string"],
        "YAML 1.2 reads an address that ends in colons as a key",
    ),
    laxer(
        &["unknown health check method"],
        "probes by gRPC are in the API, and work; Istio's validation does not know them",
    ),
    laxer(&["referenced type unknown"], "Envoy may know types that we do not"),
    quieter(
        &["not used (duplicate/overlapping match"],
        "Istio compares paths, methods, hosts and ports, and not the rest of a match",
    ),
    louder(&["deprecated"], "deprecated in the API; Istio does not say so everywhere"),
    louder(&["no service has such a port"], "it has no effect"),
    louder(&["outlier detection policy must be provided"], "Istio loses what it says of subsets and ports"),
    louder(
        &["abort configured, but error type not set", "without a name the route leads nowhere", "customTags"],
        "it has no effect",
    ),
    louder(&["is not supported; TLSV1_2 is used", "not used: the CRL of the secret"], "it has no effect"),
    louder(&["policies with this provider deny"], "so it is"),
    louder(&["outboundTrafficPolicy.tls: has an effect in mode", "cipherSuites["], "it has no effect"),
    louder(
        &["targetPort has no effect", "workloadSelector has no effect", "certificates have no effect"],
        "it has no effect",
    ),
    louder(&["several hosts with one address and TLS"], "Istio says so of resolution DNS alone"),
    louder(&["NONE without bind"], "it is often not meant"),
    louder(&["this form of a gateway's name"], "Istio stops at the first name without a namespace"),
    louder(&["this match is not used", "this rule is not used"], "Istio finds equal matches and some prefixes"),
    louder(&["will deny all traffic"], "Istio looks at no condition"),
    quieter(
        &["will deny all traffic"],
        "trust domains are looked at of connections as well, and so are conditions on ports",
    ),
];
