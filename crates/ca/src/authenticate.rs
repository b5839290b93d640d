//! Who asks for a certificate or for configuration: by token (the first time) or by client certificate (renewal).
//!
//! Owns the one interface behind which tokens are judged. Must never log or give back a token.

#[cfg(test)]
mod tests;

use arc_swap::ArcSwap;
use meltemi_tls::{PeerInfo, SpiffeId, TrustDomain};
use std::sync::Arc;
use tonic::Status;
use tonic::metadata::MetadataMap;

const SUBJECT_PREFIX: &str = "system:serviceaccount:";
/// A token is one or two KiB; beyond this it is not worth parsing.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Who asks, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub id: SpiffeId,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no credential: neither a client certificate nor an authorization header")]
    Missing,
    #[error("{0}")]
    Refused(String),
    /// Nobody can say at present; to be asked again.
    #[error("{0}")]
    Unavailable(String),
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing | AuthError::Refused(_) => Self::unauthenticated(error.to_string()),
            AuthError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}

/// Why a token proves nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRefusal {
    Refused(String),
    /// It could not be judged: whoever showed it may try again.
    Unavailable(String),
}

impl From<String> for TokenRefusal {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl From<TokenRefusal> for AuthError {
    fn from(refusal: TokenRefusal) -> Self {
        match refusal {
            TokenRefusal::Refused(reason) => Self::Refused(format!("token refused: {reason}")),
            TokenRefusal::Unavailable(reason) => Self::Unavailable(format!("token not judged: {reason}")),
        }
    }
}

/// What a token of Kubernetes names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

impl ServiceAccount {
    /// Of `system:serviceaccount:<namespace>:<name>`, a token's subject and the user name in a review of it.
    pub fn from_subject(subject: &str) -> Option<Self> {
        let (namespace, name) = subject.strip_prefix(SUBJECT_PREFIX)?.split_once(':')?;
        Some(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    pub fn subject(namespace: &str, name: &str) -> String {
        format!("{SUBJECT_PREFIX}{namespace}:{name}")
    }
}

/// Judges the tokens of one issuer.
#[tonic::async_trait]
pub trait TokenAuthority: Send + Sync {
    /// Whom the token proves, or why it proves nobody; `None` where tokens like it are not judged here.
    async fn judge(&self, token: &str) -> Option<Result<ServiceAccount, TokenRefusal>>;
}

/// Proves callers.
pub struct Authenticator {
    trust_domain: TrustDomain,
    /// Names that the trust domain had before: their certificates are taken, and renewed under today's.
    aliases: ArcSwap<Vec<TrustDomain>>,
    tokens: Vec<Arc<dyn TokenAuthority>>,
}

impl Authenticator {
    /// The first that judges a token decides.
    pub fn new(trust_domain: TrustDomain, tokens: Vec<Arc<dyn TokenAuthority>>) -> Self {
        Self { trust_domain, aliases: ArcSwap::default(), tokens }
    }

    /// MeshConfig's `trustDomainAliases`.
    pub fn set_aliases(&self, aliases: Vec<TrustDomain>) {
        self.aliases.store(Arc::new(aliases));
    }

    /// A token, where one is shown, decides; else the certificate does. A bad token is never outweighed by a certificate.
    pub async fn authenticate(&self, metadata: &MetadataMap, peer: Option<&PeerInfo>) -> Result<Caller, AuthError> {
        match metadata.get("authorization") {
            Some(header) => {
                let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
                let token = token.ok_or_else(|| AuthError::Refused("authorization is no bearer token".to_owned()))?;
                self.by_token(token).await
            }
            None => self.by_certificate(peer.ok_or(AuthError::Missing)?),
        }
    }

    async fn by_token(&self, token: &str) -> Result<Caller, AuthError> {
        if self.tokens.is_empty() {
            return Err(AuthError::Refused("tokens are not accepted here".to_owned()));
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Refused("token refused: too long".to_owned()));
        }
        for authority in &self.tokens {
            if let Some(judged) = authority.judge(token).await {
                let account = judged?;
                let id = SpiffeId::new(self.trust_domain.clone(), &account.namespace, &account.name);
                return Ok(Caller { id: id.map_err(|e| AuthError::Refused(format!("token refused: {e}")))? });
            }
        }
        Err(AuthError::Refused("token refused: of no issuer that is accepted here".to_owned()))
    }

    /// The certificate has been verified by the TLS server; what is left is whom it names.
    fn by_certificate(&self, peer: &PeerInfo) -> Result<Caller, AuthError> {
        // A certificate of several names would be whichever the reader prefers (SPIFFE X509-SVID section 2).
        let [uri] = peer.uri_sans.as_slice() else {
            return match peer.uri_sans.len() {
                0 => Err(AuthError::Missing),
                names => Err(AuthError::Refused(format!("the certificate has {names} names, where one is expected"))),
            };
        };
        let id: SpiffeId = uri.parse().map_err(|e| AuthError::Refused(format!("{e}")))?;
        if id.trust_domain != self.trust_domain && !self.aliases.load().contains(&id.trust_domain) {
            return Err(AuthError::Refused(format!("trust domain {} is not ours", id.trust_domain)));
        }
        Ok(Caller { id: SpiffeId { trust_domain: self.trust_domain.clone(), ..id } })
    }
}
