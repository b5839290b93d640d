//! The workload's certificate: a key made here and a certificate asked of the authority, renewed at half life unless told
//! otherwise; or one that somebody else provides, in files, over SDS or by SPIFFE's Workload API.

pub mod authority;
pub mod der;
mod external;
mod files;
mod secret;
mod serving;
mod tokens;
mod workload;

#[cfg(test)]
mod tests;

use crate::environment::{CertificateSource, Renewal, Settings};
use crate::upstream::{ControlPlane, ControlPlaneError};
use external::Protocol;
use meltemi_base::Backoff;
use meltemi_proto::istio::v1::auth::IstioCertificateRequest;
use meltemi_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use meltemi_proto::prost_types::{Struct, Value, value::Kind};
use meltemi_tls::{CertError, CertSlot, Identity, TrustSlot};
use rcgen::{CertificateParams, KeyPair, SanType};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use zeroize::{Zeroize as _, Zeroizing};

pub use secret::{TrustBundle, WorkloadSecret};
pub use serving::serve as serve_workload_api;

/// Even where nothing of the life is to be left, or so little of it that a renewal would follow at once.
const SOONEST_RENEWAL: Duration = Duration::from_millis(500);
/// The field of a request's metadata.
const SIGNER: &str = "CertSigner";
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    #[error("certificate authority: {0}")]
    Authority(String),
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
}

/// Keeps the slots filled. Handshakes read the slots; an SDS server watches the secret.
pub struct IdentityKeeper {
    control_plane: Arc<ControlPlane>,
    node_id: String,
    spiffe_id: String,
    trust_domain: String,
    ttl: Duration,
    signer: String,
    renewal: Renewal,
    source: CertificateSource,
    /// Discovery is the authority, so that the roots that it pushes are all there are.
    one_authority: bool,
    crl_file: PathBuf,
    pub certificate: Arc<CertSlot>,
    pub trust: Arc<TrustSlot>,
    roots: Mutex<Roots>,
    current: watch::Sender<Option<Arc<WorkloadSecret>>>,
}

/// Where the roots come from that are trusted.
#[derive(Default)]
struct Roots {
    /// With the certificate in force.
    issued: TrustBundle,
    /// By discovery, whenever they change.
    pushed: Option<TrustBundle>,
}

impl IdentityKeeper {
    pub fn new(control_plane: Arc<ControlPlane>, settings: &Settings) -> Self {
        let Settings { trust_domain, namespace, service_account, .. } = settings;
        Self {
            control_plane,
            node_id: settings.node_id(),
            spiffe_id: format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"),
            trust_domain: trust_domain.to_string(),
            ttl: settings.certificate_ttl,
            signer: settings.certificate_signer.clone(),
            renewal: settings.renewal,
            source: settings.certificate_source.clone(),
            one_authority: settings.ca_address == settings.discovery_address,
            crl_file: settings.crl_file.clone(),
            certificate: CertSlot::empty(),
            trust: TrustSlot::empty(),
            roots: Mutex::default(),
            current: watch::Sender::new(None),
        }
    }

