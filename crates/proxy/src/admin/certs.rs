//! `/certs`: the certificates of the TLS contexts in force, and what they trust.

use super::{AdminState, config_dump, pretty};
use crate::world::World;
use axum::extract::State;
use axum::response::Response;
use meltemi_plan::common::DataSource;
use meltemi_plan::tls::{SecretRef, TlsCertificate, TlsCommon, Validation, ValidationContext};
use meltemi_tls::{CertInfo, Identity, TrustSlot};
use meltemi_upstream::Transport;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;

const DAY_SECONDS: u64 = 86_400;

pub async fn certs(State(state): State<Arc<AdminState>>) -> Response {
    let world = state.configurator.lock().world();
    let mut certificates: Vec<Value> = Vec::new();
    // Contexts over the same secrets, of which a sidecar has one for each cluster, are told once.
    for context in listeners(&world).chain(clusters(&world)) {
        if !certificates.contains(&context) {
            certificates.push(context);
        }
    }
    pretty(&json!({ "certificates": certificates }))
}

fn listeners(world: &World) -> impl Iterator<Item = Value> {
    let chains = world.listeners.values().flat_map(|listener| listener.chains.iter().chain(&listener.default_chain));
    chains.filter_map(|chain| {
        let (plan, tls) = (chain.plan.tls.as_ref()?, chain.tls.as_ref()?);
        Some(context(&plan.common, tls.certificates().collect(), tls.trust()))
    })
}

fn clusters(world: &World) -> impl Iterator<Item = Value> {
    let mut clusters: Vec<_> = world.clusters.iter().collect();
    clusters.sort_by(|a, b| a.plan.name.cmp(&b.plan.name));
    clusters.into_iter().flat_map(|cluster| {
        let sockets =
            std::iter::once(&cluster.plan.transport).chain(cluster.plan.transport_matches.iter().map(|m| &m.transport));
        sockets.zip(&cluster.transports).filter_map(|(plan, transport)| match transport {
            Transport::Plain => None,
            Transport::Tls(tls) => {
                Some(context(&crate::configurator::upstream_tls(plan)?.common, vec![tls.local()], tls.trust()))
            }
        })
    })
}

fn context(plan: &TlsCommon, certificates: Vec<Option<Arc<Identity>>>, trust: Option<&Arc<TrustSlot>>) -> Value {
    let chain = plan.certificates.iter().zip(&certificates);
    let chain = chain.filter_map(|(plan, current)| Some(details(&certificate_path(plan), current.as_ref()?.info())));
    let roots = trust.map(|trust| trust.roots()).unwrap_or_default();
    let roots_path = roots_path(&plan.validation);
    json!({
        "ca_cert": roots.iter().map(|root| details(&roots_path, root)).collect::<Vec<_>>(),
        "cert_chain": chain.collect::<Vec<_>>(),
    })
}

fn path(source: &DataSource) -> String {
    match source {
        DataSource::File { path, .. } => path.display().to_string(),
        DataSource::Inline(_) | DataSource::Environment(_) => "<inline>".to_owned(),
    }
}

fn certificate_path(reference: &SecretRef<TlsCertificate>) -> String {
    match reference {
        SecretRef::Inline(certificate) => path(&certificate.chain),
        SecretRef::Sds { name, .. } => format!("<inline> {name}"),
    }
}

fn roots_path(validation: &Validation) -> String {
    let of_context = |context: &ValidationContext| context.trusted_ca.as_ref().map(path);
    match validation {
        Validation::None => String::new(),
        Validation::Static(context) => of_context(context).unwrap_or_default(),
        Validation::Sds { name, .. } | Validation::Combined { name, .. } => format!("<inline> {name}"),
    }
}

/// `envoy.admin.v3.CertificateDetails`.
fn details(path: &str, info: &CertInfo) -> Value {
    let left = info.not_after.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
    let dns = info.dns_sans.iter().map(|dns| json!({ "dns": dns }));
    let uris = info.uri_sans.iter().map(|uri| json!({ "uri": uri }));
    let ips = info.ip_sans.iter().map(|ip| json!({ "ip_address": ip.to_string() }));
    json!({
        "path": path,
        "serial_number": info.serial_hex,
        "subject_alt_names": dns.chain(uris).chain(ips).collect::<Vec<_>>(),
        "days_until_expiration": (left / DAY_SECONDS).to_string(),
        "valid_from": config_dump::timestamp(info.not_before),
        "expiration_time": config_dump::timestamp(info.not_after),
    })
}
