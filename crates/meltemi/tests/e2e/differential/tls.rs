//! TLS on both sides: certificates by server name, versions, ALPN, client certificates and what is said of them, and TLS to the
//! backends.

use super::client::{Action, Call, Probe, Tls};
use super::pki::{Pki, Version};
use super::random::Random;
use super::{Plan, cluster, manager};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const LISTENERS: usize = 2;
const PROBES: usize = 16;
const CLUSTERS: usize = 3;

const URIS: &[&str] = &["spiffe://td/ns/x/sa/client", "spiffe://td/ns/y/sa/second", "spiffe://td/ns/x/sa/backend"];

fn certificates(pki: &Pki, names: &[&str]) -> Value {
    let one = |name: &&str| {
        let pair = pki.pair(name);
        json!({ "certificate_chain": { "inline_string": pair.certificate }, "private_key": { "inline_string": pair.key } })
    };
    names.iter().map(one).collect()
}

fn context(kind: &str, pki: &Pki, names: &[&str], mut common: Value, rest: Value) -> Value {
    if !names.is_empty() {
        common["tls_certificates"] = certificates(pki, names);
    }
    let mut config = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"),
        "common_tls_context": common,
    });
    super::merge(&mut config, rest);
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}

/// A listener's TLS with these certificates.
pub fn downstream(pki: &Pki, names: &[&str], common: Value, rest: Value) -> Value {
    context("DownstreamTlsContext", pki, names, common, rest)
}

fn subject_matchers(random: &mut Random) -> Value {
    let one = |random: &mut Random| match random.below(5) {
        0 => json!({ "san_type": "DNS", "matcher": { "exact": random.pick(&["client.example", "backend.example"]) } }),
        1 => json!({ "san_type": "URI", "matcher": { "prefix": "spiffe://td/" } }),
        2 => json!({ "san_type": "DNS", "matcher": { "suffix": ".example" } }),
        _ => json!({ "san_type": "URI", "matcher": { "exact": random.pick(URIS) } }),
    };
    (0..1 + random.below(2)).map(|_| one(random)).collect()
}

fn validation(pki: &Pki, random: &mut Random) -> Value {
    let mut context = json!({ "trusted_ca": { "inline_string": pki.authority.certificate } });
    if random.chance(40) {
        context["match_typed_subject_alt_names"] = subject_matchers(random);
    }
    if random.chance(30) {
        spiffe_validator(&mut context, pki, random);
        return context;
    }
    if random.chance(25) {
        let known = ["client", "second", "backend", "default"];
        let (first, second) = (pki.pair(random.pick(&known)), pki.pair(random.pick(&known)));
        match random.below(3) {
            0 => context["verify_certificate_hash"] = json!([first.hash(), second.hash()]),
            1 => context["verify_certificate_spki"] = json!([first.key_hash(), second.key_hash()]),
            _ => {
                context["verify_certificate_hash"] = json!([first.hash()]);
                context["verify_certificate_spki"] = json!([second.key_hash()]);
            }
        }
        return context;
    }
    if random.chance(12) && context.get("match_typed_subject_alt_names").is_none() {
        // With names Envoy lets everybody in, and we only those who are named.
        context["trust_chain_verification"] = json!("ACCEPT_UNTRUSTED");
    }
    context
}

/// Roots of each trust domain, in the place of those of all.
fn spiffe_validator(context: &mut Value, pki: &Pki, random: &mut Random) {
    let domain =
        |name: &str, roots: &[&str]| json!({ "name": name, "trust_bundle": { "inline_string": roots.concat() } });
    let (own, stranger) = (pki.authority.certificate.as_str(), pki.stranger.certificate.as_str());
    let domains = match random.below(4) {
        0 => json!([domain("td", &[own])]),
        1 => json!([domain("td", &[own]), domain("other", &[stranger])]),
        2 => json!([domain("td", &[own]), domain("other", &[own, stranger])]),
        _ => json!([domain("other", &[stranger])]),
    };
    context["custom_validator_config"] = json!({ "name": "envoy.tls.cert_validator.spiffe", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        "trust_domains": domains } });
}

