//! Policies at random: every source, operation and condition, wildcards of each form, and what is a mistake.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

pub struct Random(StdRng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A few of them, perhaps one twice.
    fn some(&mut self, all: &[&str]) -> Value {
        let count = 1 + self.below(3);
        (0..count).map(|_| *self.one_of(all)).collect()
    }
}

const PRINCIPALS: &[&str] = &[
    "*",
    "td1/ns/a/sa/b",
    "cluster.local/ns/foo/sa/x",
    "*/ns/foo/sa/x",
    "*-td/ns/a/sa/b",
    "old-td/ns/a/sa/b",
    "far/ns/a/sa/b",
    "abc",
    "abc*",
    "*abc",
    "a.b/ns/c+d/sa/e",
    "*/sa/x",
    "td1/ns/a/sa/*",
    "/ns/a/sa/b",
    "td1/ns/a/sa/b/c",
    "*.x/ns/(a)/sa/[b]",
    "cluster.local/*",
    "*d1/ns/a/sa/b",
];
const NO_PRINCIPALS: &[&str] = &["td*/ns/a/sa/b", "a*b", "**", "*/*", ""];
const REQUEST_PRINCIPALS: &[&str] = &[
    "*",
    "iss/sub",
    "iss/*",
    "*/sub",
    "https://i/x/sub",
    "*.com/sub",
    "iss/s*",
    "*sub",
    "iss*",
    "iss",
    "/",
    "a/b/*",
    "*a/b",
    "/sub",
    "iss/",
    "https://*",
    "*/",
];
const NO_REQUEST_PRINCIPALS: &[&str] = &["**", "*/s*", "*/*", "*a/*", ""];
const NAMESPACES: &[&str] = &["ns", "ns*", "*ns", "*", "a.b", "a+b"];
const NO_NAMESPACES: &[&str] = &["n*s", "*a*", "**", ""];
const SERVICE_ACCOUNTS: &[&str] = &["sa", "ns/sa", "a.b/c.d", "foo/a+b"];
const NO_SERVICE_ACCOUNTS: &[&str] = &["x/y/z", "/sa", "ns/", "ns/*", "", "*"];
const TRUST_DOMAINS: &[&str] = &["td1", "td*", "*td", "*", "a.b", "cluster.local", "old-td", "far", "*.x"];
const NO_TRUST_DOMAINS: &[&str] = &["t*d", "a*b*c", "(a)", "", "td/1"];
const RANGES: &[&str] = &[
    "1.2.3.4",
    "10.0.0.0/8",
    "10.1.2.3/8",
    "2001:db8::1",
    "2001:db8::/32",
    "::/0",
    "0.0.0.0/0",
    "1.2.3.4/32",
    "fd00::1/64",
    "::ffff:1.2.3.4",
    "::ffff:1.2.3.4/120",
    "::1/128",
    "2001:DB8::A",
];
const NO_RANGES: &[&str] =
    &["1.2.3.4/33", "x", "1.2.3", "01.2.3.4", "1.2.3.4/", "1.2.3.4/08", "", "fe80::1%eth0", "1.2.3.4/+8", " 1.2.3.4"];
const PORTS: &[&str] = &["80", "1", "65535", "8080", "443"];
const NO_PORTS: &[&str] = &["0", "65536", "-1", "+80", "080", "x", "", " 80", "80.0"];
const HOSTS: &[&str] = &["a.com", "*.com", "a.*", "*", "A.COM", "a.com:80"];
const NO_HOSTS: &[&str] = &["**", "a*b", "*a*", ""];
const METHODS: &[&str] = &["GET", "P*", "*T", "*", "get"];
const NO_METHODS: &[&str] = &["A*B", "", "**"];
const PATHS: &[&str] =
    &["/a", "/a/*", "*/b", "*", "/a/{*}", "/{**}/b", "/{*}/{**}", "/a/{*}/c/{*}/d", "/A", "/a?b", "/a/{**}", "/{*}"];
