//! The server's end of one ADS stream.
//!
//! Owns what one client has subscribed to and what it holds. Never generates a resource and never reads a clock: the caller
//! gives requests and current resources, and sends what comes back. What a client holds is a list that all sessions with equal
//! lists share (see [`Shelf`]).

mod holdings;
pub mod stream;
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

pub use holdings::Shelf;
pub use watch::{Rejection, Resubscribed, Watch};

use crate::{Resource, Variant, Violation, types};

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
    /// What changed in the names asked for one by one.
    pub resubscribed: Resubscribed,
}

/// Which resources a push speaks of; it says nothing of the others.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    Everything,
    Names(&'a BTreeSet<Arc<str>>),
}

/// What is to be sent: it shares the resources with every other session that sends them.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub variant: Variant,
    pub type_url: Arc<str>,
    pub nonce: String,
    /// State of the world: of all that the client then holds.
    pub version: String,
    /// Names the control plane; may be empty.
    pub identifier: Arc<str>,
    pub resources: Vec<Resource>,
    /// Incremental: names of what is gone.
    pub removed: Vec<Arc<str>>,
}

impl Response {
    /// Bytes of the resources' bodies.
    pub fn body_bytes(&self) -> usize {
        self.resources.iter().map(|resource| resource.body.value.len()).sum()
    }

    fn control_plane(&self) -> Option<ControlPlane> {
        (!self.identifier.is_empty()).then(|| ControlPlane { identifier: self.identifier.to_string() })
    }

    /// The message of the incremental variant.
    pub fn to_delta(&self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            resources: self.resources.iter().map(wire).collect(),
            type_url: self.type_url.to_string(),
            removed_resources: self.removed.iter().map(|name| name.to_string()).collect(),
            nonce: self.nonce.clone(),
            control_plane: self.control_plane(),
            ..Default::default()
        }
    }

    /// The message of the state-of-the-world variant.
    pub fn to_state_of_the_world(&self) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: self.version.clone(),
            resources: self.resources.iter().map(|resource| Any::clone(&resource.body)).collect(),
            type_url: self.type_url.to_string(),
            nonce: self.nonce.clone(),
            control_plane: self.control_plane(),
            ..Default::default()
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
    shelf: Arc<Shelf>,
}

impl Session {
    /// `id` tells this stream's nonces from another's; `identifier` names the control plane to the client.
    pub fn new(variant: Variant, id: u64, identifier: Arc<str>) -> Self {
        Self::sharing(variant, id, identifier, Arc::default())
    }

    /// A session that shares what its client holds with the others of the shelf.
    pub fn sharing(variant: Variant, id: u64, identifier: Arc<str>, shelf: Arc<Shelf>) -> Self {
        Self { variant, id, identifier, next_nonce: 0, watches: BTreeMap::new(), shelf }
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
        let watch = self.watches.entry(type_url.clone()).or_insert_with(|| Watch::new(self.shelf.clone()));
        let verdict = watch.settle(&request.response_nonce, request.error_detail.as_ref());
        if first {
            watch.resume(&request.initial_resource_versions);
            if subscribe.is_empty() && types::legacy_wildcard(&type_url) {
                watch.start_wildcard();
            }
        }
        let resumed = first && !request.initial_resource_versions.is_empty();
        let mut resubscribed = Resubscribed::default();
        let mut wanted = watch.unsubscribe(&unsubscribe, &mut resubscribed);
        let starts_wildcard = watch.subscribe(subscribe, resumed, &mut wanted, &mut resubscribed);
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
        let watch = self.watches.entry(type_url.clone()).or_insert_with(|| Watch::new(self.shelf.clone()));
        let verdict = watch.settle(&request.response_nonce, request.error_detail.as_ref());
        // A first request's nonce and version belong to an earlier stream. What exactly the client still holds they do not
        // tell (it may have applied half of a response that it rejected), so it is sent everything.
        if !first && !request.response_nonce.is_empty() && watch.sent_nonce() != Some(&request.response_nonce) {
            // The client has not read our last response yet; it will repeat its names when it does.
            watch.doubt(&names);
            return Ok(Received { type_url, verdict, want: Want::Nothing, resubscribed: Resubscribed::default() });
        }
        let mut resubscribed = Resubscribed::default();
        let wanted = watch.replace(names, first && types::legacy_wildcard(&type_url), &mut resubscribed);
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
            let held: Vec<Arc<str>> = watch.held().cloned().collect();
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
    /// Where [`Self::needs_full_set`], the scope must be everything. No two of `current` have one name.
    pub fn push(&mut self, type_url: &str, current: &[Resource], scope: Scope<'_>) -> Option<Response> {
        let nonce = format!("{:x}-{}", self.id, self.next_nonce);
        let key = self.watches.get_key_value(type_url)?.0.clone();
        let watch = self.watches.get_mut(type_url)?;
        let (resources, removed, version) = match self.variant {
            Variant::Delta => {
                let difference = watch.difference(current, scope)?;
                (difference.changed, difference.removed, String::new())
            }
            Variant::StateOfTheWorld => {
                let (resources, version) = watch.state(current, scope, types::is_full_state(type_url))?;
                (resources, Vec::new(), version)
            }
        };
        self.next_nonce += 1;
        watch.sent(&nonce);
        Some(Response {
            variant: self.variant,
            type_url: key,
            nonce,
            version,
            identifier: self.identifier.clone(),
            resources: resources.into_iter().cloned().collect(),
            removed,
        })
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
