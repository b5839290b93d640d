//! `/listeners`, with the ports that were bound.

use super::{AdminState, Parameters, config_dump, pretty, text};
use axum::extract::{Query, State};
use axum::response::Response;
use meltemi_plan::{Address, Listener};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Addresses that listeners were bound at, where the port was left to the system.
#[derive(Debug, Default)]
pub struct Bound(Mutex<BTreeMap<Arc<str>, Vec<SocketAddr>>>);

impl Bound {
    pub fn add(&self, listener: &Arc<str>, address: SocketAddr) {
        let mut bound = self.0.lock();
        let known = bound.entry(listener.clone()).or_default();
        // Of an interface the last one counts.
        known.retain(|other| other.ip() != address.ip());
        known.push(address);
    }

    /// What an address of a listener came to.
    fn actual(&self, listener: &str, address: &Address) -> Address {
        let bound = self.0.lock();
        let chosen = address
            .socket()
            .filter(|address| address.port() == 0)
            .and_then(|wanted| bound.get(listener)?.iter().find(|address| address.ip() == wanted.ip()).copied());
        chosen.map_or_else(|| address.clone(), Address::Socket)
    }
}

pub async fn listeners(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let configurator = state.configurator.lock();
    let held: Vec<Arc<Listener>> = configurator.held_listeners().map(|(held, _)| held.plan.clone()).collect();
    drop(configurator);
    let addresses = |plan: &Listener| -> Vec<Address> {
        let all = std::iter::once(&plan.address).chain(&plan.additional_addresses);
        all.map(|address| state.bound.actual(&plan.name, address)).collect()
    };
    if parameters.get("format").map(String::as_str) == Some("json") {
        let statuses = held.iter().map(|plan| {
            let mut addresses = addresses(plan).iter().map(config_dump::address).collect::<Vec<_>>();
            let more = addresses.split_off(1);
            let mut status = json!({ "name": &*plan.name, "local_address": addresses[0] });
            if !more.is_empty() {
                status["additional_local_addresses"] = more.into();
            }
            status
        });
        return pretty(&json!({ "listener_statuses": statuses.collect::<Vec<_>>() }));
    }
    let lines = held.iter().flat_map(|plan| {
        addresses(plan).into_iter().map(|address| format!("{}::{address}\n", plan.name)).collect::<Vec<_>>()
    });
    text(lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_left_open_is_the_one_that_was_bound() {
        let bound = Bound::default();
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        bound.add(&"l".into(), address("127.0.0.1:5000"));
        bound.add(&"l".into(), address("[::1]:6000"));
        let actual = |listener, text: &str| bound.actual(listener, &Address::Socket(address(text))).to_string();
        assert_eq!(actual("l", "127.0.0.1:0"), "127.0.0.1:5000");
        assert_eq!(actual("l", "[::1]:0"), "[::1]:6000");
        assert_eq!(actual("l", "127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(actual("other", "127.0.0.1:0"), "127.0.0.1:0");
    }
}
