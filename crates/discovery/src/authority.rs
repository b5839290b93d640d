//! Keeps the authority going while discovery runs: looks at its files, tells it how far a new root has got, and gives
//! proxies the bundle of roots by which they verify each other.
//!
//! The bundle goes out as the secret `ROOTCA` over ADS, to agents that ask for it on a stream of their own; what they
//! acknowledge is how it is known that a new root is distributed.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use meltemi_ca::{Authority, CaCertificate, Progress, Stage, TrustBundle};
use meltemi_config::mesh::MeshConfig;
use meltemi_model::Shared;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config as spiffe;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig,
};
use meltemi_push::ClientStatus;
use meltemi_tls::{CertError, TrustAnchors, TrustDomain};
use meltemi_xds::Resource;
use meltemi_xds::types::SECRET;
use tokio::sync::watch;

use crate::State;

/// The name under which proxies ask for the mesh's roots.
pub(crate) const ROOT_CA: &str = "ROOTCA";

/// How often files and stages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks until told to stop.
pub(crate) async fn run(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let authority = state.options.authority.clone();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut stage, mut told) = (authority.stage(), (0, String::new()));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let pushed = *authority.subscribe().borrow() == state.roots_pushed.load(Ordering::Acquire);
        let progress = match stage {
            Stage::Distributing if pushed => progress(&state.pusher.clients()),
            // Answers are to what was before.
            _ => Progress { connected: 1, holding: 0 },
        };
        if let Err(error) = authority.look(SystemTime::now(), progress) {
            // Of files that cannot be written it says so every time.
            let now = (authority.reloads.refused.load(Ordering::Relaxed), error.to_string());
            if now != told {
                tracing::error!("the authority's new files are not taken: {error}\nwhat was in force stays");
                told = now;
            }
        }
        let now = authority.stage();
        if now != stage {
            report(&authority, now);
            stage = now;
        }
    }
}

fn report(authority: &Authority, stage: Stage) {
    let status = authority.status();
    tracing::info!(stage = stage.name(), signer = ?status.signer, roots = status.roots.len(), "roots of the mesh");
    for root in status.roots.iter().filter(|root| !root.in_files) {
        tracing::info!(
            root = ?root.certificate,
            "a root that the files no longer hold is trusted until certificates under it have ended"
        );
    }
}

/// How many of the connected proxies have acknowledged the bundle that they were sent last. It is their agents who ask for it,
/// on streams of their own; gateways ask for other secrets on theirs.
fn progress(clients: &[ClientStatus]) -> Progress {
    let mut proxies: BTreeMap<&str, bool> = BTreeMap::new();
    for client in clients {
        let holds = client.peer.is_agents()
            && client.types.get(SECRET).is_some_and(|status| {
                let answered = !status.acked_nonce.is_empty() && status.acked_nonce == status.sent_nonce;
                answered && !status.outstanding && status.rejection.is_none()
            });
        *proxies.entry(&client.peer.node.id).or_default() |= holds;
    }
    Progress { connected: proxies.len(), holding: proxies.values().filter(|holds| **holds).count() }
}

/// The trust domains whose certificates are taken for the mesh's own (`trustDomainAliases`).
pub(crate) fn aliases(mesh: &MeshConfig) -> Vec<TrustDomain> {
    // Validation has refused what is none.
    mesh.trust_domain_aliases.iter().filter_map(|alias| alias.parse().ok()).collect()
}

/// The secret `ROOTCA`, made once for each bundle and mesh configuration.
pub(crate) struct RootSecret {
    authority: Arc<Authority>,
    made: Mutex<Option<Made>>,
}

struct Made {
    bundle: Arc<TrustBundle>,
    mesh: Shared<MeshConfig>,
    resource: Resource,
}

impl RootSecret {
    pub(crate) fn new(authority: Arc<Authority>) -> Self {
        Self { authority, made: Mutex::default() }
    }

    pub(crate) fn resource(&self, mesh: &Shared<MeshConfig>) -> Resource {
        let bundle = self.authority.bundle();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.bundle == bundle && made.mesh == *mesh) {
            return made.resource.clone();
        }
        let resource = secret(&bundle, mesh);
        *made = Some(Made { bundle, mesh: mesh.clone(), resource: resource.clone() });
        resource
    }
}

