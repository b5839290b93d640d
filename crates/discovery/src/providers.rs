//! CUSTOM policies whose external authorizer the mesh configuration does not have: what they choose is denied.
//!
//! Owns when that is said: once, when it comes to be so. Costs a look at every AuthorizationPolicy a batch.

use std::collections::BTreeSet;

use meltemi_config::nearest;
use meltemi_config::wire::Str;
use meltemi_model::{ObjectKey, Snapshot};

/// The policies that were told, with the provider that each names.
#[derive(Debug, Default)]
pub(crate) struct Missing(BTreeSet<(ObjectKey, Str)>);

impl Missing {
    /// Says which policies have come to lack their provider.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let now = missing(snapshot);
        for (policy, provider) in now.difference(&self.0) {
            tracing::warn!("{}", told(snapshot, policy, provider));
        }
        self.0 = now;
    }
}

fn authorizers(snapshot: &Snapshot) -> impl Iterator<Item = &Str> {
    let providers = snapshot.mesh.extension_providers.iter();
    providers
        .filter(|it| it.envoy_ext_authz_http.is_some() || it.envoy_ext_authz_grpc.is_some())
        .map(|provider| &provider.name)
}

fn missing(snapshot: &Snapshot) -> BTreeSet<(ObjectKey, Str)> {
    let known: BTreeSet<&Str> = authorizers(snapshot).collect();
    let named = snapshot.authorization.iter().filter_map(|policy| Some((policy, &policy.spec.provider.as_ref()?.name)));
    let unknown = named.filter(|(_, provider)| !known.contains(provider));
    unknown
        .map(|(policy, provider)| {
            (ObjectKey { namespace: policy.namespace.clone(), name: policy.name.clone() }, provider.clone())
        })
        .collect()
}

fn told(snapshot: &Snapshot, policy: &ObjectKey, provider: &str) -> String {
    let meant = nearest(provider, authorizers(snapshot).map(|name| &**name));
    let meant = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!(
        "AuthorizationPolicy {}/{}: spec.provider.name: no external authorizer of extensionProviders is named {provider:?}, so \
         whatever the rules match is denied{meant}",
        policy.namespace, policy.name
    )
}

#[cfg(test)]
mod tests;
