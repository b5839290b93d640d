//! Documents changed in one place: what is there taken away, emptied, doubled or replaced, what is not there put in.

use serde_json::{Map, Value, json};

use super::shape::Shape;

pub const TEXTS: &[&str] = &[
    "",
    "*",
    "*.",
    "*.b",
    "*.a.b",
    "*a.b",
    "a.*",
    "a*",
    "*-a",
    "a",
    "a-",
    "A.B",
    "a.b",
    "a.b.",
    "a..b",
    ".a",
    "-a",
    "a_b",
    "a.1",
    "1",
    "65536",
    "1.2.3.4",
    "1.2.3.4/8",
    "1.2.3.4/33",
    "1.2.3.0/24/1",
    "/24",
    "01.2.3.4",
    "1.2.3",
    "::1",
    "[::1]",
    "::1/64",
    "fe80::1%eth0",
    "::ffff:1.2.3.4",
    "unix:///a",
    "unix:///a/",
    "unix://@a",
    "unix://a",
    "unix://",
    "ns/a",
    "ns/",
    "ns/*",
    "*/*",
    "*/a.b",
    "./*",
    "./a.b",
    "~/*",
    "~ns/a.b",
    "ns/a.b",
    "ns/a.b/c",
    "ns1/1.2.3.4",
    "/a",
    "a/",
    "a/b/c",
    "a/b/*",
    "a/*/c",
    ".",
    "~",
    "default",
    "mesh",
    "outbound_.80_._.a.b",
    "outbound_.80_.v1_.a.b",
    "outbound_.a_._.a.b",
    "outbound_a",
    "http://a",
    "http://a:80/b",
    "https://a.b:x",
    "http://",
    "http://a b",
    "HTTPS://a",
    "ftp://a",
    "oci://a/b:c",
    "file:///a",
    "a:80",
    "a.b:99999",
    "a:0",
    ":80",
    "127.0.0.1:80",
    "0.0.0.0:80",
    "[::1]:80",
    "::1:80",
    "127.0.0.1:",
    "$(HOST_IP):80",
    "%",
    "%%",
    "%A%",
    "%a%",
    "%A(b)%",
    "%A(b):3%",
    "%A",
    "%A([\"b\"])%",
    "a\nb",
    "a b",
    "äö",
    ":authority",
    ":Authority",
    "host",
    "Host",
    ":path",
    ":a",
    "a:",
    "@request.auth.claims.a",
    "@request.auth.claims[a]",
    "@request.auth.claims",
    "@request.auth.claims-a",
    "(",
    "[a",
    "a{1001}",
    "(?=a)",
    "\\C",
    "\\d+",
    "{*}",
    "/{*}/{**}",
    "/{**}/a",
    "{a}",
    "/{*}*",
    "/a/{*}.b",
    "200",
    "599",
    "600",
    "5xx",
    "5xx,503",
    "gateway-error, 503",
    "5XX",
    "418",
    "GET",
    "get",
    "HTTP",
    "http",
    "HTTP2",
    "TCP",
    "TLS",
    "UDP",
    "MYSQL",
    "HTTPS",
    "HBONE",
    "GRPC-Web",
    "GRPC-WEB-INSECURE",
    "HTTP_PROXY",
    "SCTP",
    "true",
    "NOT_FOUND",
    "not_found",
    "OK",
    "ALL",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "-ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "P-256",
    "P-224",
    "configmap://a",
    "configmap://default/a",
    "kubernetes://a/b",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone=a",
    "topology.istio.io/subzone",
    "source.ip",
    "source.principal",
    "destination.port",
    "destination.labels[a]",
    "request.headers[a]",
    "request.headers[]",
    "request.headersX[a]",
    "request.auth.claims[a][b]",
    "request.auth.claims",
    "connection.sni",
    "experimental.envoy.filters.a[b]",
    "source.namespace",
    "remote.ip",
    "a == b",
    "a ==",
    "response.code >= 400 && x.y['a']",
    "{}",
    "{\"keys\":[]}",
    "{\"keys\":[{\"kty\":\"oct\",\"k\":\"YQ\"}]}",
    "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
    "YQ==",
    "CONNECT",
    "core",
    "Service",
    "Gateway",
    "GatewayClass",
    "ServiceEntry",
    "gateway.networking.k8s.io",
    "networking.istio.io",
    "envoy.lua",
    "envoy.filters.network.http_connection_manager",
];
const LONG: &[usize] = &[63, 64, 253, 254, 255, 256, 257, 300, 320, 321, 1024, 1025, 2049];
const DURATIONS: &[&str] = &[
    "0s",
    "1s",
    "1ms",
    "999us",
    "1.5ms",
    "1.0005s",
    "0.0000001s",
    "-1s",
    "1h30m",
    "1",
    "",
    "1d",
    "500000h",
    "1m",
    "1.5s",
    "+1s",
];
const NUMBERS: &[f64] = &[
    0.0,
    1.0,
    2.0,
    5.0,
    80.0,
    99.0,
    100.0,
    101.0,
    199.0,
    200.0,
    299.0,
    300.0,
    399.0,
    400.0,
    599.0,
    600.0,
    601.0,
    4096.0,
    65534.0,
    65535.0,
    65536.0,
    -1.0,
    5_000_011.0,
    4_294_967_295.0,
    4_294_967_296.0,
    0.000_05,
    0.000_1,
    0.5,
    100.5,
    -0.5,
    1e9,
];
const KEYS: &[&str] = &[
    "",
    "a",
    "A",
    "a.b/c",
    "a*",
    "*",
    "-a",
    "a b",
    "80",
    "0",
    "65536",
    "host",
    ":authority",
    ":path",
    ":a",
    "a/b/c",
    "/a",
    "a_b",
    "a.b",
    "äö",
    "@request.auth.claims.a",
];

