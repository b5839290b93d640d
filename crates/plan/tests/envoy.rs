//! The same bootstrap given to our conversions and to a real Envoy must be accepted or refused by both.
//!
//! Envoy is the program that `MELTEMI_ENVOY` names, or `envoy` on the path; without it only our half runs.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accept,
    /// Both; ours with this in its text.
    Refuse(&'static str),
    /// Only we refuse, since we do not support it.
    Unsupported(&'static str),
    /// Only Envoy refuses; the text says why that is fine.
    EnvoyStricter,
}
use Verdict::{Accept, EnvoyStricter, Refuse, Unsupported};

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn indented(text: &str, spaces: usize) -> String {
    let pad = " ".repeat(spaces);
    text.trim_matches('\n').lines().map(|line| format!("{pad}{line}\n")).collect()
}

/// Listeners and clusters around the parts.
fn bootstrap(listeners: &str, clusters: &str) -> Value {
    let mut document = yaml("node: { id: node, cluster: c }\nstatic_resources: {}\n");
    let resources = document["static_resources"].as_object_mut().unwrap();
    if !listeners.is_empty() {
        resources.insert("listeners".into(), yaml(listeners));
    }
    resources.insert("clusters".into(), yaml(clusters));
    document
}

const ONE_CLUSTER: &str =
    "[{ name: one, connect_timeout: 1s, load_assignment: { cluster_name: one, endpoints: [{ lb_endpoints: [
  { endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 1 } } } }] }] } }]";

/// A connection manager around virtual hosts; `extra` are more of its fields.
fn with_hosts(hosts: &str, extra: &str) -> Value {
    let listener = format!(
        "- name: l
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: s
        http_filters:
        - name: envoy.filters.http.router
          typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
        route_config:
          name: r
          virtual_hosts:
{}{}",
        indented(hosts, 10),
        indented(extra, 8),
    );
    bootstrap(&listener, ONE_CLUSTER)
}

fn with_routes(routes: &str) -> Value {
    with_hosts(&format!("- name: v\n  domains: [\"*\"]\n  routes:\n{}", indented(routes, 2)), "")
}

/// One route to the one cluster with more fields in its action.
fn with_action(action: &str) -> Value {
    with_routes(&format!("- match: {{ prefix: / }}\n  route:\n    cluster: one\n{}", indented(action, 4)))
}

/// One route with a match.
fn with_match(matching: &str) -> Value {
    with_routes(&format!("- match:\n{}  route: {{ cluster: one }}\n", indented(matching, 4)))
}

fn with_hcm(extra: &str) -> Value {
    with_hosts("- { name: v, domains: [\"*\"] }", extra)
}

/// HTTP filters in front of the router.
fn with_filter(filter: &str) -> Value {
    let mut document = with_hcm("");
    let filters = &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    filters.as_array_mut().unwrap().insert(0, yaml(filter));
    document
}

/// TCP filter chains with these matches.
fn with_chains(matches: &[&str]) -> Value {
    let chains: String = matches
        .iter()
        .map(|found| {
            format!(
                "  - filter_chain_match: {found}
    filters:
    - name: envoy.filters.network.tcp_proxy
      typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: one }}\n"
            )
        })
        .collect();
    let listener = format!(
        "- name: l\n  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}\n  filter_chains:\n{chains}"
    );
    bootstrap(&listener, ONE_CLUSTER)
}

/// One cluster with these fields beside its name.
fn with_cluster(fields: &str) -> Value {
    bootstrap("", &format!("- name: one\n  connect_timeout: 1s\n{}", indented(fields, 2)))
}

const ENDPOINT: &str = "load_assignment: { cluster_name: one, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 1 } } } }] }] }";

fn ours(document: &Value) -> Result<(), String> {
    let proto = meltemi_proto::json::from_value(document).map_err(|error| error.to_string())?;
    meltemi_plan::bootstrap(&proto).map(drop).map_err(|error| error.to_string())
}

fn envoy() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("MELTEMI_ENVOY") {
        return Some(named.into());
    }
    let found = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("envoy"))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: Envoy's half, there is no envoy on the path");
    }
    found
}

fn envoys(program: &PathBuf, document: &Value) -> Result<(), String> {
    let output = Command::new(program)
        .args(["--mode", "validate", "-l", "error", "--config-yaml", &document.to_string()])
        .output()
        .expect("envoy runs");
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[path = "envoy/cases.rs"]
mod cases;

#[test]
fn both_accept_and_refuse_the_same() {
    let program = envoy();
    let mut wrong = Vec::new();
    for (name, document, verdict) in cases::all() {
        let ours = ours(&document);
        let fine = match verdict {
            Accept | EnvoyStricter => ours.is_ok(),
            Refuse(text) | Unsupported(text) => ours.as_ref().is_err_and(|error| error.contains(text)),
        };
        if !fine {
            wrong.push(format!("{name}: expected {verdict:?}, we say {ours:?}"));
        }
        if let Some(program) = &program {
            let theirs = envoys(program, &document);
            let accepts = matches!(verdict, Accept | Unsupported(_));
            if theirs.is_ok() != accepts {
                wrong.push(format!("{name}: expected {verdict:?}, Envoy says {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
