//! Workload tokens in the form of Kubernetes' projected service account tokens: JWTs whose subject is
//! `system:serviceaccount:<namespace>:<service account>` and whose audience is [`crate::TOKEN_AUDIENCE`].
//!
//! On Kubernetes the cluster issues them; on one machine `meltemi up` does, with a key of its own.

use crate::TOKEN_AUDIENCE;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use meltemi_tls::{SpiffeId, TrustDomain};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SUBJECT_PREFIX: &str = "system:serviceaccount:";
/// A token is a few hundred bytes; beyond this it is not worth parsing.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("token key: {0}")]
    Key(String),
    #[error("token refused: {0}")]
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: u64,
    iat: u64,
}

/// Mints tokens; used where no cluster does.
pub struct TokenIssuer {
    key: EncodingKey,
    public_pem: String,
    issuer: String,
}

impl TokenIssuer {
    /// With a new P-256 key that lives as long as this value.
    pub fn generate(issuer: &str) -> Result<Self, TokenError> {
        let pair = KeyPair::generate().map_err(|e| TokenError::Key(e.to_string()))?;
        let key =
            EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(Self { key, public_pem: pair.public_key_pem(), issuer: issuer.to_owned() })
    }

    /// SubjectPublicKeyInfo in PEM, for [`TokenVerifier::from_pem`].
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    pub fn issue(&self, namespace: &str, service_account: &str, lifetime: Duration) -> Result<String, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: format!("{SUBJECT_PREFIX}{namespace}:{service_account}"),
            aud: vec![TOKEN_AUDIENCE.to_owned()],
            exp: now + lifetime.as_secs(),
            iat: now,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)
            .map_err(|e| TokenError::Key(e.to_string()))
    }
}

/// Checks tokens against one public key.
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
    trust_domain: TrustDomain,
}

impl TokenVerifier {
    /// `public_pem` is an EC P-256 or an RSA key; `issuer` must equal the token's.
    pub fn from_pem(public_pem: &str, issuer: &str, trust_domain: TrustDomain) -> Result<Self, TokenError> {
        let (key, algorithm) = match DecodingKey::from_ec_pem(public_pem.as_bytes()) {
            Ok(key) => (key, Algorithm::ES256),
            Err(_) => match DecodingKey::from_rsa_pem(public_pem.as_bytes()) {
                Ok(key) => (key, Algorithm::RS256),
                Err(e) => return Err(TokenError::Key(e.to_string())),
            },
        };
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[TOKEN_AUDIENCE]);
        validation.leeway = 0;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        Ok(Self { key, validation, trust_domain })
    }

    /// Whom the token names, once its signature, issuer, audience and lifetime are verified.
    pub fn verify(&self, token: &str) -> Result<SpiffeId, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Refused("too long".to_owned()));
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|e| TokenError::Refused(e.to_string()))?
            .claims;
        let subject = claims.sub.strip_prefix(SUBJECT_PREFIX).and_then(|rest| rest.split_once(':'));
        let (namespace, account) =
            subject.ok_or_else(|| TokenError::Refused("subject is no service account".to_owned()))?;
        SpiffeId::new(self.trust_domain.clone(), namespace, account).map_err(|e| TokenError::Refused(e.to_string()))
    }
}