// Not "{*}": Istio takes it, and its proxy then refuses the whole listener.
const NO_PATHS: &[&str] = &["a", "*a*", "/a{b}", "/x/{**}.html", "/{*}.js", "/{**}/{*}", "", "/a/{*}*"];
const WORDS: &[&str] = &["v", "v*", "*v", "*", "[v]", "a b", "[v*]", "[*]", "v.w", "[v"];
const NO_WORDS: &[&str] = &["", "*v*", "{*}", "**"];
const NAMES: &[&str] = &["a.com", "*.com", "a.*", "*"];
const NO_NAMES: &[&str] = &["**", ""];

/// Values, and what is a mistake in their place.
type Pools = (&'static [&'static str], &'static [&'static str]);

/// Keys of conditions, with values that fit them.
const CONDITIONS: &[(&str, Pools)] = &[
    ("source.ip", (RANGES, NO_RANGES)),
    ("remote.ip", (RANGES, NO_RANGES)),
    ("destination.ip", (RANGES, NO_RANGES)),
    ("destination.port", (PORTS, NO_PORTS)),
    ("source.namespace", (NAMESPACES, NO_NAMESPACES)),
    ("source.principal", (PRINCIPALS, NO_PRINCIPALS)),
    ("source.trustDomain", (TRUST_DOMAINS, NO_TRUST_DOMAINS)),
    ("source.serviceAccount", (SERVICE_ACCOUNTS, NO_SERVICE_ACCOUNTS)),
    ("connection.sni", (NAMES, NO_NAMES)),
    ("request.auth.principal", (REQUEST_PRINCIPALS, NO_REQUEST_PRINCIPALS)),
    ("request.auth.audiences", (WORDS, NO_WORDS)),
    ("request.auth.presenter", (WORDS, NO_WORDS)),
    ("request.headers[X-A]", (WORDS, NO_WORDS)),
    ("request.headers[:method]", (METHODS, NO_METHODS)),
    ("request.headers[:path]", (WORDS, NO_PATHS)),
    ("request.headers[host]", (HOSTS, NO_HOSTS)),
    ("request.auth.claims[a]", (WORDS, NO_WORDS)),
    ("request.auth.claims[a][b]", (WORDS, NO_WORDS)),
    ("request.auth.claims[a.b][c/d]", (WORDS, NO_WORDS)),
    ("experimental.envoy.filters.a.b[c]", (WORDS, NO_WORDS)),
    ("experimental.envoy.filters.a.b[c][d]", (WORDS, NO_WORDS)),
];

const WRONG_CONDITIONS: &[&str] = &[
    "unknown",
    "request.headers",
    "request.headers[]",
    "request.headers[a",
    "request.headersX[a]",
    "request.auth.claims",
    "request.auth.claims[]",
    "request.auth.claims[a]b[c]",
    "request.auth.claims[a[b]c]",
    "request.auth.claims[a]]",
    "source.foo",
    "destination.user",
    "experimental.envoy.filters.a.b",
    "experimental.envoy.filters.[c]",
    "experimental.foo[x]",
    "Source.ip",
    "source.ip ",
];

/// Documents, and what else the filters of a workload depend on.
pub struct Policies {
    pub documents: Vec<Value>,
    pub mesh: Value,
    /// The mesh's own first; there may be none.
    pub trust_domains: Vec<&'static str>,
    pub several: bool,
}

impl Policies {
    pub fn generate(random: &mut Random) -> Self {
        let count = 1 + random.below(4);
        let trust_domains = match random.below(4) {
            0 => vec![],
            1 => vec!["td1"],
            2 => vec!["td1", "old-td", "some-td"],
            _ => vec!["cluster.local", "td1"],
        };
        let is_wrong = random.one_in(4);
        let documents = (0..count).map(|index| document(random, index, is_wrong)).collect();
        Self { documents, mesh: mesh(random), trust_domains, several: random.one_in(2) }
    }

