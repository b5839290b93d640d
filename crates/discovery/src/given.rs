//! What an operator gives the TLS ports in files: a certificate in place of one of our own authority (`--tlsCertFile`, `--tlsKeyFile`, or
//! where istiod has them mounted), and roots of clients beside the authority's (`--caCertFile`).
//!
//! Owns their last good content: files are read anew when they change, and what cannot be used leaves in force what was. The key is
//! kept by the slot alone.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use meltemi_base::{FollowedFiles, Look};
use meltemi_tls::{CertSlot, Identity, TrustAnchors};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Those who rotate files do so long before a certificate ends.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MAX_BYTES: u64 = 1 << 20;

/// Where istiod has a certificate mounted that somebody else makes for it, such as cert-manager's istio-csr.
const MOUNTED: [&str; 2] = ["./var/run/secrets/istiod/tls/tls.crt", "./var/run/secrets/istiod/tls/tls.key"];
/// With roots beside it in one of these, or it is not used.
const MOUNTED_ROOTS: [&str; 2] = ["./var/run/secrets/istiod/ca/root-cert.pem", "./var/run/secrets/istiod/tls/ca.crt"];

const END: &str = "-----END CERTIFICATE-----";

/// PEM files; without a certificate our own authority issues one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GivenFiles {
    /// Chain and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub roots: Option<PathBuf>,
    /// They are where istiod looks without being told: whoever mounts them there tells proxies of the roots, too.
    pub is_mounted: bool,
}

impl GivenFiles {
    /// Those that flags name, else those that are mounted below `base`.
    pub fn or_mounted(self, base: &Path) -> Self {
        let [chain, key] = MOUNTED.map(|path| base.join(path));
        let roots = MOUNTED_ROOTS.iter().map(|path| base.join(path)).find(|path| path.exists());
        if self == Self::default() && roots.is_some() && chain.exists() && key.exists() {
            return Self { certificate: Some((chain, key)), roots, is_mounted: true };
        }
        self
    }
}

/// The files' last good content.
pub(crate) struct Given {
    files: GivenFiles,
    certificate: Arc<CertSlot>,
    /// In PEM.
    roots: ArcSwap<String>,
    /// Counts the roots that there were.
    changes: watch::Sender<u64>,
}

impl Default for Given {
    fn default() -> Self {
        let (certificate, roots) = (CertSlot::empty(), ArcSwap::default());
        Self { files: GivenFiles::default(), certificate, roots, changes: watch::Sender::new(0) }
    }
}

impl Given {
    /// An error names the flag and the file.
    pub fn read(files: GivenFiles) -> Result<Self> {
        let given = Self { files, ..Self::default() };
        given.take_certificate()?;
        given.take_roots()?;
        Ok(given)
    }

    /// The certificate as it is and as it changes, where one is given.
    pub fn certificate(&self) -> Option<Arc<CertSlot>> {
        self.files.certificate.is_some().then(|| self.certificate.clone())
    }

    /// In PEM; empty where none are given.
    pub fn roots(&self) -> Arc<String> {
        self.roots.load_full()
    }

    /// By what the API server verifies the certificate of the TLS ports, in PEM: the authority's roots and, where the certificate is
    /// given, those beside it.
    pub fn vouching(&self, authority: Arc<str>) -> Arc<str> {
        if self.files.certificate.is_some() { union(&authority, &self.roots()) } else { authority }
    }

    /// The same for proxies, as far as it is ours to tell them.
    pub fn vouching_to_proxies(&self, authority: Arc<str>) -> Arc<str> {
        if self.files.is_mounted { authority } else { self.vouching(authority) }
    }

    /// Tells when the roots are others.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn take_certificate(&self) -> Result<()> {
        let Some((chain, key)) = &self.files.certificate else { return Ok(()) };
        let (chain_pem, key_pem) = (read(chain)?, Zeroizing::new(read(key)?));
        let identity = Identity::from_pem(chain_pem.as_bytes(), key_pem.as_bytes());
        let named = || format!("--tlsCertFile {} with --tlsKeyFile {}", chain.display(), key.display());
        self.certificate.set(identity.with_context(named)?);
        Ok(())
    }

    fn take_roots(&self) -> Result<()> {
        let Some(path) = &self.files.roots else { return Ok(()) };
        let roots = read(path)?;
        TrustAnchors::from_pem(roots.as_bytes(), &[]).with_context(|| format!("--caCertFile {}", path.display()))?;
        self.roots.store(Arc::new(roots));
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Follows the files until dropped.
    pub async fn follow(&self) {
        let certificate: Vec<&PathBuf> = self.files.certificate.iter().flat_map(|(chain, key)| [chain, key]).collect();
        // Whatever was written since they were read is read once more.
        let (mut certificates, mut roots) = (FollowedFiles::default(), FollowedFiles::default());
        loop {
            let take = |take: fn(&Self) -> Result<()>| take(self).map_err(|error| format!("{error:#}"));
            tell(certificates.look(&certificate, || take(Self::take_certificate)), "the certificate of the TLS ports");
            tell(roots.look(&self.files.roots, || take(Self::take_roots)), "the roots of clients of the TLS ports");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The certificates of both PEM texts, each once.
fn union(first: &str, second: &str) -> Arc<str> {
    let mut blocks: Vec<&str> = Vec::new();
    for block in first.split_inclusive(END).chain(second.split_inclusive(END)).map(str::trim) {
        if block.ends_with(END) && !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    blocks.iter().flat_map(|block| [*block, "\n"]).collect::<String>().into()
}

fn tell(look: Look, what: &str) {
    match look {
        Look::Same => {}
        Look::Taken => tracing::debug!("read {what}"),
        Look::Refused(reason) => tracing::error!("{what}: {reason}\nwhat was in force stays"),
    }
}

fn read(path: &Path) -> Result<String> {
    let name = || path.display().to_string();
    let length = std::fs::metadata(path).with_context(name)?.len();
    anyhow::ensure!(length <= MAX_BYTES, "{}: more than {MAX_BYTES} bytes", path.display());
    std::fs::read_to_string(path).with_context(name)
}
