//! The client's end of a stream as a state machine that outlives streams.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_proto::google::rpc::Status;

use crate::{Resource, Variant, Violation, WILDCARD, resource_name, types};

/// `google.rpc.Code.INVALID_ARGUMENT`, which Envoy sends with a rejection.
const INVALID_ARGUMENT: i32 = 3;

#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Delta(DeltaDiscoveryRequest),
    StateOfTheWorld(DiscoveryRequest),
}

/// One response, for the consumer to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub type_url: Arc<str>,
    pub nonce: String,
    pub version: String,
    pub resources: Vec<Resource>,
    /// Names of resources that are gone, or never were.
    pub removed: Vec<Arc<str>>,
}

/// What became of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// Nothing of it was applied.
    Rejected(String),
    /// All but these names was applied.
    PartlyRejected {
        names: Vec<Arc<str>>,
        message: String,
    },
}

#[derive(Debug, Default)]
struct Interest {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// Accepted resources and their versions.
    held: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether this stream has seen the type's first request.
    introduced: bool,
    subscribe: BTreeSet<Arc<str>>,
    unsubscribe: BTreeSet<Arc<str>>,
    /// Answers not yet sent: nonce and, for a rejection, its text.
    answers: VecDeque<(String, Option<String>)>,
    /// Responses handed out and not settled, oldest first.
    unsettled: VecDeque<Batch>,
    /// State of the world: the last response's nonce, and the last accepted version.
    nonce: String,
    version: String,
    names_changed: bool,
    /// State of the world: naming nothing no longer means everything once a stream has named something.
    has_named: bool,
}

/// Subscriptions and holdings of one client, across streams.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    node: Node,
    node_sent: bool,
    interests: BTreeMap<Arc<str>, Interest>,
}

impl Session {
    pub fn new(variant: Variant, node: Node) -> Self {
        Self { variant, node, node_sent: false, interests: BTreeMap::new() }
    }

    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Falls back to another variant; takes effect on the next stream.
    pub fn set_variant(&mut self, variant: Variant) {
        self.variant = variant;
    }

    /// Subscribes to the names, `*` for all of the type.
    pub fn subscribe(&mut self, type_url: &str, names: impl IntoIterator<Item = Arc<str>>) {
        let interest = self.interests.entry(type_url.into()).or_default();
        for name in names {
            let is_new = if &*name == WILDCARD {
                !std::mem::replace(&mut interest.wildcard, true)
            } else {
                interest.names.insert(name.clone())
            };
            if is_new {
                interest.subscribe.insert(name);
                interest.names_changed = true;
            }
        }
    }

    pub fn unsubscribe(&mut self, type_url: &str, names: impl IntoIterator<Item = Arc<str>>) {
        let Some(interest) = self.interests.get_mut(type_url) else { return };
        for name in names {
            let was_there =
                if &*name == WILDCARD { std::mem::take(&mut interest.wildcard) } else { interest.names.remove(&name) };
            if !was_there {
                continue;
            }
            interest.names_changed = true;
            // A name that the server has not heard of need not be taken back.
            if !interest.subscribe.remove(&name) {
                interest.unsubscribe.insert(name);
            }
        }
        let (wildcard, explicit) = (interest.wildcard, &interest.names);
        interest.held.retain(|name, _| wildcard || explicit.contains(name));
    }

