//! Which filter chain of several serves a connection: by port, addresses, server name, transport and application protocol.

use super::client::{Action, Call, Probe, Step, Tls};
use super::pki::Version;
use super::random::Random;
use super::{Plan, cluster, log, manager, tls};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const LISTENERS: usize = 2;
const PROBES: usize = 16;

const NAMES: &[&str] = &["a.example", "b.example", "api.b.example", "*.b.example", "*.example", "*.deep.b.example"];
const ASKED: &[&str] = &["a.example", "b.example", "api.b.example", "x.b.example", "y.deep.b.example", "other"];
const PREFIXES: &[(&str, u32)] =
    &[("127.0.0.0", 8), ("127.1.0.0", 16), ("127.1.2.0", 24), ("127.1.2.3", 32), ("10.0.0.0", 8)];
const SOURCES: &[(&str, u32)] =
    &[("127.0.0.0", 8), ("127.90.0.0", 15), ("127.91.0.0", 16), ("127.92.0.0", 17), ("9.0.0.0", 8)];
const TARGETS: &[[u8; 4]] = &[[127, 0, 0, 1], [127, 1, 2, 3], [127, 1, 2, 9], [127, 1, 9, 9], [127, 9, 9, 9]];
const PROTOCOLS: &[&str] = &["h2", "http/1.1", "http/1.0", "h2c", "istio", "istio-peer-exchange"];
const SOURCE_PORT: u16 = 20777;

fn ranges(random: &mut Random, from: &[(&str, u32)]) -> Value {
    let all: Vec<Value> =
        from.iter().map(|(address, length)| json!({ "address_prefix": address, "prefix_len": length })).collect();
    let mut some = random.some(&all, 30);
    if some.is_empty() {
        some.push(all[random.below(all.len())].clone());
    }
    Value::Array(some)
}

fn one_or_two(random: &mut Random, from: &[&str]) -> Value {
    let first = random.pick(from);
    let second = random.pick(from);
    if first == second || random.chance(60) { json!([first]) } else { json!([first, second]) }
}

fn criteria(random: &mut Random, port: u16) -> Value {
    let mut found = json!({});
    if random.chance(15) {
        found["destination_port"] = json!(if random.chance(70) { port } else { 4444 });
    }
    if random.chance(30) {
        found["prefix_ranges"] = ranges(random, PREFIXES);
    }
    if random.chance(45) {
        found["server_names"] = one_or_two(random, NAMES);
    }
    if random.chance(55) {
        found["transport_protocol"] = json!(random.pick(&["tls", "tls", "raw_buffer"]));
    }
    if random.chance(30) {
        found["application_protocols"] = one_or_two(random, PROTOCOLS);
    }
    if random.chance(15) {
        found["source_type"] = json!(random.pick(&["SAME_IP_OR_LOOPBACK", "EXTERNAL"]));
    }
    if random.chance(20) {
        found["source_prefix_ranges"] = ranges(random, SOURCES);
    }
    if random.chance(10) {
        found["direct_source_prefix_ranges"] = ranges(random, SOURCES);
    }
    if random.chance(12) {
        found["source_ports"] = json!([SOURCE_PORT]);
    }
    found
}

/// Every combination that the criteria stand for; Envoy refuses a second chain with one of them.
fn combinations(criteria: &Value) -> Vec<String> {
    let keys = [
        "destination_port",
        "prefix_ranges",
        "server_names",
        "transport_protocol",
        "application_protocols",
        "direct_source_prefix_ranges",
        "source_type",
        "source_prefix_ranges",
        "source_ports",
    ];
    keys.iter().fold(vec![String::new()], |so_far, key| {
        let values = match criteria.get(key) {
            None => vec![Value::Null],
            Some(Value::Array(items)) => items.clone(),
            Some(value) => vec![value.clone()],
        };
        so_far.iter().flat_map(|start| values.iter().map(move |value| format!("{start}/{value}"))).collect()
    })
}