    /// The secret, as it is and as it changes; None until the first certificate is there.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<WorkloadSecret>>> {
        self.current.subscribe()
    }

    /// Whether discovery says which roots are to be trusted; whoever provides the certificate does otherwise.
    pub fn takes_bundles(&self) -> bool {
        matches!(self.source, CertificateSource::Authority)
    }

    /// Runs until dropped: the first certificate as soon as there is one, then a new one in time.
    pub async fn run(&self) {
        match &self.source {
            CertificateSource::Authority => self.ask().await,
            CertificateSource::Files(files) => files::follow(files, self).await,
            CertificateSource::Socket(socket) => {
                external::follow(socket, &[Protocol::Sds, Protocol::WorkloadApi], self).await;
            }
            CertificateSource::WorkloadApi(socket) => external::follow(socket, &[Protocol::WorkloadApi], self).await,
        }
    }

    async fn ask(&self) {
        loop {
            let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
            let lifetime = loop {
                match self.renew().await {
                    Ok(lifetime) => break lifetime,
                    Err(e) => {
                        let wait = backoff.next();
                        tracing::warn!(error = %e, retry_in = ?wait, "no certificate");
                        tokio::time::sleep(wait).await;
                    }
                }
            };
            let wait = lifetime.mul_f64(self.renewal.after(rand_unit()));
            tokio::time::sleep(wait.max(SOONEST_RENEWAL)).await;
        }
    }

    /// Asks for one certificate and puts it in place; returns how long it is good for.
    async fn renew(&self) -> Result<Duration, IdentityError> {
        let mut key = KeyPair::generate()?;
        let csr = self.request(&key)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        key.zeroize();
        let request = IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self.metadata(),
        };
        // Cloned, for as long as it is borrowed nobody can replace it.
        let secret = self.current.borrow().clone();
        let channel = self.control_plane.authority_channel(secret.as_deref()).await?;
        let request = self.control_plane.authorize(tonic::Request::new(request))?;
        let response = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
        let mut chain = response.map_err(|e| IdentityError::Authority(e.message().to_owned()))?.into_inner().cert_chain;
        let root = chain.pop().filter(|_| !chain.is_empty());
        let root_pem = root.ok_or_else(|| IdentityError::Authority("an empty chain".to_owned()))?;
        self.install(chain.concat(), key_pem, TrustBundle { roots_pem: root_pem, ..TrustBundle::default() })
    }

    /// Who is to sign, as Istio's agent says it.
    fn metadata(&self) -> Option<Struct> {
        let kind = Some(Kind::StringValue(self.signer.clone()));
        (!self.signer.is_empty()).then(|| Struct { fields: [(SIGNER.to_owned(), Value { kind })].into() })
    }

    /// Puts a certificate in force, once it is certain that it can be used; returns how long it is good for.
    fn install(
        &self,
        chain_pem: String,
        key_pem: Zeroizing<String>,
        issued: TrustBundle,
    ) -> Result<Duration, IdentityError> {
        let identity = Identity::from_pem(chain_pem.as_bytes(), key_pem.as_bytes())?;
        let (not_before, not_after) = (identity.info().not_before, identity.info().not_after);
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let bundle = self.combined(&issued, roots.pushed.as_ref());
        self.trust.set(bundle.anchors()?);
        roots.issued = issued;
        self.certificate.set(identity);
        self.current.send_replace(Some(Arc::new(WorkloadSecret { chain_pem, key_pem, bundle, not_after })));
        let lifetime = match life((not_before, not_after), SystemTime::now()) {
            Ok(lifetime) => lifetime,
            Err(wrong) => {
                let (by, certificate) = (wrong.by, if wrong.ahead { "ended" } else { "not begun" });
                tracing::warn!(
                    ?by,
                    certificate,
                    "this machine's clock and the authority's differ: connections will fail"
                );
                not_after.duration_since(not_before).unwrap_or_default()
            }
        };
        tracing::info!(id = %self.spiffe_id, lifetime_s = lifetime.as_secs(), "certificate installed");
        Ok(lifetime)
    }

    /// Takes roots that discovery pushes. They are in force at once, with the certificate that is there.
    pub fn adopt(&self, pushed: TrustBundle) -> Result<(), CertError> {
        pushed.anchors()?;
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if self.one_authority {
            roots.issued = TrustBundle::default();
        }
        let bundle = self.combined(&roots.issued, Some(&pushed));
        self.trust.set(bundle.anchors()?);
        roots.pushed = Some(pushed);
        self.current.send_if_modified(|current| {
            let Some(secret) = current.as_ref().filter(|secret| secret.bundle != bundle) else { return false };
            let changed = WorkloadSecret {
                chain_pem: secret.chain_pem.clone(),
                key_pem: secret.key_pem.clone(),
                bundle,
                not_after: secret.not_after,
            };
            *current = Some(Arc::new(changed));
            true
        });
        Ok(())
    }

    /// A list of revocations that neither discovery nor who gives the certificate has may be mounted, as Istio has it.
    fn combined(&self, issued: &TrustBundle, pushed: Option<&TrustBundle>) -> TrustBundle {
        let given = pushed.into_iter().chain([issued]).map(|bundle| bundle.crl_pem.clone());
        let mounted = || std::fs::read_to_string(&self.crl_file).unwrap_or_default();
        let mut domains = pushed.map_or_else(|| issued.domains.clone(), |pushed| pushed.domains.clone());
        if let Some(own) = domains.get_mut(&self.trust_domain) {
            *own = secret::union(&issued.roots_pem, own);
        }
        TrustBundle {
            roots_pem: secret::union(&issued.roots_pem, pushed.map_or("", |pushed| &pushed.roots_pem)),
            crl_pem: given.into_iter().find(|crl| !crl.is_empty()).unwrap_or_else(mounted),
            domains,
        }
    }

    fn request(&self, key: &KeyPair) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(self.spiffe_id.as_str().try_into()?)];
        params.serialize_request(key)?.pem()
    }
}

/// A clock by which a certificate that was made just now has ended, or has not begun.
#[derive(Debug, PartialEq, Eq)]
struct WrongClock {
    ahead: bool,
    /// At least.
    by: Duration,
}

/// How long a certificate, made just now for so long, still lasts.
fn life((begin, end): (SystemTime, SystemTime), now: SystemTime) -> Result<Duration, WrongClock> {
    if now < begin {
        return Err(WrongClock { ahead: false, by: begin.duration_since(now).unwrap_or_default() });
    }
    end.duration_since(now).map_err(|beyond| WrongClock { ahead: true, by: beyond.duration() })
}

/// A number in [0, 1) that need not be secret.
fn rand_unit() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
