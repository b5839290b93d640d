//! Workload tokens in the form of Kubernetes' projected service account tokens: JWTs whose subject is
//! `system:serviceaccount:<namespace>:<service account>` and whose audience is [`crate::TOKEN_AUDIENCE`].
//!
//! On Kubernetes the cluster issues them; on one machine `meltemi up` does, with a key of its own. They are verified against
//! the public keys of their issuer, given as one PEM key or as a JSON Web Key Set, which may be replaced at any time.

#[cfg(test)]
mod tests;

use crate::TOKEN_AUDIENCE;
use crate::authenticate::{ServiceAccount, TokenAuthority, TokenRefusal};
use crate::signer::CLOCK_SKEW;
use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::{Zeroize as _, Zeroizing};

/// A key set of an issuer has a handful of keys.
const MAX_KEYS: usize = 64;
const MAX_KEY_SET_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("token key: {0}")]
    Key(String),
    #[error("key set: {0}")]
    KeySet(String),
    #[error("{0}")]
    Refused(String),
}

#[derive(Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: u64,
    iat: u64,
}

/// What is read of a token once it is verified. Its other claims are verified by the library.
#[derive(Deserialize)]
struct Subject {
    sub: String,
    nbf: Option<u64>,
}

#[derive(Deserialize)]
struct IssuerOnly {
    iss: Option<String>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
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
        let mut pair = KeyPair::generate().map_err(|e| TokenError::Key(e.to_string()))?;
        let pem = Zeroizing::new(pair.serialize_pem());
        let public_pem = pair.public_key_pem();
        pair.zeroize();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(Self { key, public_pem, issuer: issuer.to_owned() })
    }

    /// SubjectPublicKeyInfo in PEM, for [`TokenVerifier::from_pem`].
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    pub fn issue(&self, namespace: &str, service_account: &str, lifetime: Duration) -> Result<String, TokenError> {
        let now = now();
        self.issue_for(namespace, service_account, now..now + lifetime.as_secs())
    }

    /// `valid` is in seconds since 1970.
    pub(crate) fn issue_for(
        &self,
        namespace: &str,
        service_account: &str,
        valid: Range<u64>,
    ) -> Result<String, TokenError> {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: ServiceAccount::subject(namespace, service_account),
            aud: vec![TOKEN_AUDIENCE.to_owned()],
            exp: valid.end,
            iat: valid.start,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)
            .map_err(|e| TokenError::Key(e.to_string()))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A public key of an issuer, and what it may have signed with.
pub(crate) struct Key {
    id: Option<String>,
    pub key: DecodingKey,
    pub algorithms: Vec<Algorithm>,
}

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

impl Key {
    /// None for a key that does not sign tokens, such as one for encryption or a shared secret.
    pub fn of(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let algorithms = match (&jwk.algorithm, jwk.common.key_algorithm) {
            (AlgorithmParameters::OctetKey(_), _) => return None,
            (_, Some(algorithm)) => vec![algorithm_of(algorithm)?],
            (AlgorithmParameters::RSA(_), None) => RSA.to_vec(),
            (AlgorithmParameters::EllipticCurve(_), None) => vec![Algorithm::ES256, Algorithm::ES384],
            (_, None) => vec![Algorithm::EdDSA],
        };
        Some(Self { id: jwk.common.key_id.clone(), key: DecodingKey::from_jwk(jwk).ok()?, algorithms })
    }
}

/// Of signatures; those with a shared secret are not among them.
fn algorithm_of(named: KeyAlgorithm) -> Option<Algorithm> {
    Some(match named {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::PS256 => Algorithm::PS256,
        KeyAlgorithm::PS384 => Algorithm::PS384,
        KeyAlgorithm::PS512 => Algorithm::PS512,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::ES384 => Algorithm::ES384,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
        _ => return None,
    })
}

/// Checks the tokens of one issuer.
pub struct TokenVerifier {
    keys: ArcSwap<Vec<Key>>,
    issuer: String,
    audiences: Vec<String>,
}