fn versions(random: &mut Random) -> Value {
    let mut params = match random.below(4) {
        0 => json!({ "tls_maximum_protocol_version": "TLSv1_2" }),
        1 => json!({ "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" }),
        // Without a maximum Envoy's own connections end at 1.2, ours at 1.3.
        _ => json!({ "tls_maximum_protocol_version": "TLSv1_3" }),
    };
    if random.chance(40) {
        params["ecdh_curves"] = json!(random.pick(&[
            &["P-256"][..],
            &["P-384", "P-256"],
            &["X25519", "P-256", "P-384"],
            &["X25519MLKEM768", "P-256"],
        ]));
    }
    params
}

fn client_details(random: &mut Random) -> Value {
    let mode = random.pick(&["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"]);
    let mut settings = json!({ "forward_client_cert_details": mode, "use_remote_address": random.chance(50) });
    if random.chance(70) {
        let mut details = json!({});
        for part in ["subject", "dns", "uri", "cert", "chain"] {
            details[part] = json!(random.chance(60));
        }
        settings["set_current_client_cert_details"] = details;
    }
    settings
}

/// The listener, and the protocols that it offers.
fn add_listener(plan: &mut Plan<'_>, random: &mut Random) -> (usize, Vec<&'static str>) {
    let pki = &plan.setup.pki;
    let cluster = |random: &mut Random| json!(format!("tls-{}", random.below(CLUSTERS)));
    let routes = json!([
        { "name": "presented", "match": { "prefix": "/p", "tls_context": { "presented": random.chance(50) } },
          "route": { "cluster": cluster(random) } },
        { "name": "validated", "match": { "prefix": "/v", "tls_context": { "validated": random.chance(50) } },
          "route": { "cluster": cluster(random) } },
        { "name": "rewritten", "match": { "prefix": "/h" },
          "route": { "cluster": cluster(random), "host_rewrite_literal": "backend.example" } },
        { "name": "rest", "match": { "prefix": "/" }, "route": { "cluster": cluster(random) } },
    ]);
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
    let manager = manager::manager(hosts, manager::filters(Vec::new()), client_details(random));
    let mut names = random.some(&["default", "exact", "wild"], 60);
    if names.is_empty() {
        names.push("default");
    }
    let mut common = json!({ "tls_params": versions(random) });
    let offered = match random.below(3) {
        0 => Vec::new(),
        1 => vec!["http/1.1"],
        _ => vec!["h2", "http/1.1"],
    };
    common["alpn_protocols"] = json!(offered);
    let mut rest = json!({});
    if random.chance(75) {
        common["validation_context"] = validation(pki, random);
        // Envoy tells a client that was let in unverified from a verified one, we do not.
        common["validation_context"].as_object_mut().expect("an object").remove("trust_chain_verification");
        rest["require_client_certificate"] = json!(random.chance(50));
    }
    let mut listener = manager::listener(manager);
    listener["filter_chains"][0]["transport_socket"] = downstream(pki, &names, common, rest);
    if random.chance(50) {
        listener["listener_filters"] = json!([{ "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" } }]);
    }
    (plan.listener(listener), offered)
}

/// HTTP protocol options of a cluster.
pub fn protocol(kind: &str, upstream: Value) -> Value {
    let mut options = match kind {
        "http1" => json!({ "explicit_http_config": { "http_protocol_options": {} } }),
        "http2" => json!({ "explicit_http_config": { "http2_protocol_options": {} } }),
        "downstream" => {
            json!({ "use_downstream_protocol_config": { "http_protocol_options": {}, "http2_protocol_options": {} } })
        }
        _ => json!({ "auto_config": { "http_protocol_options": {}, "http2_protocol_options": {} } }),
    };
    options["@type"] = json!("type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions");
    if upstream != json!({}) {
        options["upstream_http_protocol_options"] = upstream;
    }
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options })
}

