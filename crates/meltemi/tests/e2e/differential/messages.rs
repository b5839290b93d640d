//! HTTP/1 messages at the edge of the grammar and beyond it, HTTP/1.0, and streams that become tunnels.

use super::client::{Action, Call, Probe};
use super::random::Random;
use super::{Plan, cluster, manager, tls};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const PROBES: usize = 40;

/// Request lines; `{P}` is the path of a route.
const LINES: &[&str] = &[
    "GET {P} HTTP/1.1",
    "GET {P} HTTP/1.1",
    "GET {P} HTTP/1.1",
    "POST {P} HTTP/1.1",
    "POST {P} HTTP/1.1",
    "PUT {P} HTTP/1.1",
    "HEAD {P} HTTP/1.1",
    "get {P} HTTP/1.1",
    "FOO {P} HTTP/1.1",
    "GET {P}#part HTTP/1.1",
    "GET {P}/a%00b HTTP/1.1",
    "GET {P}/a%zz HTTP/1.1",
    "GET {P}\u{e9} HTTP/1.1",
    "GET http://messages.example{P} HTTP/1.1",
    "GET http://other.example:81{P}?x=1 HTTP/1.1",
    "GET {P} HTTP/1.0",
    "GET messages HTTP/1.1",
    "TRACE {P} HTTP/1.1",
];

const HOSTS: &[&str] = &[
    "host: messages.example",
    "host: messages.example",
    "host: messages.example",
    "host: messages.example",
    "host: messages.example",
    "host: messages.example",
    "Host: messages.example:8080",
    "HOST:messages.example",
    "host: a b",
    "host: [::1]:80",
    "",
];

/// Fields that are well formed, odd or broken.
const FIELDS: &[&str] = &[
    "x-tab: a\tb",
    "x-empty:",
    "x-spaces:   padded   ",
    "x-latin: \u{e9}",
    "x_under: score",
    "x-control: a\u{1}b",
    "x-space : before the colon",
    ": no name",
    "x-no-colon",
    "x-comma: a, b",
    "connection: close",
    "connection: keep-alive",
    "connection: x-one",
    "x-one: two",
    "keep-alive: timeout=5",
    "proxy-connection: keep-alive",
    "te: trailers",
    "te: gzip",
    "upgrade: h2c",
    "cookie: a=1",
    "x-forwarded-proto: https",
    "x-forwarded-proto: bogus",
    "x-forwarded-for: 1.2.3.4",
    "x-envoy-internal: true",
    "accept: a",
];

/// Stand for a field that is too long, and for too many of them.
const LONG: &str = "long";
const MANY: &str = "many";

/// How a body is announced and what it is.
const BODIES: &[&str] = &[
    "content-length: 5\r\n\r\nhello",
    "content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "content-length: 5, 5\r\n\r\nhello",
    "content-length: +5\r\n\r\nhello",
    "content-length: -5\r\n\r\nhello",
    "content-length: 0x5\r\n\r\nhello",
    "content-length:\r\n\r\nhello",
    "content-length: 99999999999999999999\r\n\r\nhello",
    "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n05\r\nhello\r\n000\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n0\r\nx-trailer: 1\r\n\r\n",
    "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "transfer-encoding: identity\r\n\r\nhello",
    "\r\n",
];

/// One fault in a request: which of two is found first is each proxy's own affair.
fn broken(random: &mut Random, path: &str) -> Action {
    let sound = |method: &str| format!("{method} {path} HTTP/1.1");
    let mut line = sound(random.pick(&["GET", "POST", "PUT", "HEAD"]));
    let (mut host, mut body) = (HOSTS[0], "\r\n");
    let mut fields = Vec::new();
    match random.below(8) {
        0 | 1 => line = random.pick(LINES).replace("{P}", path),
        2 => {
            line = sound(random.pick(&["GET", "POST", "PUT"]));
            host = random.pick(HOSTS);
        }
        3 | 4 => {
            line = sound(random.pick(&["POST", "PUT"]));
            body = random.pick(BODIES);
        }
        5 => fields = vec![random.pick(&[LONG, MANY]).to_owned()],
        _ => {
            line = sound(random.pick(&["GET", "POST", "PUT"]));
            fields = random.some(FIELDS, 8).into_iter().map(str::to_owned).collect();
        }
    }
    let mut text = format!("{line}\r\nx-test-id: @ID@\r\n");
    for field in [host.to_owned()].into_iter().chain(fields).filter(|field| !field.is_empty()) {
        text += &match field.as_str() {
            LONG => format!("x-long: {}\r\n", "v".repeat(70_000)),
            MANY => "x-many: v\r\n".repeat(110),
            field => format!("{field}\r\n"),
        };
    }
    Action::Http1 { bytes: text + body, answers: 1 }
}