    /// JSON is YAML.
    pub fn text(&self) -> String {
        self.documents.iter().map(|document| format!("---\n{document}\n")).collect()
    }
}

fn document(random: &mut Random, index: usize, is_wrong: bool) -> Value {
    let mut metadata = json!({"name": format!("p{index}"), "namespace": "foo"});
    if random.one_in(5) {
        metadata["annotations"] =
            json!({"istio.io/dry-run": *random.one_of(&["true", "1", "T", "false", "yes", "tRUE"])});
    }
    let action = *random.one_of(&["ALLOW", "DENY", "AUDIT", "CUSTOM", "ALLOW", "DENY"]);
    let mut spec = json!({ "action": action });
    if action == "CUSTOM" {
        spec["provider"] = json!({"name": *random.one_of(&["http", "grpc", "http", "grpc", "absent"])});
    }
    if random.one_in(4) {
        spec["selector"] = json!({"matchLabels": {"app": "httpbin"}});
    }
    if action != "ALLOW" && !is_wrong || !random.one_in(10) {
        let whose = if action == "CUSTOM" && !is_wrong { Whose::Custom } else { Whose::Others { is_wrong } };
        spec["rules"] = (0..1 + random.below(3)).map(|_| rule(random, whose)).collect();
    }
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec})
}

/// Rules of CUSTOM policies cannot ask for identities and tokens.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    Custom,
    Others { is_wrong: bool },
}

impl Whose {
    fn is_wrong(self) -> bool {
        self == Self::Others { is_wrong: true }
    }
}

fn rule(random: &mut Random, whose: Whose) -> Value {
    let mut rule = Map::new();
    if random.one_in(2) {
        let sources = (0..1 + random.below(2)).map(|_| json!({"source": source(random, whose)}));
        rule.insert("from".into(), sources.collect());
    }
    if random.one_in(2) {
        let operations = (0..1 + random.below(2)).map(|_| json!({"operation": operation(random, whose.is_wrong())}));
        rule.insert("to".into(), operations.collect());
    }
    if random.one_in(2) {
        rule.insert("when".into(), (0..1 + random.below(3)).map(|_| condition(random, whose)).collect());
    }
    Value::Object(rule)
}

impl Random {
    fn values(&mut self, (values, mistakes): Pools, is_wrong: bool) -> Value {
        let pool = if is_wrong && self.one_in(4) { mistakes } else { values };
        self.some(pool)
    }
}

/// Some of the fields, with values or with values that are not to be, or both.
fn fields(random: &mut Random, all: &[(&str, &str, Pools)], is_wrong: bool) -> Value {
    let mut chosen = Map::new();
    for _ in 0..1 + random.below(3) {
        let (name, not, pools) = *random.one_of(all);
        let which = random.below(3);
        if which != 1 {
            chosen.insert(name.into(), random.values(pools, is_wrong));
        }
        if which != 0 {
            chosen.insert(not.into(), random.values(pools, is_wrong));
        }
    }
    Value::Object(chosen)
}

fn source(random: &mut Random, whose: Whose) -> Value {
    let is_wrong = whose.is_wrong();
    // Accounts, which say their namespace, do not stand beside namespaces and principals.
    let accounts = [("serviceAccounts", "notServiceAccounts", (SERVICE_ACCOUNTS, NO_SERVICE_ACCOUNTS))];
    let others = [
        ("principals", "notPrincipals", (PRINCIPALS, NO_PRINCIPALS)),
        ("namespaces", "notNamespaces", (NAMESPACES, NO_NAMESPACES)),
    ];
    let beside = [
        ("requestPrincipals", "notRequestPrincipals", (REQUEST_PRINCIPALS, NO_REQUEST_PRINCIPALS)),
        ("trustDomains", "notTrustDomains", (TRUST_DOMAINS, NO_TRUST_DOMAINS)),
        ("ipBlocks", "notIpBlocks", (RANGES, NO_RANGES)),
        ("remoteIpBlocks", "notRemoteIpBlocks", (RANGES, NO_RANGES)),
    ];
    let own = match (is_wrong && random.one_in(4), random.one_in(3)) {
        _ if whose == Whose::Custom => beside[2..].to_vec(),
        (true, _) => [&accounts[..], &others, &beside].concat(),
        (_, true) => [&accounts[..], &beside].concat(),
        _ => [&others[..], &beside].concat(),
    };
    fields(random, &own, is_wrong)
}