fn add_cluster(plan: &mut Plan<'_>, random: &mut Random, number: usize) {
    let pki = &plan.setup.pki;
    let mut common = json!({ "tls_params": versions(random) });
    let kind = random.pick(&["http1", "http2", "downstream", "auto"]);
    match kind {
        "http2" if random.chance(80) => common["alpn_protocols"] = json!(["h2"]),
        "auto" | "downstream" => {}
        _ if random.chance(50) => common["alpn_protocols"] = json!(["http/1.1"]),
        _ => {}
    }
    let mut upstream = json!({});
    if random.chance(40) {
        upstream["auto_sni"] = json!(true);
        upstream["auto_san_validation"] = json!(random.chance(50));
    }
    if random.chance(70) || upstream["auto_san_validation"] == true {
        common["validation_context"] = validation(pki, random);
    }
    if upstream["auto_san_validation"] == true {
        let context = common["validation_context"].as_object_mut().expect("an object");
        context.remove("trust_chain_verification");
        context.remove("custom_validator_config");
    }
    let mut rest = json!({});
    if random.chance(50) {
        rest["sni"] = json!(random.pick(&["backend.example", "x.back.example", "other.example"]));
    }
    let names: &[&str] = if random.chance(50) { &["client"] } else { &[] };
    let socket = context("UpstreamTlsContext", pki, names, common, rest);
    let name = format!("tls-{number}");
    let address = plan.setup.backends.tls[number];
    let cluster = cluster(
        &name,
        &[address],
        json!({ "transport_socket": socket, "typed_extension_protocol_options": protocol(kind, upstream) }),
    );
    plan.cluster(cluster);
}

fn client_tls(random: &mut Random, offered: &[&str]) -> Tls {
    let names = ["a.example", "api.b.example", "x.b.example", "y.x.b.example", "default.example", "other"];
    let certificate = match random.below(11) {
        0 | 1 => None,
        2 | 3 => Some("client"),
        4 => Some("second"),
        5 => Some("nameless"),
        6 => Some("foreign"),
        7 | 8 => Some("other"),
        9 => Some("claimed"),
        _ => Some("expired"),
    };
    let version = match random.below(4) {
        0 => Version::Tls12,
        1 => Version::Tls13,
        _ => Version::Any,
    };
    let alpn: &[&str] = match random.below(4) {
        0 => &[],
        1 => &["http/1.1"],
        // Without a protocol in common Envoy goes on without one, we refuse (RFC 7301 section 3.2).
        2 if offered != ["http/1.1"] => &["h2"],
        _ => &["h2", "http/1.1"],
    };
    Tls {
        sni: random.chance(85).then(|| random.pick(&names).to_owned()),
        alpn: alpn.iter().map(|alpn| (*alpn).to_owned()).collect(),
        certificate,
        version,
    }
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    for number in 0..CLUSTERS {
        add_cluster(plan, random, number);
    }
    for _ in 0..LISTENERS {
        let (listener, offered) = add_listener(plan, random);
        for _ in 0..PROBES {
            let tls = client_tls(random, &offered);
            let path = random.pick(&["/p", "/v", "/h", "/"]);
            let host = random.pick(&["backend.example", "y.back.example", "other.example", "127.0.0.1"]);
            let claimed = random.chance(40).then_some("By=spiffe://td/a;Hash=0123;URI=spiffe://td/b");
            let action = if tls.alpn == ["h2"] {
                let mut call = Call::get(host, path);
                call.headers.extend(claimed.map(|claim| ("x-forwarded-client-cert".to_owned(), claim.to_owned())));
                Action::Http2(call)
            } else {
                let claimed = claimed.map_or(String::new(), |claim| format!("x-forwarded-client-cert: {claim}\r\n"));
                let bytes = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-test-id: @ID@\r\n{claimed}\r\n");
                Action::Http1 { bytes, answers: 1 }
            };
            let mut probe = Probe::new("tls", listener, Ipv4Addr::LOCALHOST, action);
            probe.tls = Some(tls);
            plan.probe(probe, random.below(2) as u8);
        }
    }
}
