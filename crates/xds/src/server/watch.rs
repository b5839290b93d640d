//! One client's subscription to one type.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use meltemi_proto::google::rpc::Status;
use xxhash_rust::xxh3::Xxh3;

use super::holdings::{Holdings, Mark, Shelf};
use super::{Scope, Verdict};
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
#[derive(Debug)]
pub struct Watch {
    wildcard: bool,
    /// Names asked for one by one, and what the client has once it has read what we sent.
    holdings: Holdings,
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

/// What a request changed in the names asked for one by one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resubscribed {
    pub added: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
}

impl Watch {
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        Self {
            wildcard: false,
            holdings: Holdings::new(shelf),
            unconfirmed: BTreeSet::new(),
            departed: BTreeSet::new(),
            doubted: BTreeSet::new(),
            in_flight: VecDeque::new(),
            sent_nonce: None,
            acked_nonce: None,
            rejection: None,
            answered: false,
            ever_named: false,
        }
    }

    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names asked for one by one, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        // A wildcard's holdings are all of a mesh; mostly none of them is asked for by name.
        let any = self.holdings.explicit() > 0;
        any.then(|| self.holdings.iter()).into_iter().flatten().filter(|(_, mark)| mark.is_explicit()).map(|(n, _)| n)
    }

    /// Whether a name was asked for as such.
    pub fn is_named(&self, name: &str) -> bool {
        self.holdings.get(name).is_explicit()
    }

    /// Whether the subscription covers a resource of this name.
    pub fn covers(&self, name: &str) -> bool {
        self.wildcard || self.is_named(name)
    }

    /// Whether the client holds a resource of this name.
    pub fn holds(&self, name: &str) -> bool {
        self.holdings.get(name).is_held()
    }

    /// Whether the client holds another version of the resource.
    pub fn holds_other(&self, resource: &Resource) -> bool {
        let mark = self.holdings.get(&resource.name);
        mark.is_held() && !mark.holds(&resource.version)
    }

    /// Names that the client holds, in order.
    pub fn held(&self) -> impl Iterator<Item = &Arc<str>> {
        self.holdings.iter().filter(|(_, mark)| mark.is_held()).map(|(name, _)| name)
    }

    /// How many resources the client holds.
    pub fn held_count(&self) -> usize {
        self.holdings.held()
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

    pub(super) fn renew<'a>(&mut self, names: impl IntoIterator<Item = &'a Arc<str>>) -> BTreeSet<Arc<str>> {
        let held: BTreeSet<Arc<str>> =
            names.into_iter().filter(|name| self.covers(name) && self.holds(name)).cloned().collect();
        self.unconfirmed.extend(held.iter().cloned());
        held
    }

    pub(super) fn explicit_names(&self) -> usize {
        self.holdings.explicit()
    }

    /// Changes the marks of these names.
    fn mark<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>, change: impl Fn(Mark) -> Mark) {
        let changes = names.map(|name| (name.clone(), change(self.holdings.get(name)))).collect();
        self.holdings.edit(changes);
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
        let held = versions.iter().map(|(name, version)| (name.as_str().into(), Mark::default().holding(version)));
        self.holdings.edit(held.collect());
        self.answered |= !versions.is_empty();
    }

    pub(super) fn start_wildcard(&mut self) {
        self.wildcard = true;
    }

    /// Adds to the subscription; says whether it came to cover everything. A name asked for is sent whatever the client held,
    /// since it may have dropped it, but for the first request of a resumed stream, which says what is held.
    pub(super) fn subscribe(
        &mut self,
        mut names: BTreeSet<Arc<str>>,
        resumed: bool,
        wanted: &mut BTreeSet<Arc<str>>,
        resubscribed: &mut Resubscribed,
    ) -> bool {
        let starts_wildcard = names.remove(WILDCARD) && !self.wildcard;
        if starts_wildcard {
            self.unconfirmed.append(&mut self.departed);
            self.wildcard = true;
        }
        resubscribed.added.extend(names.iter().filter(|name| !self.is_named(name)).cloned());
        self.mark(names.iter(), |mark| if resumed { mark.explicit() } else { mark.unknown().explicit() });
        wanted.append(&mut names);
        starts_wildcard
    }

    /// Takes from the subscription. Names that the wildcard still covers are to be said again, since the client cannot know
    /// whether it may keep them.
    pub(super) fn unsubscribe(
        &mut self,
        names: &BTreeSet<Arc<str>>,
        resubscribed: &mut Resubscribed,
    ) -> BTreeSet<Arc<str>> {
        if names.contains(WILDCARD) {
            self.wildcard = false;
            let implicit = self.holdings.iter().filter(|(_, mark)| !mark.is_explicit());
            let dropped: Vec<Arc<str>> = implicit.map(|(name, _)| name.clone()).collect();
            self.mark(dropped.iter(), |_| Mark::default());
            dropped.into_iter().for_each(|name| self.depart(name));
        }
        let mut wanted = BTreeSet::new();
        let named: Vec<&Arc<str>> = names.iter().filter(|name| self.is_named(name)).collect();
        for name in named {
            resubscribed.removed.push(name.clone());
            if self.wildcard {
                self.unconfirmed.insert(name.clone());
                wanted.insert(name.clone());
            } else {
                self.depart(name.clone());
            }
        }
        self.mark(names.iter(), |_| Mark::default());
        wanted
    }

    fn depart(&mut self, name: Arc<str>) {
        if self.is_outstanding() {
            self.departed.insert(name);
        }
    }

    /// State of the world: the names of a request that was sent before the client read our last response.
    pub(super) fn doubt(&mut self, names: &BTreeSet<Arc<str>>) {
        let given_up: Vec<Arc<str>> = self.names().filter(|name| !names.contains(*name)).cloned().collect();
        self.doubted.extend(given_up);
    }

    /// State of the world: the request's names are the subscription. Gives the names that are new to it, or `None` where it
    /// came to cover everything.
    pub(super) fn replace(
        &mut self,
        mut names: BTreeSet<Arc<str>>,
        may_mean_all: bool,
        resubscribed: &mut Resubscribed,
    ) -> Option<BTreeSet<Arc<str>>> {
        let starred = names.remove(WILDCARD);
        let unnamed = names.is_empty() && !starred && !self.ever_named && (may_mean_all || self.wildcard);
        self.ever_named |= !names.is_empty() || starred;
        let was_wildcard = self.wildcard;
        self.wildcard = starred || unnamed;
        let doubted = std::mem::take(&mut self.doubted);
        resubscribed.added = names.iter().filter(|name| !self.is_named(name)).cloned().collect();
        resubscribed.removed = self.names().filter(|name| !names.contains(*name)).cloned().collect();
        let renewed = names.iter().filter(|name| doubted.contains(*name)).cloned();
        let added: BTreeSet<Arc<str>> = resubscribed.added.iter().cloned().chain(renewed).collect();
        if self.wildcard && !was_wildcard {
            // The client may have dropped these before it asked for everything.
            self.unconfirmed.extend(resubscribed.removed.iter().cloned());
        }
        self.mark(resubscribed.added.iter(), Mark::explicit);
        self.mark(resubscribed.removed.iter(), Mark::implicit);
        if !self.wildcard {
            let uncovered = self.holdings.iter().filter(|(_, mark)| !mark.is_explicit());
            let uncovered: Vec<Arc<str>> = uncovered.map(|(name, _)| name.clone()).collect();
            self.mark(uncovered.iter(), |_| Mark::default());
        }
        self.unconfirmed.extend(added.iter().cloned());
        if self.wildcard && !was_wildcard { None } else { Some(added) }
    }

    pub(super) fn difference<'a>(&mut self, current: &'a [Resource], scope: Scope<'_>) -> Option<Difference<'a>> {
        let covered = self.covered(current, &scope);
        let changed = self.take_up(&covered);
        let removed = self.withdraw(&covered, &scope);
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
        let (mut changed, mut marks) = (Vec::new(), Vec::new());
        for resource in resources {
            let mark = self.holdings.get(&resource.name);
            let held = mark.holding(&resource.version);
            if mark != held || self.unconfirmed.contains(&resource.name) {
                marks.push((resource.name.clone(), held));
                changed.push(*resource);
            }
        }
        self.holdings.edit(marks);
        changed
    }

    /// Forgets what is no longer there, and says so of each name once.
    fn withdraw(&mut self, covered: &[&Resource], scope: &Scope<'_>) -> Vec<Arc<str>> {
        let gone = self.gone(covered, scope);
        let mut removed = gone.clone();
        self.mark(gone.iter(), |mark| if mark.is_explicit() { mark.told_absent() } else { Mark::default() });
        let confirmed: Vec<_> = self.unconfirmed.iter().filter(|name| in_scope(scope, name)).cloned().collect();
        for name in confirmed {
            self.unconfirmed.remove(&name);
            if !self.is_named(&name) && !covered.iter().any(|resource| resource.name == name) {
                removed.push(name);
            }
        }
        removed.sort();
        removed.dedup();
        removed
    }

    /// Names within the scope that the client holds, or asked for and knows nothing of, and that are not there.
    fn gone(&self, covered: &[&Resource], scope: &Scope<'_>) -> Vec<Arc<str>> {
        let lacks = |mark: Mark| mark.is_held() || mark.is_missing();
        match scope {
            Scope::Names(names) => {
                let present: HashSet<&str> = covered.iter().map(|resource| &*resource.name).collect();
                let gone = names.iter().filter(|name| !present.contains(&***name) && lacks(self.holdings.get(name)));
                gone.cloned().collect()
            }
            // What is there was recorded as held just now: as many as are held are there.
            Scope::Everything if self.holdings.held_or_missing() == covered.len() => Vec::new(),
            Scope::Everything => {
                let present: HashSet<&str> = covered.iter().map(|resource| &*resource.name).collect();
                let gone = self.holdings.iter().filter(|(name, mark)| lacks(*mark) && !present.contains(&***name));
                gone.map(|(name, _)| name.clone()).collect()
            }
        }
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
        let gone = self.gone(&present, &scope);
        let shrunk = full && gone.iter().any(|name| self.holds(name));
        self.mark(gone.iter(), Mark::unknown);
        self.unconfirmed.retain(|name| !in_scope(&scope, name));
        if changed.is_empty() && !shrunk && self.answered {
            return None;
        }
        Some((if full { present } else { changed }, self.version()))
    }

    fn version(&self) -> String {
        let mut hash = Xxh3::new();
        for (name, mark) in self.holdings.iter().filter(|(_, mark)| mark.is_held()) {
            hash.update(name.as_bytes());
            hash.update(&[0]);
            hash.update(&mark.version().to_le_bytes());
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
