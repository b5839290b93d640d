//! Listeners that leave no place for each other, among those of a Gateway and of the sets attached to it.

use crate::parent::ParentKind;
use meltemi_config::Str;
use meltemi_config::gateway_api::Listener;
use meltemi_model::ObjectKey;
use std::collections::BTreeMap;

/// An object with listeners.
pub type OwnerKey = (ParentKind, ObjectKey);

/// By owner and listener: the reason for its condition.
pub type Conflicts = BTreeMap<(OwnerKey, Str), &'static str>;

/// `listeners` in the order of their rights: an earlier one that has its place keeps it.
pub fn conflicts<'a>(listeners: impl IntoIterator<Item = (OwnerKey, &'a Listener)>) -> Conflicts {
    let mut lost = Conflicts::new();
    let mut placed: Vec<&Listener> = Vec::new();
    for (owner, listener) in listeners {
        match placed.iter().find(|other| !are_distinct(listener, other)) {
            Some(other) => drop(lost.insert((owner, listener.name.clone()), reason(listener, other))),
            None => placed.push(listener),
        }
    }
    lost
}

fn is_l4(listener: &Listener) -> bool {
    matches!(&*listener.protocol, "TCP" | "UDP")
}

/// Told apart by host.
fn has_hosts(listener: &Listener) -> bool {
    matches!(&*listener.protocol, "HTTP" | "HTTPS" | "TLS")
}

fn are_distinct(a: &Listener, b: &Listener) -> bool {
    let host = |listener: &Listener| listener.hostname.clone().filter(|host| !host.is_empty()).unwrap_or("*".into());
    match (effective_port(a) != effective_port(b), is_l4(a) || is_l4(b), has_hosts(a) && has_hosts(b)) {
        (true, _, _) => true,
        (false, true, _) => !((is_l4(a) || has_hosts(a)) && (is_l4(b) || has_hosts(b))),
        (false, false, true) => host(a) != host(b),
        (false, false, false) => a.protocol != b.protocol,
    }
}

fn reason(a: &Listener, b: &Listener) -> &'static str {
    if is_l4(a) && is_l4(b) || a.protocol != b.protocol { "ProtocolConflict" } else { "HostnameConflict" }
}

/// A ListenerSet may leave the port out where the protocol has one; 0: it has none.
pub fn effective_port(listener: &Listener) -> u32 {
    match (listener.port, &*listener.protocol) {
        (0, "HTTP") => 80,
        (0, "HTTPS") => 443,
        (port, _) => port,
    }
}
