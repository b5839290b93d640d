//! Roots of other trust domains that MeshConfig names by URL (`caCertificates[].spiffeBundleUrl`).
//!
//! Owns when a bundle is asked for: at once when the mesh configuration first names it, then as often as it says itself within bounds,
//! and soon again after a failure; the last good roots stay meanwhile. What is found takes the place of `pem` in the mesh
//! configuration, so that nobody else knows of URLs. Costs one entry a URL.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_base::Backoff;
use meltemi_ca::CaCertificate;
use meltemi_config::Str;
use meltemi_config::mesh::MeshConfig;
use meltemi_model::Shared;
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

/// Roots in PEM, and when to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    roots: Str,
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

/// A JWK set in which each key for `x509-svid` is one certificate (SPIFFE X.509-SVID, section 6.2).
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
        refresh: hint.clamp(SHORTEST_REFRESH, LONGEST_REFRESH),
    })
}

struct Entry {
    roots: Option<Str>,
    /// `None` while a fetch runs.
    due: Option<Instant>,
    backoff: Backoff,
}

/// The mesh configuration with what its URLs stand for.
pub(crate) struct Bundles<F> {
    fetch: Arc<F>,
    mesh: Shared<MeshConfig>,
    entries: BTreeMap<Str, Entry>,
    running: JoinSet<(Str, Result<Bundle>)>,
}

impl<F: Fetch> Bundles<F> {
    pub(crate) fn new(fetch: F, mesh: Shared<MeshConfig>) -> Self {
        let (fetch, entries, running) = (Arc::new(fetch), BTreeMap::new(), JoinSet::new());
        let mut bundles = Self { fetch, mesh: mesh.clone(), entries, running };
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
            let backoff = Backoff::new(FIRST_RETRY, DEFAULT_REFRESH);
            self.entries.entry(url).or_insert(Entry { roots: None, due: Some(Instant::now()), backoff });
        }
        self.mesh = mesh;
        self.resolved()
    }

    fn resolved(&self) -> Shared<MeshConfig> {
        if self.entries.values().all(|entry| entry.roots.is_none()) {
            return self.mesh.clone();
        }
        let mut mesh = MeshConfig::clone(&self.mesh);
        for data in &mut mesh.ca_certificates {
            let entry = data.spiffe_bundle_url.as_ref().and_then(|url| self.entries.get(url));
            if let Some(roots) = entry.and_then(|entry| entry.roots.as_ref()) {
                data.pem = Some(roots.clone());
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

    /// Whether the roots are others than before.
    fn take(&mut self, url: &Str, fetched: Result<Bundle>) -> bool {
        let Some(entry) = self.entries.get_mut(url) else { return false };
        match fetched {
            Ok(bundle) => {
                entry.backoff.reset();
                entry.due = Some(Instant::now() + bundle.refresh);
                let changed = entry.roots.as_ref() != Some(&bundle.roots);
                if changed {
                    tracing::info!("new roots from {url}");
                    entry.roots = Some(bundle.roots);
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
