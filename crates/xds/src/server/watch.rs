//! One client's subscription to one type.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use meltemi_proto::google::rpc::Status;
use xxhash_rust::xxh3::Xxh3;

use super::{Scope, Verdict, is_wildcard};
use crate::{Resource, WILDCARD};

/// Responses we await an answer to. A client that answers none gets its oldest forgotten.
const MAX_IN_FLIGHT: usize = 64;

/// What the client said no to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub nonce: String,
    pub message: String,
}

/// Subscription and holdings of one type.
#[derive(Debug, Default)]
pub struct Watch {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// What the client has once it has read what we sent: the version, or `None` where we said that there is none.
    held: BTreeMap<Arc<str>, Option<Arc<str>>>,
    /// Names that the client must be told of, whatever it holds: those it asked for anew, and those it no longer asks for while
    /// the wildcard may cover them.
    unconfirmed: BTreeSet<Arc<str>>,
    /// Names no longer subscribed to, that responses the client has not answered yet may carry. Should it ask for everything
    /// before it reads those, it keeps them.
    departed: BTreeSet<Arc<str>>,
    /// State of the world: names that a stale request lacked. Should the next one have them, the client gave them up between.
    doubted: BTreeSet<Arc<str>>,
    in_flight: VecDeque<String>,
    sent_nonce: Option<String>,
    acked_nonce: Option<String>,
    rejection: Option<Rejection>,
    /// A first request is answered even if with nothing, since clients wait for it.
    answered: bool,
    /// State of the world: a stream that ever named a resource no longer means everything by naming none.
    ever_named: bool,
}

/// What changed between what the client holds and what is.
pub(super) struct Difference<'a> {
    pub changed: Vec<&'a Resource>,
    pub removed: Vec<Arc<str>>,
}