fn operation(random: &mut Random, is_wrong: bool) -> Value {
    let all = [
        ("hosts", "notHosts", (HOSTS, NO_HOSTS)),
        ("methods", "notMethods", (METHODS, NO_METHODS)),
        ("paths", "notPaths", (PATHS, NO_PATHS)),
        ("ports", "notPorts", (PORTS, NO_PORTS)),
    ];
    fields(random, &all, is_wrong)
}

fn condition(random: &mut Random, whose: Whose) -> Value {
    let is_wrong = whose.is_wrong();
    let of_all = |key: &str| !key.starts_with("request.auth") && (!key.starts_with("source.") || key == "source.ip");
    let own: Vec<_> = CONDITIONS.iter().filter(|(key, _)| whose != Whose::Custom || of_all(key)).collect();
    let (mut key, pools) = **random.one_of(&own);
    if is_wrong && random.one_in(3) {
        key = *random.one_of(WRONG_CONDITIONS);
    }
    let mut condition = json!({ "key": key });
    let which = random.below(3);
    if which != 1 {
        condition["values"] = random.values(pools, is_wrong);
    }
    if which != 0 {
        condition["notValues"] = random.values(pools, is_wrong);
    }
    condition
}

const SERVICES: &[&str] = &[
    "my-custom-ext-authz.foo.svc.cluster.local",
    "foo/my-custom-ext-authz.foo.svc.cluster.local",
    "my-custom-ext-authz.foo.svc.cluster.local",
    "bar/my-custom-ext-authz.foo.svc.cluster.local",
    "absent.foo.svc.cluster.local",
];
const HEADERS: &[&str] = &["x-a", "x-*", "*-b", "X-C", "*", "**"];

fn mesh(random: &mut Random) -> Value {
    json!({"extensionProviders": [
        {"name": "http", "envoyExtAuthzHttp": provider(random, true)},
        {"name": "grpc", "envoyExtAuthzGrpc": provider(random, false)},
    ]})
}

fn provider(random: &mut Random, is_http: bool) -> Value {
    let mut provider =
        json!({"service": *random.one_of(SERVICES), "port": *random.one_of(&[9000, 9000, 9000, 9000, 0, 65536])});
    let mut maybe = |key: &str, value: Value, random: &mut Random| {
        if random.one_in(3) {
            provider[key] = value;
        }
    };
    maybe("timeout", json!(random.one_of(&["0.5s", "2s", "0.000001s"])), random);
    maybe("failOpen", json!(true), random);
    maybe("statusOnError", json!(random.one_of(&["403", "503", "403", "999", "x", "+403", "0403"])), random);
    let body =
        json!({"maxRequestBytes": 4096, "allowPartialMessage": random.one_in(2), "packAsBytes": random.one_in(2)});
    maybe("includeRequestBodyInCheck", body, random);
    if is_http {
        maybe("pathPrefix", json!(random.one_of(&["/check", "/", "check", "/%zz"])), random);
        for list in [
            "includeRequestHeadersInCheck",
            "includeHeadersInCheck",
            "headersToUpstreamOnAllow",
            "headersToDownstreamOnDeny",
            "headersToDownstreamOnAllow",
        ] {
            let most = if random.one_in(8) { HEADERS.len() } else { 4 };
            maybe(list, random.some(&HEADERS[..most]), random);
        }
        maybe("includeAdditionalHeadersInCheck", json!({"x-b": "1", "x-a": "2"}), random);
    }
    provider
}
