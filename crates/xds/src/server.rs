//! The server's end of one ADS stream.
//!
//! Owns what one client has subscribed to and what it holds. Never generates a resource and never reads a clock: the caller
//! gives requests and current resources, and sends what comes back. A session costs two shared pointers for each resource its
//! client holds.

mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::ControlPlane;
use meltemi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wire,
    ResourceLocator,
};

pub use watch::{Rejection, Watch};

use crate::{Resource, Variant, Violation, WILDCARD, types};

/// A client that asks for more types than xDS has is not one.
const MAX_TYPES: usize = 64;
/// Of one type. Twice the largest mesh we plan for.
const MAX_NAMES: usize = 65_536;
const MAX_NAME_BYTES: usize = 4_096;

/// What a request said of an earlier response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The request answers no response.
    None,
    /// It answers a response that a later one has replaced, or one of another stream.
    Stale,
    Accepted {
        nonce: String,
    },
    Rejected {
        nonce: String,
        message: String,
    },
}

/// What a request asks to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    Nothing,
    /// These names, whatever the client holds of them.
    Names(BTreeSet<Arc<str>>),
    /// All that the subscription covers.
    Everything,
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub type_url: Arc<str>,
    pub verdict: Verdict,
    pub want: Want,
    /// Whether the subscription itself changed.
    pub resubscribed: bool,
}

/// Which resources a push speaks of; it says nothing of the others.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    Everything,
    Names(&'a BTreeSet<Arc<str>>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    Delta(DeltaDiscoveryResponse),
    StateOfTheWorld(DiscoveryResponse),
}

impl Response {
    pub fn nonce(&self) -> &str {
        match self {
            Self::Delta(response) => &response.nonce,
            Self::StateOfTheWorld(response) => &response.nonce,
        }
    }

    /// Resources sent and resources said to be gone.
    pub fn counts(&self) -> (usize, usize) {
        match self {
            Self::Delta(response) => (response.resources.len(), response.removed_resources.len()),
            Self::StateOfTheWorld(response) => (response.resources.len(), 0),
        }
    }

    /// Bytes of the resources' bodies.
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Delta(response) => {
                response.resources.iter().filter_map(|r| r.resource.as_ref()).map(|any| any.value.len()).sum()
            }
            Self::StateOfTheWorld(response) => response.resources.iter().map(|any| any.value.len()).sum(),
        }
    }
}

/// One stream's subscriptions by type.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    id: u64,
    identifier: Arc<str>,
    next_nonce: u64,
    watches: BTreeMap<Arc<str>, Watch>,
}

impl Session {
    /// `id` tells this stream's nonces from another's; `identifier` names the control plane to the client.
    pub fn new(variant: Variant, id: u64, identifier: Arc<str>) -> Self {
        Self { variant, id, identifier, next_nonce: 0, watches: BTreeMap::new() }
    }

    pub fn variant(&self) -> Variant {
        self.variant
    }

    pub fn watch(&self, type_url: &str) -> Option<&Watch> {
        self.watches.get(type_url)
    }

    pub fn watches(&self) -> impl Iterator<Item = (&Arc<str>, &Watch)> {
        self.watches.iter()
    }

    /// Whether a push of this type must bring the complete set, since the client takes what is missing for gone.
    pub fn needs_full_set(&self, type_url: &str) -> bool {
        self.variant == Variant::StateOfTheWorld && types::is_full_state(type_url)
    }

    /// Takes a request of the incremental variant.
    pub fn on_delta(&mut self, request: &DeltaDiscoveryRequest) -> Result<Received, Violation> {
        let (type_url, first) = self.open(&request.type_url)?;
        let subscribe = names(&request.resource_names_subscribe, &request.resource_locators_subscribe)?;
        let unsubscribe = names(&request.resource_names_unsubscribe, &request.resource_locators_unsubscribe)?;
        let watch = self.watches.entry(type_url.clone()).or_default();
        let verdict = watch.settle(&request.response_nonce, request.error_detail.as_ref());
        if first {
            watch.resume(&request.initial_resource_versions);
            if subscribe.is_empty() && types::legacy_wildcard(&type_url) {
                watch.start_wildcard();
            }
        }
        let resumed = first && !request.initial_resource_versions.is_empty();
        let resubscribed = first || !subscribe.is_empty() || !unsubscribe.is_empty();
        let mut wanted = watch.unsubscribe(&unsubscribe);
        let starts_wildcard = watch.subscribe(subscribe, resumed, &mut wanted);
        if watch.explicit_names() > MAX_NAMES {
            return Err(Violation::TooManyNames { type_url: type_url.to_string(), limit: MAX_NAMES });
        }
        let want = if first || starts_wildcard {
            Want::Everything
        } else if wanted.is_empty() {
            Want::Nothing
        } else {
            Want::Names(wanted)
        };
        Ok(Received { type_url, verdict, want, resubscribed })
    }