    /// Names and versions held of a type.
    pub fn held(&self, type_url: &str) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.interests.get(type_url).into_iter().flat_map(|interest| &interest.held)
    }

    pub fn is_subscribed(&self, type_url: &str, name: &str) -> bool {
        self.interests.get(type_url).is_some_and(|interest| interest.covers(name))
    }

    /// A new stream: everything is asked for again, from what is held. All batches should be settled before; one that is not
    /// is forgotten and its resources asked for again.
    pub fn connected(&mut self) {
        self.node_sent = false;
        for interest in self.interests.values_mut() {
            interest.introduced = false;
            interest.subscribe.clear();
            interest.unsubscribe.clear();
            interest.answers.clear();
            interest.unsettled.clear();
            interest.nonce.clear();
            interest.has_named = false;
            interest.names_changed = false;
        }
    }

    /// The next request to send, if there is one.
    pub fn next_request(&mut self) -> Option<Request> {
        let with_node = !self.node_sent;
        let order = |type_url: &Arc<str>| types::push_rank(type_url);
        let mut pending: Vec<_> = self.interests.iter_mut().filter(|(_, interest)| interest.is_pending()).collect();
        pending.sort_by_key(|(type_url, _)| order(type_url));
        let (type_url, interest) = pending.into_iter().next()?;
        let mut request = match self.variant {
            Variant::Delta => Request::Delta(interest.delta_request(type_url)),
            Variant::StateOfTheWorld => Request::StateOfTheWorld(interest.sotw_request(type_url)),
        };
        interest.introduced = true;
        if with_node {
            self.node_sent = true;
            match &mut request {
                Request::Delta(request) => request.node = Some(self.node.clone()),
                Request::StateOfTheWorld(request) => request.node = Some(self.node.clone()),
            }
        }
        Some(request)
    }

    /// Takes a response of the incremental variant. What was not asked for (any more) is left out.
    pub fn on_delta(&mut self, response: DeltaDiscoveryResponse) -> Result<Batch, Violation> {
        let (type_url, interest) = self.interest(&response.type_url)?;
        let resources =
            response.resources.into_iter().filter(|wire| interest.covers(&wire.name)).map(|wire| Resource {
                name: wire.name.into(),
                version: wire.version.into(),
                body: wire.resource.unwrap_or_default().into(),
            });
        let resources = resources.collect();
        let batch = Batch {
            type_url,
            nonce: response.nonce,
            version: response.system_version_info,
            resources,
            removed: response.removed_resources.into_iter().map(Arc::from).collect(),
        };
        interest.unsettled.push_back(batch.clone());
        Ok(batch)
    }

    /// Takes a response of the state-of-the-world variant.
    pub fn on_sotw(&mut self, response: DiscoveryResponse) -> Result<Batch, Violation> {
        let (type_url, interest) = self.interest(&response.type_url)?;
        let version: Arc<str> = response.version_info.as_str().into();
        let resources = response.resources.into_iter().map(|body| Resource {
            name: resource_name(&body).into(),
            version: version.clone(),
            body: body.into(),
        });
        let resources: Vec<_> = resources.filter(|resource| interest.covers(&resource.name)).collect();
        let mut removed = Vec::new();
        if types::is_full_state(&type_url) {
            let present: BTreeSet<_> = resources.iter().map(|resource| &resource.name).collect();
            // What the consumer is still busy with will be held by the time it reads this.
            let coming =
                interest.unsettled.iter().flat_map(|batch| batch.resources.iter().map(|resource| &resource.name));
            let known: BTreeSet<_> = interest.held.keys().chain(coming).collect();
            removed.extend(known.into_iter().filter(|name| !present.contains(name)).cloned());
        }
        interest.nonce.clone_from(&response.nonce);
        let batch = Batch { type_url, nonce: response.nonce, version: response.version_info, resources, removed };
        interest.unsettled.push_back(batch.clone());
        Ok(batch)
    }

    /// Records what became of a batch and queues the answer.
    pub fn settle(&mut self, type_url: &str, nonce: &str, outcome: &Outcome) {
        let Some(interest) = self.interests.get_mut(type_url) else { return };
        let Some(place) = interest.unsettled.iter().position(|batch| batch.nonce == nonce) else { return };
        let Some(batch) = interest.unsettled.remove(place) else { return };
        let (applied, message) = match outcome {
            Outcome::Accepted => (Applied::All, None),
            Outcome::Rejected(message) => (Applied::Nothing, Some(message.clone())),
            Outcome::PartlyRejected { names, message } => (Applied::AllBut(names), Some(message.clone())),
        };
        for resource in batch.resources.iter().filter(|resource| applied.includes(&resource.name)) {
            // Unsubscribed while the consumer had it.
            if interest.covers(&resource.name) {
                interest.held.insert(resource.name.clone(), resource.version.clone());
            }
        }
        for name in batch.removed.iter().filter(|name| applied.includes(name)) {
            interest.held.remove(name);
        }
        if message.is_none() {
            interest.version.clone_from(&batch.version);
        }
        interest.answers.push_back((batch.nonce, message));
    }

    fn interest(&mut self, type_url: &str) -> Result<(Arc<str>, &mut Interest), Violation> {
        let known = self.interests.get_key_value(type_url).map(|(known, _)| known.clone());
        let known = known.ok_or_else(|| Violation::Unasked(type_url.to_owned()))?;
        let interest = self.interests.get_mut(&known).ok_or_else(|| Violation::Unasked(type_url.to_owned()))?;
        Ok((known, interest))
    }
}

