//! By what tokens of workloads (SPIFFE JWT-SVID) of other trust domains are verified: the keys of their bundles.
//!
//! Owns which keys of a bundle those are, and what is asked of a token that one of them signed: it is of the trust domain whose keys
//! these are. Must never show what a bundle should not have, the private half of a key. Costs the sets themselves.

#[cfg(test)]
mod tests;

use crate::signer::CLOCK_SKEW;
use crate::token::{Key, now};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Header, Validation};
use meltemi_tls::TrustDomain;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Of one bundle; an authority has the key that signs, its successor and its predecessor.
const MAX_KEYS: usize = 16;
/// Trust domains with keys; more are left out.
const MAX_DOMAINS: usize = 256;
/// What a key for tokens says of itself in a bundle (SPIFFE JWT-SVID, section 6.1).
const USE: &str = "jwt-svid";
/// The public members of a key (RFC 7518 section 6) that signs with RSA or over a curve, and its name.
const PUBLIC: [&str; 8] = ["kty", "kid", "alg", "crv", "x", "y", "n", "e"];
/// Algorithms with a key pair that a JWT-SVID may be signed with (section 2.2) are of these kinds of keys.
const KINDS: [&str; 2] = ["RSA", "EC"];
const SCHEME: &str = "spiffe://";

/// The keys for tokens of one bundle, as others are told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleKeys(Vec<Value>);

impl BundleKeys {
    /// Those among the keys of a bundle that are for tokens. What is wrong with one concerns no other: it is left out, and said.
    pub fn of_bundle(bundle: &Value) -> Self {
        let keys = bundle["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut found = Vec::new();
        for (place, key) in keys.iter().enumerate().filter(|(_, key)| key["use"] == USE) {
            match public(key) {
                Some(_) if found.len() == MAX_KEYS => {
                    tracing::warn!("keys[{place}] of a bundle is left out: more than {MAX_KEYS} are for {USE}");
                }
                Some(key) => found.push(key),
                None => tracing::warn!("keys[{place}] of a bundle is left out: no kid, or no key of {KINDS:?}"),
            }
        }
        Self(found)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of both, each once.
    pub fn join(&mut self, others: &Self) {
        let new: Vec<Value> = others.0.iter().filter(|key| !self.0.contains(key)).cloned().collect();
        self.0.extend(new);
    }

    pub(crate) fn jwks(&self) -> &[Value] {
        &self.0
    }

    /// The claims of a token that one of these keys signed for the audience, as long as it lives.
    fn verify(&self, token: &str, audience: &str, header: &Header) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.leeway = 0;
        let named = self.0.iter().filter(|key| header.kid.is_none() || key["kid"].as_str() == header.kid.as_deref());
        let keys = named.filter_map(verifying).filter(|key| key.algorithms.contains(&header.alg));
        let verified = |key: Key| jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation).ok();
        let claims = keys.filter_map(verified).map(|verified| verified.claims).next()?;
        let begins = claims.get("nbf").and_then(Value::as_u64).unwrap_or_default();
        (begins <= now() + CLOCK_SKEW.as_secs()).then_some(claims)
    }
}

/// The key without what is nobody's business; none where it has no name, or is not of a kind that signs tokens.
fn public(key: &Value) -> Option<Value> {
    let kind = key["kty"].as_str().filter(|kind| KINDS.contains(kind));
    kind.zip(key["kid"].as_str().filter(|kid| !kid.is_empty()))?;
    let members = PUBLIC.iter().filter_map(|name| Some(((*name).to_owned(), key.get(*name)?.clone())));
    Some(members.chain([("use".to_owned(), USE.into())]).collect::<Map<_, _>>().into())
}

/// None for a key whose algorithm or curve is not spoken here; others may know better.
fn verifying(key: &Value) -> Option<Key> {
    let mut key = key.as_object()?.clone();
    key.remove("use");
    Key::of(&serde_json::from_value::<Jwk>(key.into()).ok()?)
}

/// The trust domain that a workload's name begins with.
fn trust_domain_of(id: &str) -> Option<TrustDomain> {
    id.strip_prefix(SCHEME)?.split('/').next()?.parse().ok()
}

/// Key sets by trust domain, as they are found; the mesh's own may be among them.
#[derive(Debug)]
pub struct FederatedKeys(watch::Sender<Arc<BTreeMap<TrustDomain, BundleKeys>>>);

impl Default for FederatedKeys {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }
}

impl FederatedKeys {
    /// From now on these, and no others.
    pub fn set(&self, mut keys: BTreeMap<TrustDomain, BundleKeys>) {
        keys.retain(|_, keys| !keys.is_empty());
        while keys.len() > MAX_DOMAINS {
            let left_out = keys.pop_last().map(|(domain, _)| domain);
            tracing::warn!(?left_out, "more than {MAX_DOMAINS} trust domains have keys for tokens");
        }
        self.0.send_if_modified(|known| {
            let changed = **known != keys;
            if changed {
                *known = Arc::new(keys);
            }
            changed
        });
    }

    pub fn current(&self) -> Arc<BTreeMap<TrustDomain, BundleKeys>> {
        self.0.borrow().clone()
    }

    /// Tells when they are others.
    pub fn subscribe(&self) -> watch::Receiver<Arc<BTreeMap<TrustDomain, BundleKeys>>> {
        self.0.subscribe()
    }

    /// The claims of a token for this audience that a key of its own trust domain signed; nothing otherwise.
    pub(crate) fn verify(&self, token: &str, audience: &str) -> Option<Map<String, Value>> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // Section 2.3: where there is a type, it is one of these.
        if !matches!(header.typ.as_deref(), None | Some("JWT" | "JOSE")) {
            return None;
        }
        // Only to choose the keys; what is not verified proves nothing.
        let claimed = jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(token).ok()?.claims;
        let domain = trust_domain_of(claimed.get("sub")?.as_str()?)?;
        self.current().get(&domain)?.verify(token, audience, &header)
    }
}
