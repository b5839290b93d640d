//! Roots of other trust domains that MeshConfig names by URL (`caCertificates[].spiffeBundleUrl`).
//!
//! Owns when a bundle is asked for: at once when the mesh configuration first names it, then as often as it says itself within bounds,
//! and soon again after a failure; the last good roots stay meanwhile. What is found takes the place of `pem` in the mesh
//! configuration, so that nobody else knows of URLs; keys for tokens (SPIFFE JWT-SVID) go to those who verify them. Costs one entry a
//! URL.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_base::Backoff;
use meltemi_ca::{BundleKeys, CaCertificate, FederatedKeys};
use meltemi_config::Str;
use meltemi_config::mesh::{CertificateData, MeshConfig};
use meltemi_model::Shared;
use meltemi_tls::TrustDomain;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::documents::Documents;

/// Bundles looked after; a mesh configuration that names more gets no roots for those.
const MAX_BUNDLES: usize = 64;

/// How often a bundle without `spiffe_refresh_hint` is asked for (SPIFFE Trust Domain and Bundle, section 4.1.2).
const DEFAULT_REFRESH: Duration = Duration::from_secs(5 * 60);
const SHORTEST_REFRESH: Duration = Duration::from_secs(30);
const LONGEST_REFRESH: Duration = Duration::from_secs(60 * 60);

const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How long one fetch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where bundles come from.
pub(crate) trait Fetch: Send + Sync + 'static {
    fn fetch(&self, url: &str) -> impl Future<Output = Result<Bundle>> + Send;
}

/// Roots in PEM, keys for tokens, and when to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    roots: Str,
    keys: BundleKeys,
    refresh: Duration,
}

impl Fetch for Documents {
    async fn fetch(&self, url: &str) -> Result<Bundle> {
        // Istio lets the scheme be left out. Roots are never taken from whoever sits on the way.
        let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        ensure!(url.starts_with("https://"), "the scheme is not https");
        bundle(&self.json(&url).await?)
    }
}

/// A JWK set in which each key for `x509-svid` is one certificate (SPIFFE X.509-SVID, section 6.2), beside keys for tokens.
fn bundle(answer: &Value) -> Result<Bundle> {
    let keys = answer["keys"].as_array().context("the answer is no bundle: it has no list of keys")?;
    let mut pem = String::new();
    for (place, key) in keys.iter().enumerate().filter(|(_, key)| key["use"] == "x509-svid") {
        let chain = key["x5c"].as_array().with_context(|| format!("keys[{place}] has no x5c"))?;
        let [Value::String(root)] = chain.as_slice() else {
            anyhow::bail!("keys[{place}].x5c is not one certificate");
        };
        let der = STANDARD.decode(root).with_context(|| format!("keys[{place}].x5c"))?;
        pem += &format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    }
    ensure!(!pem.is_empty(), "the bundle has no key for x509-svid");
    let roots = CaCertificate::all("bundle", &pem)?;
    let hint = answer["spiffe_refresh_hint"].as_u64().map_or(DEFAULT_REFRESH, Duration::from_secs);
    Ok(Bundle {
        roots: roots.iter().map(|root| &**root.pem()).collect::<String>().into(),
        keys: BundleKeys::of_bundle(answer),
        refresh: hint.clamp(SHORTEST_REFRESH, LONGEST_REFRESH),
    })
}

/// Bundles by their URLs, as they were found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(BTreeMap<Str, Bundle>);

impl Known {
    /// Asks for those that `wanted` entries of the mesh configuration name, each until it answers, but no longer than `patience` all
    /// together; whatever did not answer is not among them.
    pub(crate) async fn ask<F: Fetch>(
        fetch: F,
        mesh: &MeshConfig,
        wanted: impl Fn(&CertificateData) -> bool,
        patience: Duration,
    ) -> Self {
        let ca_certificates = mesh.ca_certificates.iter().filter(|data| wanted(data)).cloned().collect();
        let asked = MeshConfig { ca_certificates, ..MeshConfig::default() };
        let mut bundles = Bundles::new(fetch, Shared::new(asked), (Arc::default(), &Self::default()));
        let asking = async {
            while bundles.entries.values().any(|entry| entry.found.is_none()) {
                bundles.changed().await;
            }
        };
        // What is there by then is what there is.
        let _ = tokio::time::timeout(patience, asking).await;
        let found = bundles.entries.into_iter().filter_map(|(url, entry)| Some((url, entry.found?)));
        Self(found.collect())
    }

    /// The mesh configuration with roots in place of the URLs that are known.
    pub(crate) fn resolve(&self, mut mesh: MeshConfig) -> MeshConfig {
        for data in &mut mesh.ca_certificates {
            if let Some(bundle) = data.spiffe_bundle_url.as_ref().and_then(|url| self.0.get(url)) {
                data.pem = Some(bundle.roots.clone());
            }
        }
        mesh
    }
}

struct Entry {
    /// The last good one.
    found: Option<Bundle>,
    /// `None` while a fetch runs.
    due: Option<Instant>,
    backoff: Backoff,
}

impl Entry {
    /// Asked for at once.
    fn new(found: Option<Bundle>) -> Self {
        Self { found, due: Some(Instant::now()), backoff: Backoff::new(FIRST_RETRY, DEFAULT_REFRESH) }
    }
}