fn chain(plan: &Plan<'_>, random: &mut Random, name: &str) -> Value {
    // A connection whose handshake fails is logged by Envoy's TCP proxy, not by ours.
    let secure = random.chance(60);
    let filter = if random.chance(30) {
        let mut proxy = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name, "cluster": "chains-tcp" });
        if !secure {
            // A client that speaks HTTP to it ends as it likes.
            proxy["access_log"] = log::without(&["BYTES_RECEIVED", "BYTES_SENT"]);
        }
        json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy })
    } else {
        let route = json!({ "name": name, "match": { "prefix": "/" },
            "direct_response": { "status": 200, "body": { "inline_string": name } } });
        let hosts = json!([{ "name": "all", "domains": ["*"], "routes": [route] }]);
        let http = json!({ "http_protocol_options": { "accept_http_10": true } });
        manager::network(manager::manager(hosts, manager::filters(Vec::new()), http))
    };
    let mut chain = json!({ "name": name, "filters": [filter] });
    if secure {
        // With all that clients may offer: see the scenario of TLS.
        let alpn: &[&str] = if random.chance(60) { &["h2", "http/1.1"] } else { &[] };
        let certificate = random.pick(&["default", "exact", "wild"]);
        chain["transport_socket"] =
            tls::downstream(&plan.setup.pki, &[certificate], json!({ "alpn_protocols": alpn }), json!({}));
    }
    chain
}

fn add_listener(plan: &mut Plan<'_>, random: &mut Random) -> usize {
    let port = plan.next_port();
    let (mut taken, mut chains) = (BTreeSet::new(), Vec::new());
    for number in 0..3 + random.below(5) {
        let criteria = criteria(random, port);
        let mine = combinations(&criteria);
        if mine.iter().any(|combination| taken.contains(combination)) {
            continue;
        }
        taken.extend(mine);
        let mut chain = chain(plan, random, &format!("chain-{number}"));
        chain["filter_chain_match"] = criteria;
        chains.push(chain);
    }
    let mut inspectors = Vec::new();
    for kind in ["tls_inspector.v3.TlsInspector", "http_inspector.v3.HttpInspector"] {
        if random.chance(85) {
            inspectors.push(json!({ "name": kind, "typed_config": {
                "@type": format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}") } }));
        }
    }
    let mut rest = json!({
        "filter_chains": chains,
        "listener_filters": inspectors,
        "listener_filters_timeout": "0.300s",
        "continue_on_listener_filters_timeout": random.chance(50),
    });
    if random.chance(60) {
        rest["default_filter_chain"] = chain(plan, random, "default");
    }
    plan.listener(rest)
}

fn client_tls(random: &mut Random) -> Tls {
    let sni = random.chance(85).then(|| random.pick(ASKED).to_owned());
    let alpn = match random.below(5) {
        0 => vec!["h2".to_owned()],
        1 => vec!["http/1.1".to_owned()],
        2 => vec!["h2".to_owned(), "http/1.1".to_owned()],
        3 => vec!["istio".to_owned(), "h2".to_owned()],
        _ => Vec::new(),
    };
    Tls { sni, alpn, certificate: None, version: Version::Any }
}

fn action(random: &mut Random, tls: Option<&Tls>) -> Action {
    let http1 = |version: &str| Action::Http1 {
        bytes: format!("GET / HTTP/{version}\r\nhost: chains\r\nconnection: close\r\nx-test-id: @ID@\r\n\r\n"),
        answers: 1,
    };
    if tls.is_some_and(|tls| tls.alpn.iter().any(|alpn| alpn == "h2")) {
        return Action::Http2(Call::get("chains", "/"));
    }
    match random.below(10) {
        0 | 1 => http1("1.0"),
        2..6 => http1("1.1"),
        6 | 7 if tls.is_none() => Action::Http2(Call::get("chains", "/")),
        8 => Action::Tcp(vec![Step::Expect(6), Step::Send("close".to_owned()), Step::ReadToEnd]),
        _ => {
            let odd = Step::Send("odd bytes\r\n\r\n".to_owned());
            Action::Tcp(vec![odd, Step::Pause(150), Step::Finish, Step::ReadToEnd])
        }
    }
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    plan.cluster(cluster("chains-tcp", &[plan.setup.backends.tcp[0]], json!({})));
    for _ in 0..LISTENERS {
        let listener = add_listener(plan, random);
        for _ in 0..PROBES {
            let tls = random.chance(60).then(|| client_tls(random));
            let target = TARGETS[random.below(TARGETS.len())];
            let mut probe = Probe::new("chains", listener, Ipv4Addr::from(target), action(random, tls.as_ref()));
            probe.tls = tls;
            if random.chance(30) {
                probe.from_port = SOURCE_PORT;
            }
            plan.probe(probe, random.below(4) as u8);
        }
    }
}
