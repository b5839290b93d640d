use super::*;

#[test]
fn cluster_names_round_trip() {
    let cases = [
        (
            "outbound|80|v1|a.default.svc.cluster.local",
            Cluster::Outbound { port: 80, subset: "v1", host: "a.default.svc.cluster.local" },
        ),
        ("outbound|80||*.example.com", Cluster::Outbound { port: 80, subset: "", host: "*.example.com" }),
        ("outbound_.80_._.a.b", Cluster::OutboundSni { port: 80, subset: "", host: "a.b" }),
        ("inbound|8080||", Cluster::Inbound { port: 8080 }),
        ("PassthroughCluster", Cluster::Fixed("PassthroughCluster")),
        ("inbound|8080||host", Cluster::Fixed("inbound|8080||host")),
        ("outbound|+80||a", Cluster::Fixed("outbound|+80||a")),
        ("outbound|80|a", Cluster::Fixed("outbound|80|a")),
    ];
    for (name, parsed) in cases {
        assert_eq!(Cluster::parse(name), parsed, "{name}");
        assert_eq!(parsed.to_string(), name);
    }
    assert_eq!(outbound_sni(80, "v1", "a.b"), "outbound_.80_.v1_.a.b");
    assert_eq!(Cluster::parse(&inbound(7)), Cluster::Inbound { port: 7 });
}

#[test]
fn route_names_are_told_apart() {
    let cases = [
        ("80", Route::Port(80)),
        ("a.default.svc.cluster.local:80", Route::Host { host: "a.default.svc.cluster.local", port: 80 }),
        ("[::1]:80", Route::Host { host: "::1", port: 80 }),
        ("unix:///tmp/s", Route::Unix("unix:///tmp/s")),
        ("http_proxy", Route::HttpProxy),
        ("http.80", Route::GatewayHttp),
        ("http.80.10.0.0.1", Route::GatewayHttp),
        ("https.443.https.gw.ns", Route::GatewayHttps),
        ("", Route::Unknown),
        (":80", Route::Unknown),
        ("nonsense", Route::Unknown),
    ];
    for (name, parsed) in cases {
        assert_eq!(Route::parse(name), parsed, "{name}");
    }
}

#[test]
fn domains_bracket_ipv6() {
    assert_eq!(domain("::1", 80), "[::1]:80");
    assert_eq!(domain("a.b", 80), "a.b:80");
}