/// Two requests written at once.
fn pipelined(random: &mut Random, path: &str) -> Action {
    let mut text = String::new();
    for last in [false, true] {
        let close = if last || random.chance(15) { "connection: close\r\n" } else { "" };
        let body = random.pick(&[
            "\r\n",
            "content-length: 5\r\n\r\nhello",
            "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n\r\n",
        ]);
        text += &format!("POST {path} HTTP/1.1\r\nhost: messages.example\r\nx-test-id: @ID@\r\n{close}{body}");
    }
    Action::Http1 { bytes: text, answers: 2 }
}

fn upgrade(random: &mut Random, path: &str) -> Action {
    let kind = random.pick(&["websocket", "WebSocket", "other", "h2c"]);
    let connection = random.pick(&["Upgrade", "Upgrade", "close"]);
    let wanted = random.pick(&[
        "",
        "",
        "",
        "x-want: refuse-upgrade\r\n",
        "x-want: refuse-upgrade,status=302,location=/there\r\n",
        "x-want: refuse-upgrade,status=404\r\n",
    ]);
    let text = format!(
        "GET {path} HTTP/1.1\r\nhost: messages.example\r\nx-test-id: @ID@\r\nconnection: {connection}\r\nupgrade: {kind}\r\n{wanted}\r\n"
    );
    Action::Http1 { bytes: text, answers: 1 }
}

/// Only to HTTP/2: over HTTP/1 Envoy cannot pass the end of one direction on, and waits until the stream is idle; we can.
fn extended(random: &mut Random) -> Action {
    let mut call = Call::get("messages.example", "/http2");
    call.method = "CONNECT".to_owned();
    call.protocol = Some(random.pick(&["websocket", "other"]).to_owned());
    Action::Http2(call)
}

fn connect(random: &mut Random) -> Action {
    if random.chance(50) {
        return Action::Http1 {
            bytes: "CONNECT messages.example:80 HTTP/1.1\r\nhost: messages.example:80\r\nx-test-id: @ID@\r\n\r\n"
                .to_owned(),
            answers: 1,
        };
    }
    let mut call = Call::get("messages.example:80", "");
    call.method = "CONNECT".to_owned();
    Action::Http2(call)
}

fn settings(random: &mut Random) -> Value {
    let mut settings = json!({
        "http_protocol_options": { "accept_http_10": random.chance(50), "default_host_for_http_10": "default.example" },
        "http2_protocol_options": { "allow_connect": true },
        "use_remote_address": random.chance(40),
        "upgrade_configs": [],
        "common_http_protocol_options": { "headers_with_underscores_action": random.pick(&["ALLOW", "REJECT_REQUEST", "DROP_HEADER"]) },
        "stream_idle_timeout": "2s",
    });
    for kind in random.some(&["websocket", "CONNECT", "other"], 70) {
        settings["upgrade_configs"].as_array_mut().expect("a list").push(json!({ "upgrade_type": kind }));
    }
    settings
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let route = |cluster: &str| json!({ "name": cluster, "match": { "prefix": format!("/{cluster}") }, "route": { "cluster": format!("messages-{cluster}") } });
    let mut routes = vec![route("http1"), route("http2")];
    if random.chance(60) {
        let mut action = json!({ "cluster": "messages-http1" });
        if random.chance(50) {
            action["upgrade_configs"] = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
        }
        routes.insert(0, json!({ "name": "connect", "match": { "connect_matcher": {} }, "route": action }));
    }
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
    let manager = manager::manager(hosts, manager::filters(Vec::new()), settings(random));
    let listener = plan.listener(manager::listener(manager));
    let backends = &plan.setup.backends;
    let options = |kind| json!({ "typed_extension_protocol_options": tls::protocol(kind, json!({})) });
    let clusters = [
        cluster("messages-http1", &[backends.plain[0]], options("http1")),
        cluster("messages-http2", &[backends.plain[1]], options("http2")),
    ];
    clusters.into_iter().for_each(|cluster| plan.cluster(cluster));
    for _ in 0..PROBES {
        let path = random.pick(&["/http1", "/http1", "/http2"]);
        let action = match random.below(10) {
            0 => pipelined(random, path),
            1 => upgrade(random, path),
            2 => extended(random),
            3 => connect(random),
            _ => broken(random, path),
        };
        plan.probe(Probe::new("messages", listener, Ipv4Addr::LOCALHOST, action), 0);
    }
}