impl Watch {
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names asked for one by one.
    pub fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }

    /// Whether the subscription covers a resource of this name.
    pub fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// The version of the resource that the client holds.
    pub fn held_version(&self, name: &str) -> Option<&Arc<str>> {
        self.held.get(name)?.as_ref()
    }

    /// Names and versions that the client holds, in order.
    pub fn held(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.held.iter().filter_map(|(name, version)| Some((name, version.as_ref()?)))
    }

    /// Whether a response waits for its answer.
    pub fn is_outstanding(&self) -> bool {
        !self.in_flight.is_empty()
    }

    pub fn sent_nonce(&self) -> Option<&str> {
        self.sent_nonce.as_deref()
    }

    pub fn acked_nonce(&self) -> Option<&str> {
        self.acked_nonce.as_deref()
    }

    /// The rejection that no acceptance has followed.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.rejection.as_ref()
    }

    /// State of the world: whether the subscription is these names already.
    pub(super) fn is_exactly(&self, names: &BTreeSet<Arc<str>>) -> bool {
        names.contains(WILDCARD) == self.wildcard
            && self.names.len() + usize::from(self.wildcard) == names.len()
            && names.iter().all(|name| is_wildcard(name) || self.names.contains(name))
    }

    pub(super) fn renew<'a>(&mut self, names: impl IntoIterator<Item = &'a Arc<str>>) -> BTreeSet<Arc<str>> {
        let held: BTreeSet<Arc<str>> =
            names.into_iter().filter(|name| self.covers(name) && self.held_version(name).is_some()).cloned().collect();
        self.unconfirmed.extend(held.iter().cloned());
        held
    }

    pub(super) fn explicit_names(&self) -> usize {
        self.names.len()
    }

    pub(super) fn sent(&mut self, nonce: &str) {
        if self.in_flight.len() == MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(nonce.to_owned());
        self.sent_nonce = Some(nonce.to_owned());
        self.answered = true;
    }

    /// An answer settles its response and all before it.
    pub(super) fn settle(&mut self, nonce: &str, error: Option<&Status>) -> Verdict {
        if nonce.is_empty() {
            return Verdict::None;
        }
        let Some(place) = self.in_flight.iter().position(|sent| sent == nonce) else {
            // State-of-the-world clients repeat the last nonce when they change their names.
            return if self.sent_nonce.as_deref() == Some(nonce) { Verdict::None } else { Verdict::Stale };
        };
        self.in_flight.drain(..=place);
        if self.in_flight.is_empty() {
            self.departed.clear();
        }
        match error {
            Some(status) => {
                self.rejection = Some(Rejection { nonce: nonce.to_owned(), message: status.message.clone() });
                Verdict::Rejected { nonce: nonce.to_owned(), message: status.message.clone() }
            }
            None => {
                self.rejection = None;
                self.acked_nonce = Some(nonce.to_owned());
                Verdict::Accepted { nonce: nonce.to_owned() }
            }
        }
    }

    /// Takes the client's word for what it kept from an earlier stream.
    pub(super) fn resume(&mut self, versions: &BTreeMap<String, String>) {
        for (name, version) in versions {
            self.held.insert(name.as_str().into(), Some(version.as_str().into()));
        }
        self.answered |= !versions.is_empty();
    }

    pub(super) fn start_wildcard(&mut self) {
        self.wildcard = true;
    }

    /// Adds to the subscription; says whether it came to cover everything. A name asked for is sent whatever the client held,
    /// since it may have dropped it, but for the first request of a resumed stream, which says what is held.
    pub(super) fn subscribe(
        &mut self,
        names: BTreeSet<Arc<str>>,
        resumed: bool,
        wanted: &mut BTreeSet<Arc<str>>,
    ) -> bool {
        let mut starts_wildcard = false;
        for name in names {
            if is_wildcard(&name) {
                if !self.wildcard {
                    self.unconfirmed.append(&mut self.departed);
                }
                starts_wildcard |= !self.wildcard;
                self.wildcard = true;
                continue;
            }
            if !resumed {
                self.held.remove(&name);
            }
            wanted.insert(name.clone());
            self.names.insert(name);
        }
        starts_wildcard
    }

    /// Takes from the subscription. Names that the wildcard still covers are to be said again, since the client cannot know
    /// whether it may keep them.
    pub(super) fn unsubscribe(&mut self, names: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        if names.contains(WILDCARD) {
            self.wildcard = false;
            let dropped: Vec<_> = self.held.keys().filter(|name| !self.names.contains(*name)).cloned().collect();
            for name in dropped {
                self.held.remove(&name);
                self.depart(name);
            }
        }
        let mut wanted = BTreeSet::new();
        for name in names.iter().filter(|name| !is_wildcard(name)) {
            let was_explicit = self.names.remove(name);
            self.held.remove(name);
            if was_explicit && self.wildcard {
                self.unconfirmed.insert(name.clone());
                wanted.insert(name.clone());
            } else if was_explicit {
                self.depart(name.clone());
            }
        }
        wanted
    }

    fn depart(&mut self, name: Arc<str>) {
        if self.is_outstanding() {
            self.departed.insert(name);
        }
    }

    /// State of the world: the names of a request that was sent before the client read our last response.
    pub(super) fn doubt(&mut self, names: &BTreeSet<Arc<str>>) {
        self.doubted.extend(self.names.difference(names).cloned());
    }

    /// State of the world: the request's names are the subscription. Gives the names that are new to it, or `None` where it
    /// came to cover everything.
    pub(super) fn replace(&mut self, mut names: BTreeSet<Arc<str>>, may_mean_all: bool) -> Option<BTreeSet<Arc<str>>> {
        let starred = names.remove(WILDCARD);
        let unnamed = names.is_empty() && !starred && !self.ever_named && (may_mean_all || self.wildcard);
        self.ever_named |= !names.is_empty() || starred;
        let was_wildcard = self.wildcard;
        self.wildcard = starred || unnamed;
        let doubted = std::mem::take(&mut self.doubted);
        let added = names.iter().filter(|name| doubted.contains(*name) || !self.names.contains(*name));
        let added: BTreeSet<Arc<str>> = added.cloned().collect();
        if self.wildcard && !was_wildcard {
            // The client may have dropped these before it asked for everything.
            self.unconfirmed.extend(self.names.difference(&names).cloned());
        }
        self.names = names;
        let (wildcard, explicit) = (self.wildcard, &self.names);
        self.held.retain(|name, _| wildcard || explicit.contains(name));
        self.unconfirmed.extend(added.iter().cloned());
        if self.wildcard && !was_wildcard { None } else { Some(added) }
    }

    pub(super) fn difference<'a>(&mut self, current: &'a [Resource], scope: Scope<'_>) -> Option<Difference<'a>> {
        let covered = self.covered(current, &scope);
        let present = covered.iter().map(|resource| resource.name.clone()).collect();
        let changed = self.take_up(&covered);
        let removed = self.withdraw(&present, &scope);
        if changed.is_empty() && removed.is_empty() && self.answered {
            return None;
        }
        Some(Difference { changed, removed })
    }

    fn covered<'a>(&self, current: &'a [Resource], scope: &Scope<'_>) -> Vec<&'a Resource> {
        current.iter().filter(|resource| self.covers(&resource.name) && in_scope(scope, &resource.name)).collect()
    }

    /// Records the resources as held; gives those that were not, in this version.
    fn take_up<'a>(&mut self, resources: &[&'a Resource]) -> Vec<&'a Resource> {
        let mut changed = Vec::new();
        for resource in resources {
            let unconfirmed = self.unconfirmed.contains(&resource.name);
            if unconfirmed || self.held_version(&resource.name) != Some(&resource.version) {
                self.held.insert(resource.name.clone(), Some(resource.version.clone()));
                changed.push(*resource);
            }
        }
        changed
    }

    /// Forgets what is no longer there, and says so of each name once.
    fn withdraw(&mut self, present: &BTreeSet<Arc<str>>, scope: &Scope<'_>) -> Vec<Arc<str>> {
        let held = self.held.iter().filter(|(_, version)| version.is_some()).map(|(name, _)| name);
        let missing = self.names.iter().filter(|name| !self.held.contains_key(*name));
        let gone: BTreeSet<Arc<str>> =
            held.chain(missing).filter(|name| in_scope(scope, name) && !present.contains(*name)).cloned().collect();
        for name in &gone {
            if self.names.contains(name) {
                self.held.insert(name.clone(), None);
            } else {
                self.held.remove(name);
            }
        }
        let mut removed: Vec<Arc<str>> = gone.into_iter().collect();
        let confirmed: Vec<_> = self.unconfirmed.iter().filter(|name| in_scope(scope, name)).cloned().collect();
        for name in confirmed {
            self.unconfirmed.remove(&name);
            if !present.contains(&name) && !self.names.contains(&name) {
                removed.push(name);
            }
        }
        removed.sort();
        removed.dedup();
        removed
    }

    /// The resources to send and the version of all that the client then holds.
    pub(super) fn state<'a>(
        &mut self,
        current: &'a [Resource],
        scope: Scope<'_>,
        full: bool,
    ) -> Option<(Vec<&'a Resource>, String)> {
        let present = self.covered(current, &scope);
        let changed = self.take_up(&present);
        let names: BTreeSet<&str> = present.iter().map(|resource| &*resource.name).collect();
        let before = self.held.len();
        self.held.retain(|name, _| !in_scope(&scope, name) || names.contains(&**name));
        self.unconfirmed.retain(|name| !in_scope(&scope, name));
        let shrunk = full && self.held.len() != before;
        if changed.is_empty() && !shrunk && self.answered {
            return None;
        }
        Some((if full { present } else { changed }, self.version()))
    }

    fn version(&self) -> String {
        let mut hash = Xxh3::new();
        for (name, version) in self.held() {
            hash.update(name.as_bytes());
            hash.update(&[0]);
            hash.update(version.as_bytes());
            hash.update(&[0]);
        }
        format!("{:016x}", hash.digest())
    }
}

fn in_scope(scope: &Scope<'_>, name: &Arc<str>) -> bool {
    match scope {
        Scope::Everything => true,
        Scope::Names(names) => names.contains(name),
    }
}