/// A place in a document, and what is to be there; nothing if it is to go.
type Change = (Vec<String>, Option<Value>);

/// Every change of one place.
pub fn changes(document: &Value, shape: &Shape) -> Vec<Change> {
    let mut found = Vec::new();
    visit(document, shape, &mut Vec::new(), &mut found);
    metadata(document, &mut found);
    found
}

fn metadata(document: &Value, found: &mut Vec<Change>) {
    if document.get("metadata").is_none() {
        return;
    }
    let at = |path: &[&str]| path.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
    for (name, value) in [
        ("istio.io/dry-run", "true"),
        ("istio.io/dry-run", "maybe"),
        ("internal.istio.io/webhook-always-reject", "a"),
        ("internal.istio.io/parents", "a"),
        ("internal.istio.io/parent-namespace", "a"),
        ("a", "b"),
    ] {
        found.push((at(&["metadata", "annotations"]), Some(Map::from_iter([(name.to_owned(), json!(value))]).into())));
    }
    for (name, value) in [
        ("networking.istio.io/enable-autoallocate-ip", "false"),
        ("networking.istio.io/enable-autoallocate-ip", "true"),
        ("istio.io/use-waypoint", "a"),
        ("istio.io/use-waypoint", "None"),
    ] {
        found.push((at(&["metadata", "labels"]), Some(Map::from_iter([(name.to_owned(), json!(value))]).into())));
    }
    for name in ["a.b", "a-b"] {
        found.push((at(&["metadata", "name"]), Some(json!(name))));
    }
}

fn visit(value: &Value, shape: &Shape, at: &mut Vec<String>, found: &mut Vec<Change>) {
    if at.first().is_some_and(|first| matches!(first.as_str(), "apiVersion" | "kind" | "metadata")) {
        return;
    }
    let mut push = |value: Value| found.push((at.clone(), Some(value)));
    match value {
        Value::String(_) if matches!(shape, Shape::Duration) => DURATIONS.iter().for_each(|text| push(json!(text))),
        Value::String(_) => {
            if let Shape::Choice(names) = shape {
                names.iter().for_each(|name| push(json!(name)));
                (0..=names.len()).for_each(|number| push(json!(number)));
                push(json!("NO_SUCH"));
            } else {
                TEXTS
                    .iter()
                    .chain(DURATIONS.iter().filter(|_| matches!(shape, Shape::Any)))
                    .for_each(|text| push(json!(text)));
                LONG.iter().for_each(|length| push(json!("a".repeat(*length))));
            }
        }
        Value::Number(_) => NUMBERS.iter().for_each(|number| push(number_of(*number))),
        Value::Bool(flag) => push(json!(!flag)),
        Value::Array(items) => {
            push(json!([]));
            if let Some(first) = items.first() {
                push(items.iter().chain([first]).cloned().collect());
                push(items.iter().rev().cloned().collect());
                push(items.iter().chain([&Value::Null]).cloned().collect());
            }
            for sample in shape.within("").samples(1) {
                push(items.iter().chain([&sample]).cloned().collect());
            }
        }
        Value::Object(fields) => {
            push(json!({}));
            objects(fields, shape, at, found);
        }
        Value::Null => {}
    }
    if !at.is_empty() {
        found.push((at.clone(), None));
    }
    let inner: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        _ => Vec::new(),
    };
    for (step, value) in inner {
        let shape = shape.within(&step);
        at.push(step);
        visit(value, shape, at, found);
        at.pop();
    }
}

/// Other keys for the entries of a map; fields that a struct lacks.
fn objects(fields: &Map<String, Value>, shape: &Shape, at: &[String], found: &mut Vec<Change>) {
    let within = |name: &str| at.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
    match shape {
        Shape::Map(of) => {
            let value = fields.values().next().cloned().or_else(|| of.samples(1).into_iter().next());
            let value = value.unwrap_or_default();
            KEYS.iter().for_each(|key| found.push((within(key), Some(value.clone()))));
        }
        Shape::Fields(known) => {
            for (name, of) in known.iter().filter(|(name, _)| !fields.contains_key(*name)) {
                of.samples(2).into_iter().for_each(|sample| found.push((within(name), Some(sample))));
            }
        }
        _ => {}
    }
}

fn number_of(number: f64) -> Value {
    if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
}

/// The document after a change.
pub fn apply(document: &Value, (path, value): &Change) -> Value {
    let mut out = document.clone();
    let Some((last, above)) = path.split_last() else { return value.clone().unwrap_or_default() };
    let mut holder = &mut out;
    for step in above {
        holder = match holder {
            Value::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get_mut(i)).expect("there"),
            Value::Object(fields) => fields.entry(step.clone()).or_insert_with(|| json!({})),
            _ => return out,
        };
    }
    match (holder, value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(last.clone(), value.clone())),
        (Value::Object(fields), None) => drop(fields.remove(last)),
        (Value::Array(items), value) => {
            let i: usize = last.parse().expect("a position");
            match value {
                Some(value) if i < items.len() => items[i] = value.clone(),
                None if i < items.len() => drop(items.remove(i)),
                _ => {}
            }
        }
        _ => {}
    }
    out
}