fn secret(bundle: &TrustBundle, mesh: &MeshConfig) -> Resource {
    let domains = by_trust_domain(&bundle.roots, mesh);
    let version = Shared::new((&domains, &bundle.crl)).content_hash();
    let inline = |text: &str| {
        let specifier = Some(Specifier::InlineBytes(text.as_bytes().to_vec().into()));
        Some(DataSource { specifier, watched_directory: None })
    };
    let context = CertificateValidationContext {
        trusted_ca: domains.get(&*mesh.trust_domain).and_then(|roots| inline(roots)),
        crl: if bundle.crl.is_empty() { None } else { inline(&bundle.crl) },
        custom_validator_config: validator(&domains, &bundle.crl),
        ..CertificateValidationContext::default()
    };
    let secret = Secret { name: ROOT_CA.to_owned(), r#type: Some(Type::ValidationContext(context)) };
    let version = format!("{version:016x}").into();
    Resource { name: ROOT_CA.into(), version, body: Arc::new(meltemi_proto::pack_secret(&secret)) }
}

/// Has each trust domain verified by its own roots, where they are not the same for all. The validator knows no revocation lists
/// but those that stand among the roots.
fn validator(domains: &BTreeMap<Arc<str>, String>, crl: &str) -> Option<TypedExtensionConfig> {
    let alike = domains.values().collect::<BTreeSet<_>>().len() == 1;
    let domain = |(name, roots): (&Arc<str>, &String)| {
        let bundle = Specifier::InlineString(format!("{roots}\n{crl}"));
        let trust_bundle = Some(DataSource { specifier: Some(bundle), watched_directory: None });
        spiffe::TrustDomain { name: name.to_string(), trust_bundle, ..spiffe::TrustDomain::default() }
    };
    let config = SpiffeCertValidatorConfig {
        trust_domains: domains.iter().map(domain).collect(),
        ..SpiffeCertValidatorConfig::default()
    };
    let any = (!alike).then(|| Any::pack(&config))?;
    Some(TypedExtensionConfig { name: "envoy.tls.cert_validator.spiffe".to_owned(), typed_config: Some(any) })
}

/// Roots in PEM of the mesh's own trust domain and of each alias. Under a name that the mesh had before its own authority has
/// issued, too; roots for no trust domain by name are for all of these.
fn by_trust_domain(authority: &str, mesh: &MeshConfig) -> BTreeMap<Arc<str>, String> {
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let roots = |domain: &Arc<str>| roots_of(mesh, |domains| domains.is_empty() || domains.contains(domain));
    domains.map(|domain| (domain.clone(), format!("{authority}\n{}", roots(domain)))).collect()
}

/// What verifies clients of the TLS port: for the mesh's own trust domain the authority's roots with `extra` ones and those
/// of the mesh configuration, for every other that it names its own alone.
pub(crate) fn anchors(bundle: &TrustBundle, extra: &str, mesh: &MeshConfig) -> Result<TrustAnchors, CertError> {
    let of = |roots: &[u8]| TrustAnchors::from_pem(roots, bundle.crl.as_bytes());
    let authority = format!("{}\n{extra}\n", bundle.roots);
    let mut domains = by_trust_domain(&authority, mesh);
    let own = domains.remove(&mesh.trust_domain).unwrap_or(authority);
    for domain in mesh.ca_certificates.iter().flat_map(|data| &data.trust_domains) {
        if *domain != mesh.trust_domain && !domains.contains_key(domain) {
            domains.insert(domain.clone(), roots_of(mesh, |domains| domains.contains(domain)));
        }
    }
    let mut anchors = of(own.as_bytes())?;
    for (domain, roots) in domains {
        match domain.parse() {
            Ok(domain) if !roots.is_empty() => anchors = anchors.federate(&domain, of(roots.as_bytes())?),
            Ok(_) => {}
            Err(error) => tracing::warn!("caCertificates of the mesh configuration: {error}"),
        }
    }
    Ok(anchors)
}

/// The roots in `caCertificates` whose trust domains are wanted, in PEM.
fn roots_of(mesh: &MeshConfig, wanted: impl Fn(&[Arc<str>]) -> bool) -> String {
    let mut roots: Vec<CaCertificate> = Vec::new();
    for (place, data) in mesh.ca_certificates.iter().enumerate() {
        let Some(pem) = data.pem.as_ref().filter(|_| data.cert_signers.is_empty()) else { continue };
        if !wanted(&data.trust_domains) {
            continue;
        }
        match CaCertificate::all("roots", pem) {
            Ok(found) => roots.extend(found),
            Err(error) => tracing::warn!("caCertificates[{place}].pem of the mesh configuration is not used: {error}"),
        }
    }
    roots.iter().map(|root| &**root.pem()).collect()
}
