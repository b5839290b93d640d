//! The key by which workloads' tokens are signed (SPIFFE JWT-SVID): derived from the authority's key, so that all who share that have
//! this, too, and nothing more is to be kept; by no token can anything be learnt of the key that it comes from.
//!
//! Owns what is in a token. It lives for [`LIFETIME`], and names its workload and for whom it is meant.

#[cfg(test)]
mod tests;

use crate::authority::AuthorityError;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use meltemi_tls::SpiffeId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Short, since it cannot be revoked.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);
/// Tells this use of the authority's key from every other.
const SALT: &[u8] = b"meltemi JWT-SVID P-256";
/// Bytes of a number of P-256, and of a point that is not compressed.
const SCALAR: usize = 32;
const POINT: usize = 1 + 2 * SCALAR;

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: Vec<String>,
    exp: u64,
    iat: u64,
}

/// Signs tokens and verifies them.
pub(crate) struct SvidKey {
    id: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    jwk: Value,
}

struct ScalarLength;

impl KeyType for ScalarLength {
    fn len(&self) -> usize {
        SCALAR
    }
}

fn wrong(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> AuthorityError {
    move |reason| AuthorityError::Certificate { what, reason: reason.to_string() }
}

impl SvidKey {
    /// From the private key of an authority, in whatever form.
    pub fn derive(secret: &[u8]) -> Result<Self, AuthorityError> {
        let wrong = wrong("token key");
        let derived = Salt::new(HKDF_SHA256, SALT).extract(secret);
        // All but one in 2^32 numbers are keys.
        for attempt in 0..=u8::MAX {
            let mut scalar = Zeroizing::new([0; SCALAR]);
            let info = [&[attempt][..]];
            let filled = derived.expand(&info, ScalarLength).and_then(|okm| okm.fill(&mut *scalar));
            filled.map_err(|e| wrong(&e))?;
            let Ok(private) = PrivateKey::from_private_key(&ECDH_P256, &*scalar) else { continue };
            let public = private.compute_public_key().map_err(|e| wrong(&e))?;
            return Self::new(&*scalar, public.as_ref());
        }
        Err(wrong(&"none can be derived"))
    }

    fn new(scalar: &[u8], public: &[u8]) -> Result<Self, AuthorityError> {
        let wrong = wrong("token key");
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, scalar, public);
        let document = pair.map_err(|e| wrong(&e))?.to_pkcs8v1().map_err(|e| wrong(&e))?;
        let point = public.get(1..).filter(|_| public.len() == POINT).ok_or_else(|| wrong(&"no point"))?;
        let [x, y] = [&point[..SCALAR], &point[SCALAR..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public);
        let id = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..SCALAR / 2]);
        let verifying = DecodingKey::from_ec_components(&x, &y).map_err(|e| wrong(&e))?;
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "jwt-svid", "kid": id, "x": x, "y": y,
        });
        Ok(Self { id, signing: EncodingKey::from_ec_der(document.as_ref()), verifying, jwk })
    }

    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// A token for these, until `end` at the latest.
    pub fn sign(
        &self,
        id: &SpiffeId,
        audiences: &[String],
        (now, end): (SystemTime, SystemTime),
    ) -> Result<String, AuthorityError> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let exp = seconds((now + LIFETIME).min(end));
        let claims = Claims { sub: id.to_string(), aud: audiences.to_vec(), exp, iat: seconds(now) };
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|e| wrong("token")(&e))
    }

    /// The claims of a token that this key signed for the audience, as long as it lives; nothing otherwise.
    pub fn verify(&self, token: &str, audience: &str) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.leeway = 0;
        let verified = jsonwebtoken::decode::<Map<String, Value>>(token, &self.verifying, &validation);
        verified.ok().map(|verified| verified.claims)
    }
}