impl TokenVerifier {
    /// `public_pem` is an EC P-256 or an RSA key; `issuer` must equal the token's.
    pub fn from_pem(public_pem: &str, issuer: &str) -> Result<Self, TokenError> {
        let (key, algorithm) = match DecodingKey::from_ec_pem(public_pem.as_bytes()) {
            Ok(key) => (key, Algorithm::ES256),
            Err(_) => match DecodingKey::from_rsa_pem(public_pem.as_bytes()) {
                Ok(key) => (key, Algorithm::RS256),
                Err(e) => return Err(TokenError::Key(e.to_string())),
            },
        };
        Ok(Self::new(vec![Key { id: None, key, algorithms: vec![algorithm] }], issuer))
    }

    /// `jwks` is a JSON Web Key Set (RFC 7517 section 5), as an OIDC issuer publishes it.
    pub fn from_jwks(jwks: &str, issuer: &str) -> Result<Self, TokenError> {
        Ok(Self::new(key_set(jwks)?, issuer))
    }

    /// Refuses every token until [`Self::set_jwks`].
    pub fn without_keys(issuer: &str) -> Self {
        Self::new(Vec::new(), issuer)
    }

    fn new(keys: Vec<Key>, issuer: &str) -> Self {
        let audiences = vec![TOKEN_AUDIENCE.to_owned()];
        Self { keys: ArcSwap::from_pointee(keys), issuer: issuer.to_owned(), audiences }
    }

    /// Those for which tokens must be meant, instead of [`crate::TOKEN_AUDIENCE`] (`AUDIENCE`).
    pub fn with_audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// The issuer has other keys now. A set that cannot be used leaves the old one in force.
    pub fn set_jwks(&self, jwks: &str) -> Result<(), TokenError> {
        self.keys.store(Arc::new(key_set(jwks)?));
        Ok(())
    }

    /// Whom the token names, once its signature, issuer, audience and lifetime are verified.
    pub fn verify(&self, token: &str) -> Result<ServiceAccount, TokenError> {
        let refused = |e: jsonwebtoken::errors::Error| TokenError::Refused(e.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(refused)?;
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&self.audiences);
        validation.leeway = 0;
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let keys = self.keys.load();
        let meant = |key: &&Key| match (&key.id, &header.kid) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        };
        let mut reason = TokenError::Refused("signed with no key of its issuer".to_owned());
        for key in keys.iter().filter(meant).filter(|key| key.algorithms.contains(&header.alg)) {
            match jsonwebtoken::decode::<Subject>(token, &key.key, &validation) {
                Ok(verified) => return account(&verified.claims),
                Err(e) => reason = refused(e),
            }
        }
        Err(reason)
    }
}

fn account(claims: &Subject) -> Result<ServiceAccount, TokenError> {
    if claims.nbf.is_some_and(|nbf| nbf > now() + CLOCK_SKEW.as_secs()) {
        return Err(TokenError::Refused("not valid yet".to_owned()));
    }
    ServiceAccount::from_subject(&claims.sub)
        .ok_or_else(|| TokenError::Refused("subject is no service account".to_owned()))
}

fn key_set(jwks: &str) -> Result<Vec<Key>, TokenError> {
    if jwks.len() > MAX_KEY_SET_BYTES {
        return Err(TokenError::KeySet(format!("more than {MAX_KEY_SET_BYTES} bytes")));
    }
    let set: KeySet = serde_json::from_str(jwks).map_err(|e| TokenError::KeySet(e.to_string()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(TokenError::KeySet(format!("more than {MAX_KEYS} keys")));
    }
    // A key of a kind that is not known is for others (RFC 7517 section 5).
    let known = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys: Vec<Key> = known.filter_map(|key| Key::of(&key)).collect();
    if keys.is_empty() { Err(TokenError::KeySet("no key in it that signs tokens".to_owned())) } else { Ok(keys) }
}

#[tonic::async_trait]
impl TokenAuthority for TokenVerifier {
    async fn judge(&self, token: &str) -> Option<Result<ServiceAccount, TokenRefusal>> {
        // Only to choose who judges; what is not verified proves nothing.
        let claimed = jsonwebtoken::dangerous::insecure_decode::<IssuerOnly>(token).ok();
        if claimed.is_some_and(|claimed| claimed.claims.iss.is_some_and(|issuer| issuer != self.issuer)) {
            return None;
        }
        Some(self.verify(token).map_err(|e| e.to_string().into()))
    }
}