/// The mesh configuration with what its URLs stand for.
pub(crate) struct Bundles<F> {
    fetch: Arc<F>,
    mesh: Shared<MeshConfig>,
    entries: BTreeMap<Str, Entry>,
    running: JoinSet<(Str, Result<Bundle>)>,
    keys: Arc<FederatedKeys>,
}

impl<F: Fetch> Bundles<F> {
    /// Begins with what is `known` already; `keys` are kept as they are found.
    pub(crate) fn new(fetch: F, mesh: Shared<MeshConfig>, (keys, known): (Arc<FederatedKeys>, &Known)) -> Self {
        let entry = |(url, found): (&Str, &Bundle)| (url.clone(), Entry::new(Some(found.clone())));
        let (fetch, entries, running) = (Arc::new(fetch), known.0.iter().map(entry).collect(), JoinSet::new());
        let mut bundles = Self { fetch, mesh: mesh.clone(), entries, running, keys };
        bundles.resolve(mesh);
        bundles
    }

    /// Looks after the URLs of this mesh configuration from now on; the roots that are known already are in the answer.
    pub(crate) fn resolve(&mut self, mesh: Shared<MeshConfig>) -> Shared<MeshConfig> {
        let urls: Vec<Str> = mesh.ca_certificates.iter().filter_map(|data| data.spiffe_bundle_url.clone()).collect();
        self.entries.retain(|url, _| urls.contains(url));
        for url in urls {
            if self.entries.len() >= MAX_BUNDLES && !self.entries.contains_key(&url) {
                tracing::warn!(
                    "the mesh configuration has more than {MAX_BUNDLES} URLs of bundles; {url} is not asked"
                );
                continue;
            }
            self.entries.entry(url).or_insert_with(|| Entry::new(None));
        }
        self.mesh = mesh;
        self.resolved()
    }

    /// What the entry of the mesh configuration stands for.
    fn found(&self, data: &CertificateData) -> Option<&Bundle> {
        self.entries.get(data.spiffe_bundle_url.as_ref()?)?.found.as_ref()
    }

    /// The keys of each trust domain, to which the roots beside them belong.
    fn publish(&self) {
        let mut keys: BTreeMap<TrustDomain, BundleKeys> = BTreeMap::new();
        for data in self.mesh.ca_certificates.iter().filter(|data| data.cert_signers.is_empty()) {
            let Some(bundle) = self.found(data) else { continue };
            let own = std::iter::once(&self.mesh.trust_domain).chain(&self.mesh.trust_domain_aliases);
            let own = own.filter(|_| data.trust_domains.is_empty());
            // Validation has refused what is none.
            for domain in data.trust_domains.iter().chain(own).filter_map(|domain| domain.parse().ok()) {
                keys.entry(domain).or_default().join(&bundle.keys);
            }
        }
        self.keys.set(keys);
    }

    fn resolved(&self) -> Shared<MeshConfig> {
        self.publish();
        if self.entries.values().all(|entry| entry.found.is_none()) {
            return self.mesh.clone();
        }
        let mut mesh = MeshConfig::clone(&self.mesh);
        for data in &mut mesh.ca_certificates {
            if let Some(bundle) = self.found(data) {
                data.pem = Some(bundle.roots.clone());
            }
        }
        Shared::new(mesh)
    }

    /// The mesh configuration once some of its roots are others. May be dropped and called again; fetches go on meanwhile.
    pub(crate) async fn changed(&mut self) -> Shared<MeshConfig> {
        loop {
            self.start();
            let next = self.entries.values().filter_map(|entry| entry.due).min();
            let due = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = self.running.join_next() => match ended {
                    Ok((url, fetched)) => {
                        if self.take(&url, fetched) {
                            return self.resolved();
                        }
                    }
                    Err(panicked) => tracing::error!("a fetch of roots ended: {panicked}"),
                },
                () = due => {}
            }
        }
    }

    fn start(&mut self) {
        let now = Instant::now();
        for (url, entry) in &mut self.entries {
            if entry.due.is_some_and(|due| due <= now) {
                entry.due = None;
                let (fetch, url) = (self.fetch.clone(), url.clone());
                self.running.spawn(async move {
                    let fetched = tokio::time::timeout(TIMEOUT, fetch.fetch(&url)).await;
                    let fetched = fetched.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {TIMEOUT:?}")));
                    (url, fetched)
                });
            }
        }
    }

    /// Whether roots or keys are others than before.
    fn take(&mut self, url: &Str, fetched: Result<Bundle>) -> bool {
        let Some(entry) = self.entries.get_mut(url) else { return false };
        match fetched {
            Ok(bundle) => {
                entry.backoff.reset();
                entry.due = Some(Instant::now() + bundle.refresh);
                let known = entry.found.replace(bundle.clone());
                let changed = known.is_none_or(|known| (&known.roots, &known.keys) != (&bundle.roots, &bundle.keys));
                if changed {
                    tracing::info!("new roots or keys from {url}");
                }
                changed
            }
            Err(error) => {
                entry.due = Some(Instant::now() + entry.backoff.next());
                tracing::warn!("roots from {url}: {error:#}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
