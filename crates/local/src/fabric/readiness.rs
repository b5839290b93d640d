//! When discovery may be asked, and what every proxy must know before the mesh is announced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use meltemi_config::kube::ServiceType;
use meltemi_config::{Object, Spec};
use tokio::sync::watch;

use crate::address::FABRIC;
use crate::docs::DOMAIN;
use crate::pod::accepts;
use crate::service_rules::{selects, target};
use crate::workload::Replica;

/// Tells once discovery accepts, so that no proxy starts by waiting out a failed attempt.
pub(crate) async fn of_discovery(accepting: watch::Sender<bool>) {
    let address = SocketAddr::from((FABRIC, super::DISCOVERY_PORT));
    while !accepts(address).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    accepting.send_replace(true);
    // The sender must outlive the readers, who take its end for a yes.
    accepting.closed().await;
}

/// Each cluster of a Service with an address of its own, and the ready replicas behind it. Headless Services and names of
/// others have no endpoints in a proxy.
pub(crate) fn clusters<'a>(
    objects: &[Object],
    ready: impl Iterator<Item = (&'a Replica, Ipv4Addr)> + Clone,
) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let mut clusters = BTreeMap::new();
    for object in objects {
        let Spec::Service(service) = &object.spec else { continue };
        let (meta, spec) = (&object.meta, &service.spec);
        if spec.is_headless() || spec.service_type == ServiceType::ExternalName {
            continue;
        }
        let selected = ready
            .clone()
            .filter(|(replica, _)| *replica.namespace == *meta.namespace && selects(&spec.selector, replica));
        for port in spec.ports.iter().filter(|port| !matches!(&*port.protocol, "UDP" | "SCTP")) {
            let endpoint = |(replica, address)| Some(SocketAddr::from((address, target(port, replica)?)));
            let name = format!("outbound|{}||{}.{}.svc.{DOMAIN}", port.port, meta.name, meta.namespace);
            clusters.insert(name, selected.clone().filter_map(endpoint).collect());
        }
    }
    clusters
}
