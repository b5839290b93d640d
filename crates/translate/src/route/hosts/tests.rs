use super::*;

#[test]
fn short_names_depend_on_the_proxy_s_namespace() {
    let cases: [(&str, &str, &[&str]); 6] = [
        ("a.ns.svc.cluster.local", "ns.svc.cluster.local", &["a.ns.svc.cluster.local.", "a", "a.ns.svc", "a.ns"]),
        ("a.ns.svc.cluster.local", "other.svc.cluster.local", &["a.ns.svc.cluster.local.", "a.ns", "a.ns.svc"]),
        ("a.ns.svc.other.domain", "ns.svc.cluster.local", &["a.ns.svc.other.domain."]),
        ("example.com", "ns.svc.cluster.local", &["example.com."]),
        ("1.2.3.4", "ns.svc.cluster.local", &[]),
        ("a.b.corp", "x.corp", &["a.b.corp.", "a.b", "a.b.corp"]),
    ];
    for (host, domain, expected) in cases {
        assert_eq!(alternative_hosts(host, None, domain), expected, "{host} in {domain}");
    }
    assert_eq!(
        alternative_hosts("a.ns.svc.cluster.local", Some(80), "ns.svc.cluster.local")[..4],
        ["a.ns.svc.cluster.local.", "a.ns.svc.cluster.local.:80", "a", "a:80"]
    );
}