impl Interest {
    fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn is_pending(&self) -> bool {
        if self.introduced {
            !self.answers.is_empty() || self.names_changed
        } else {
            self.wildcard || !self.names.is_empty()
        }
    }

    /// The names as a first request says them. Servers that know no `*` take a request without names for everything, where
    /// the type allows that.
    fn opening_names(&mut self, type_url: &str) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().map(|name| name.to_string()).collect();
        self.has_named |= !names.is_empty();
        if self.wildcard && (self.has_named || !types::legacy_wildcard(type_url)) {
            names.insert(0, WILDCARD.to_owned());
        }
        names
    }

    fn delta_request(&mut self, type_url: &Arc<str>) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest { type_url: type_url.to_string(), ..Default::default() };
        if !self.introduced {
            request.resource_names_subscribe = self.opening_names(type_url);
            let versions = self.held.iter().map(|(name, version)| (name.to_string(), version.to_string()));
            request.initial_resource_versions = versions.collect();
            self.subscribe.clear();
            self.unsubscribe.clear();
        } else if self.names_changed {
            // Before the answers, so that the server knows which responses the client read under its old subscription.
            request.resource_names_subscribe = take(&mut self.subscribe);
            request.resource_names_unsubscribe = take(&mut self.unsubscribe);
        } else if let Some((nonce, message)) = self.answers.pop_front() {
            request.response_nonce = nonce;
            request.error_detail = message.map(status);
        }
        self.names_changed = false;
        request
    }

    fn sotw_request(&mut self, type_url: &Arc<str>) -> DiscoveryRequest {
        let answer = self.answers.pop_front();
        let mut resource_names = self.opening_names(type_url);
        // A name given up and asked for again must be missing from one request, or the server will not send it anew.
        let unsubscribed = std::mem::take(&mut self.unsubscribe);
        let renewed = |name: &String| unsubscribed.contains(name.as_str()) && self.subscribe.contains(name.as_str());
        self.names_changed = self.introduced && resource_names.iter().any(renewed);
        if self.names_changed {
            resource_names.retain(|name| !renewed(name));
        }
        self.subscribe.clear();
        DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names,
            type_url: type_url.to_string(),
            response_nonce: answer.as_ref().map_or_else(|| self.nonce.clone(), |(nonce, _)| nonce.clone()),
            error_detail: answer.and_then(|(_, message)| message).map(status),
            ..Default::default()
        }
    }
}

/// Which resources of a batch the consumer has taken.
enum Applied<'a> {
    All,
    Nothing,
    AllBut(&'a [Arc<str>]),
}

impl Applied<'_> {
    fn includes(&self, name: &Arc<str>) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::AllBut(names) => !names.contains(name),
        }
    }
}

fn take(names: &mut BTreeSet<Arc<str>>) -> Vec<String> {
    std::mem::take(names).into_iter().map(|name| name.to_string()).collect()
}

fn status(message: String) -> Status {
    Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
}
