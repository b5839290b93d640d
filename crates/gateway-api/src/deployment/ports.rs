//! The Service of a deployed gateway: a port for each of its listeners, those of its ListenerSets among them.

use super::meta::Named;
use crate::catalogue::Catalogue;
use crate::conflict::effective_port;
use crate::gateway::{self, SERVICE_TYPE};
use meltemi_config::gateway_api::Listener;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const STATUS_PORT: u32 = 15021;
const STATUS_NAME: &str = "status-port";
/// Of a port's name.
const MAX_NAME: usize = 63;
const LOAD_BALANCER: &str = "LoadBalancer";

pub fn service(catalogue: &Catalogue, named: &Named<'_>) -> Value {
    let kind = named.meta.annotations.get(SERVICE_TYPE).map_or(LOAD_BALANCER, |kind| kind);
    let mut spec = json!({
        "ipFamilyPolicy": "PreferDualStack",
        "ports": ports(&listeners(catalogue, named), named.quic),
        "selector": named.selector(),
        "type": kind,
    });
    if let Some(address) = named.spec.addresses.first().filter(|_| kind == LOAD_BALANCER) {
        spec["loadBalancerIP"] = json!(address.value);
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": named.metadata(&named.name), "spec": spec})
}

fn listeners(catalogue: &Catalogue, named: &Named<'_>) -> Vec<Listener> {
    let sets = gateway::sets(catalogue, named.meta).into_iter();
    let allowed = sets.filter(|(meta, _)| gateway::allows(catalogue, named.spec, named.meta, meta));
    let added = allowed.flat_map(|(_, set)| set.listeners.iter());
    let all = named.spec.listeners.iter().chain(added);
    all.map(|listener| Listener { port: effective_port(listener), ..listener.clone() }).collect()
}

/// One for each number, named as the first listener with it.
fn ports(listeners: &[Listener], quic: bool) -> Vec<Value> {
    let mut used = BTreeSet::from([STATUS_NAME.to_owned()]);
    let mut seen = BTreeSet::new();
    let port = |name: String, number: u32, protocol: &str, application: &str| json!({"name": name, "port": number, "protocol": protocol, "appProtocol": application});
    let mut all = vec![port(STATUS_NAME.into(), STATUS_PORT, "TCP", "tcp")];
    for listener in listeners.iter().filter(|listener| listener.port != 0) {
        if !seen.insert(listener.port) {
            continue;
        }
        let application = listener.protocol.to_lowercase();
        let name = unique(&listener.name.replace('.', "-"), listener.port, &mut used);
        if quic && application == "https" {
            let beside = unique(&format!("{name}-quic"), listener.port, &mut used);
            all.push(port(name, listener.port, "TCP", &application));
            all.push(port(beside, listener.port, "UDP", &application));
        } else {
            all.push(port(name, listener.port, "TCP", &application));
        }
    }
    all
}

/// A name that no other port has; a repeated one would make the whole Service invalid.
fn unique(name: &str, port: u32, used: &mut BTreeSet<String>) -> String {
    let shortened = |room: usize| name.chars().take(room).collect::<String>();
    let mut candidate = shortened(MAX_NAME);
    let mut suffix = format!("-{port}");
    while used.contains(&candidate) {
        candidate = shortened(MAX_NAME.saturating_sub(suffix.len())) + &suffix;
        suffix.push('x');
    }
    used.insert(candidate.clone());
    candidate
}
