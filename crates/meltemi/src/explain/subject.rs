//! The proxy that is asked about, and what it is sent.

use std::net::IpAddr;

use anyhow::bail;
use meltemi_config::nearest;
use meltemi_explain::Sent;
use meltemi_explain::discovery::{self, Connected};
use meltemi_explain::proxies::{self, NotFound, Proxy};

use super::world::{Running, World};

pub struct Subject {
    /// `sidecar catalog-v1.shop`.
    pub title: String,
    pub namespace: String,
    /// Whom its certificate names; empty: not known.
    pub identity: String,
    pub labels: meltemi_explain::Labels,
    pub address: Option<IpAddr>,
    pub is_gateway: bool,
    pub sent: Sent,
    pub notes: Vec<String>,
}

impl Subject {
    /// Finds a proxy by any of its names. Of a running mesh it is a connected one where there is one.
    pub fn find(world: &World, name: &str, namespace: Option<&str>) -> anyhow::Result<Self> {
        let found = proxies::find(&world.mesh.proxies, &world.mesh.selectors(), name, namespace);
        match (found, &world.running) {
            (Ok(found), running) => of_mesh(world, &found, running.as_ref()),
            (Err(error), Some(running)) => of_connected(running, name, namespace, error),
            (Err(error), None) => Err(error.into()),
        }
    }
}

fn of_mesh(world: &World, found: &[&Proxy], running: Option<&Running>) -> anyhow::Result<Subject> {
    let connected = |proxy: &&&Proxy| running.is_some_and(|running| connection(running, proxy).is_some());
    let with_proxy = || found.iter().filter(|proxy| proxy.node.is_some());
    let proxy = with_proxy().find(connected).or_else(|| with_proxy().next());
    let Some((proxy, node)) = proxy.and_then(|proxy| Some((*proxy, proxy.node.as_ref()?))) else {
        let name = found.first().map(|proxy| format!("{}.{}", proxy.workload, proxy.namespace)).unwrap_or_default();
        bail!("{name} is outside of the mesh: it has no proxy, and its traffic goes where it is sent");
    };
    let mut notes = Vec::new();
    let mut workloads: Vec<&str> = found.iter().map(|proxy| proxy.workload.as_str()).collect();
    workloads.dedup();
    if workloads.len() > 1 {
        notes.push(format!("these workloads have that name: {}; this is of {}", workloads.join(", "), proxy.workload));
    }
    let mut sent = None;
    if let Some(running) = running {
        match connection(running, proxy) {
            Some(connected) => {
                let dumped = discovery::sent(&|page| running.address.page(page), connected)?;
                if dumped.is_on_demand() {
                    notes.push(
                        "its proxy asks for hosts when traffic first needs them: this is what it would get".to_owned(),
                    );
                } else {
                    sent = Some(dumped);
                }
            }
            None => notes.push("its proxy is not connected: this is what it would be sent".to_owned()),
        }
    }
    Ok(Subject {
        title: proxy.title(),
        namespace: proxy.namespace.clone(),
        identity: proxy.identity(&world.mesh.snapshot).unwrap_or_default(),
        labels: proxy.labels.clone(),
        address: node.ip_addresses.first().and_then(|address| address.parse().ok()),
        is_gateway: proxy.is_gateway(),
        sent: sent.unwrap_or_else(|| world.mesh.sent(node)),
        notes,
    })
}

fn connection<'a>(running: &'a Running, proxy: &Proxy) -> Option<&'a Connected> {
    running.connected.iter().find(|connected| connected.pod == proxy.pod && connected.namespace == proxy.namespace)
}

/// A connected proxy of which there is no document.
fn of_connected(running: &Running, name: &str, namespace: Option<&str>, error: NotFound) -> anyhow::Result<Subject> {
    let (name, namespace) = match name.split_once('.') {
        Some((name, own)) if namespace.is_none() => (name, Some(own)),
        _ => (name, namespace),
    };
    let here = |connected: &&Connected| namespace.is_none_or(|namespace| connected.namespace == namespace);
    let begins = |connected: &&Connected| {
        connected.pod.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let Some(proxy) = running.connected.iter().filter(here).find(begins) else {
        let near = nearest(name, running.connected.iter().map(|connected| connected.pod.as_str()));
        match near {
            Some(near) => bail!("{error}; connected is {near}"),
            None => return Err(error.into()),
        }
    };
    let address = proxy.id.split('~').nth(1).and_then(|address| address.parse().ok());
    let kind = if proxy.kind == "router" { "gateway" } else { "sidecar" };
    Ok(Subject {
        title: format!("{kind} {}.{}", proxy.pod, proxy.namespace),
        namespace: proxy.namespace.clone(),
        identity: String::new(),
        labels: meltemi_explain::Labels::new(),
        address,
        is_gateway: kind == "gateway",
        sent: discovery::sent(&|page| running.address.page(page), proxy)?,
        notes: Vec::new(),
    })
}