    /// Takes a request of the state-of-the-world variant.
    pub fn on_sotw(&mut self, request: &DiscoveryRequest) -> Result<Received, Violation> {
        let (type_url, first) = self.open(&request.type_url)?;
        let names = names(&request.resource_names, &request.resource_locators)?;
        if names.len() > MAX_NAMES {
            return Err(Violation::TooManyNames { type_url: type_url.to_string(), limit: MAX_NAMES });
        }
        let watch = self.watches.entry(type_url.clone()).or_default();
        let verdict = watch.settle(&request.response_nonce, request.error_detail.as_ref());
        // A first request's nonce and version belong to an earlier stream. What exactly the client still holds they do not
        // tell (it may have applied half of a response that it rejected), so it is sent everything.
        if !first && !request.response_nonce.is_empty() && watch.sent_nonce() != Some(&request.response_nonce) {
            // The client has not read our last response yet; it will repeat its names when it does.
            watch.doubt(&names);
            return Ok(Received { type_url, verdict, want: Want::Nothing, resubscribed: false });
        }
        let resubscribed = first || !watch.is_exactly(&names);
        let wanted = watch.replace(names, first && types::legacy_wildcard(&type_url));
        let want = match wanted {
            _ if first => Want::Everything,
            None => Want::Everything,
            Some(wanted) if wanted.is_empty() => Want::Nothing,
            Some(_) if types::is_full_state(&type_url) => Want::Everything,
            Some(wanted) => Want::Names(wanted),
        };
        Ok(Received { type_url, verdict, want, resubscribed })
    }

    /// Makes the next push that speaks of these names send them even if the client holds them. For endpoints of clusters that
    /// it has just been told to rebuild: Envoy waits for their endpoints again without asking.
    pub fn renew<'a>(&mut self, type_url: &str, names: impl IntoIterator<Item = &'a Arc<str>>) -> BTreeSet<Arc<str>> {
        self.watches.get_mut(type_url).map(|watch| watch.renew(names)).unwrap_or_default()
    }

    /// [`Self::renew`] of all that the client holds.
    pub fn renew_all(&mut self, type_url: &str) {
        if let Some(watch) = self.watches.get_mut(type_url) {
            let held: Vec<Arc<str>> = watch.held().map(|(name, _)| name.clone()).collect();
            watch.renew(&held);
        }
    }

    fn open(&self, type_url: &str) -> Result<(Arc<str>, bool), Violation> {
        if type_url.is_empty() {
            return Err(Violation::NoType);
        }
        match self.watches.get_key_value(type_url) {
            Some((known, _)) => Ok((known.clone(), false)),
            None if self.watches.len() >= MAX_TYPES => Err(Violation::TooManyTypes(MAX_TYPES)),
            None => Ok((type_url.into(), true)),
        }
    }

    /// The response that brings the client from what it holds to `current`, within `scope`; `None` where there is nothing to
    /// say. `current` holds every resource of the scope that exists for this client and may hold others, which are skipped.
    ///
    /// Where [`Self::needs_full_set`], the scope must be everything.
    pub fn push(&mut self, type_url: &str, current: &[Resource], scope: Scope<'_>) -> Option<Response> {
        let nonce = format!("{:x}-{}", self.id, self.next_nonce);
        let watch = self.watches.get_mut(type_url)?;
        let control_plane =
            (!self.identifier.is_empty()).then(|| ControlPlane { identifier: self.identifier.to_string() });
        let response = match self.variant {
            Variant::Delta => {
                let difference = watch.difference(current, scope)?;
                Response::Delta(DeltaDiscoveryResponse {
                    resources: difference.changed.iter().map(|resource| wire(resource)).collect(),
                    type_url: type_url.to_owned(),
                    removed_resources: difference.removed.iter().map(|name| name.to_string()).collect(),
                    nonce,
                    control_plane,
                    ..Default::default()
                })
            }
            Variant::StateOfTheWorld => {
                let (resources, version_info) = watch.state(current, scope, types::is_full_state(type_url))?;
                Response::StateOfTheWorld(DiscoveryResponse {
                    version_info,
                    resources: resources.iter().map(|resource| Any::clone(&resource.body)).collect(),
                    type_url: type_url.to_owned(),
                    nonce,
                    control_plane,
                    ..Default::default()
                })
            }
        };
        self.next_nonce += 1;
        watch.sent(response.nonce());
        Some(response)
    }
}

fn wire(resource: &Resource) -> Wire {
    Wire {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(Any::clone(&resource.body)),
        ..Default::default()
    }
}

/// Names however they are given. Locators carry names too; their dynamic parameters are a hint we may ignore.
fn names(plain: &[String], locators: &[ResourceLocator]) -> Result<BTreeSet<Arc<str>>, Violation> {
    let all = plain.iter().chain(locators.iter().map(|locator| &locator.name));
    all.map(|name| {
        if name.len() > MAX_NAME_BYTES { Err(Violation::LongName(MAX_NAME_BYTES)) } else { Ok(name.as_str().into()) }
    })
    .collect()
}

/// Whether `name` asks for everything.
fn is_wildcard(name: &str) -> bool {
    name == WILDCARD
}
