//! The workload's certificate: a key made here, a certificate asked of the authority, renewed at half life unless told otherwise.

use crate::environment::Renewal;
use crate::upstream::{ControlPlane, ControlPlaneError};
use meltemi_base::Backoff;
use meltemi_proto::istio::v1::auth::IstioCertificateRequest;
use meltemi_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use meltemi_tls::{CertError, CertSlot, Identity, TrustAnchors, TrustSlot};
use rcgen::{CertificateParams, KeyPair, SanType};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// Even where nothing of the life is to be left, or so little of it that a renewal would follow at once.
const SOONEST_RENEWAL: Duration = Duration::from_millis(500);
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
}

/// A certificate with its key and the mesh's roots, in PEM.
pub struct WorkloadSecret {
    pub chain_pem: String,
    pub key_pem: String,
    pub root_pem: String,
    pub not_after: SystemTime,
}

impl fmt::Debug for WorkloadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSecret").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Keeps the slots filled. Handshakes read the slots; an SDS server watches the secret.
pub struct IdentityKeeper {
    control_plane: Arc<ControlPlane>,
    spiffe_id: String,
    ttl: Duration,
    renewal: Renewal,
    pub certificate: Arc<CertSlot>,
    pub trust: Arc<TrustSlot>,
    current: watch::Sender<Option<Arc<WorkloadSecret>>>,
}

impl IdentityKeeper {
    pub fn new(control_plane: Arc<ControlPlane>, spiffe_id: String, ttl: Duration, renewal: Renewal) -> Self {
        Self {
            control_plane,
            spiffe_id,
            ttl,
            renewal,
            certificate: CertSlot::empty(),
            trust: TrustSlot::empty(),
            current: watch::Sender::new(None),
        }
    }

    /// The secret, as it is and as it changes; None until the first certificate is there.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<WorkloadSecret>>> {
        self.current.subscribe()
    }

    /// Runs until dropped: the first certificate as soon as the authority gives one, then a new one in time.
    pub async fn run(&self) {
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
        let key = KeyPair::generate()?;
        let csr = self.request(&key)?;
        let request = IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: None,
        };
        let channel = self.control_plane.authority_channel(self.subscribe().borrow().as_deref()).await?;
        let request = self.control_plane.authorize(tonic::Request::new(request))?;
        let response = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
        let mut chain = response.map_err(|e| IdentityError::Authority(e.message().to_owned()))?.into_inner().cert_chain;
        let root = chain.pop().filter(|_| !chain.is_empty());
        let root_pem = root.ok_or_else(|| IdentityError::Authority("an empty chain".to_owned()))?;
        let (chain_pem, key_pem) = (chain.concat(), key.serialize_pem());
        let identity = Identity::from_pem(chain_pem.as_bytes(), key_pem.as_bytes())?;
        let not_after = identity.info().not_after;
        self.trust.set(TrustAnchors::from_pem(root_pem.as_bytes(), &[])?);
        self.certificate.set(identity);
        self.current.send_replace(Some(Arc::new(WorkloadSecret { chain_pem, key_pem, root_pem, not_after })));
        let lifetime = not_after.duration_since(SystemTime::now()).unwrap_or_default();
        tracing::info!(id = %self.spiffe_id, lifetime_s = lifetime.as_secs(), "certificate installed");
        Ok(lifetime)
    }

    fn request(&self, key: &KeyPair) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(self.spiffe_id.as_str().try_into()?)];
        params.serialize_request(key)?.pem()
    }
}

/// A number in [0, 1) that need not be secret.
fn rand_unit() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
