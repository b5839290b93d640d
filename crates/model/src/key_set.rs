//! Keys that verify tokens, where a RequestAuthentication says only whose they are.

use crate::config::ConfigRef;
use meltemi_config::security::{JwtRule, RequestAuthentication};
use meltemi_config::wire::Str;
use std::collections::BTreeMap;

/// Where a key set comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeySource {
    pub issuer: Str,
    /// Empty: where the issuer's OpenID configuration says.
    pub uri: Str,
}

impl KeySource {
    /// `None` where the rule brings its keys itself.
    pub fn of(rule: &JwtRule) -> Option<Self> {
        rule.jwks.is_empty().then(|| Self { issuer: rule.issuer.clone(), uri: rule.jwks_uri.clone() })
    }

    /// Whether a policy needs these keys.
    pub(crate) fn serves(&self, policy: &ConfigRef<RequestAuthentication>) -> bool {
        policy.spec.jwt_rules.iter().any(|rule| Self::of(rule).as_ref() == Some(self))
    }
}

/// JSON Web Key Sets by source, each the last good one. A source that is not here has none so far.
pub type KeySets = BTreeMap<KeySource, Str>;

/// Who fetches the keys at a `jwksUri` (istiod's `PILOT_JWT_ENABLE_REMOTE_JWKS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyFetch {
    /// The control plane, for all proxies.
    #[default]
    ControlPlane,
    /// The proxy where the server is a service of the mesh, else the control plane.
    Hybrid,
    /// The proxy.
    Proxy,
}
