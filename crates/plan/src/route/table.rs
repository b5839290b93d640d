//! The routes of a virtual host, and an index of them.
//!
//! A request takes the first route whose every condition holds. Looking at each costs what there are; the index leaves those out
//! whose path, or whose header of one exact value, cannot match, so that a host of a thousand routes costs what one of ten does.
//! Regexes and CONNECT are always looked at. Small tables have no index: a few comparisons are cheaper than it.

use super::{PathRule, Route, RouteRequest};
use crate::header::{HeaderKey, HeaderLookup, HeaderMatcher, HeaderTest};
use meltemi_matchers::{PrefixTree, StringPattern};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

/// Tables of fewer routes are searched one by one.
const WORTH_AN_INDEX: usize = 16;
/// Each is a look-up a list.
const MOST_KEYS: usize = 4;

/// Routes in order.
#[derive(Debug)]
pub struct Routes {
    all: Box<[Arc<Route>]>,
    index: Option<Box<Index>>,
}

impl Deref for Routes {
    type Target = [Arc<Route>];

    fn deref(&self) -> &[Arc<Route>] {
        &self.all
    }
}

impl From<Vec<Arc<Route>>> for Routes {
    fn from(all: Vec<Arc<Route>>) -> Self {
        let index = (all.len() >= WORTH_AN_INDEX).then(|| Box::new(Index::new(&all)));
        Self { all: all.into(), index }
    }
}

impl Routes {
    /// The first route that takes the request; `path` is without query.
    pub(super) fn find(&self, request: &RouteRequest<'_>, path: &str) -> Option<&Arc<Route>> {
        match &self.index {
            None => self.all.iter().find(|route| route.matcher.matches(request, path)),
            Some(index) => {
                let mut candidates = index.candidates(request, path);
                std::iter::from_fn(|| next(&mut candidates))
                    .map(|at| &self.all[at as usize])
                    .find(|route| route.matcher.matches(request, path))
            }
        }
    }
}

/// Places of routes, ascending.
type Places = Vec<u32>;
type Candidates<'a> = SmallVec<[&'a [u32]; 8]>;

/// The least place of several ascending lists, which goes.
fn next(lists: &mut Candidates<'_>) -> Option<u32> {
    let least = lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list[0])?;
    let (first, rest) = least.split_first()?;
    *least = rest;
    Some(*first)
}

#[derive(Debug)]
struct Index {
    paths: PrefixTree<Ends>,
    paths_ignoring_case: PrefixTree<Ends>,
    /// Without a literal path.
    others: ByValue,
}

/// The routes of one literal.
#[derive(Debug, Default)]
struct Ends {
    exact: ByValue,
    /// The literal must be a whole number of segments.
    separated: ByValue,
    prefix: ByValue,
}

impl Index {
    fn new(all: &[Arc<Route>]) -> Self {
        let mut index = Self {
            paths: PrefixTree::new(false),
            paths_ignoring_case: PrefixTree::new(true),
            others: ByValue::default(),
        };
        let keys = telling_keys(all);
        for (at, route) in (0..).zip(all) {
            index.list(&route.matcher.path).push(at, &route.matcher.headers, &keys);
        }
        index
    }

    fn list(&mut self, rule: &PathRule) -> &mut ByValue {
        match rule {
            PathRule::Exact { path, ignore_case } => &mut self.ends(path, *ignore_case).exact,
            PathRule::SeparatedPrefix { prefix, ignore_case } => &mut self.ends(prefix, *ignore_case).separated,
            PathRule::Prefix { prefix, ignore_case } => &mut self.ends(prefix, *ignore_case).prefix,
            PathRule::Regex(_) | PathRule::Connect => &mut self.others,
        }
    }

    fn ends(&mut self, literal: &str, ignore_case: bool) -> &mut Ends {
        if ignore_case { self.paths_ignoring_case.entry(literal) } else { self.paths.entry(literal) }
    }

    /// Lists that hold every route which may take the request.
    fn candidates(&self, request: &RouteRequest<'_>, path: &str) -> Candidates<'_> {
        let mut lists = Candidates::new();
        self.others.add(request.headers, &mut lists);
        for tree in [&self.paths, &self.paths_ignoring_case] {
            for (length, ends) in tree.prefixes_of(path.as_bytes()) {
                let next = path.as_bytes().get(length);
                ends.prefix.add(request.headers, &mut lists);
                if next.is_none() {
                    ends.exact.add(request.headers, &mut lists);
                }
                if next.is_none_or(|byte| *byte == b'/') {
                    ends.separated.add(request.headers, &mut lists);
                }
            }
        }
        lists
    }
}

type OfHeader = HashMap<Box<[u8]>, Places>;

/// Routes by the one value that a header must have.
#[derive(Debug, Default)]
struct ByValue {
    /// Those that say nothing of such a header.
    any: Places,
    of_header: Vec<(HeaderKey, OfHeader)>,
}

impl ByValue {
    fn push(&mut self, at: u32, headers: &[HeaderMatcher], keys: &[HeaderKey]) {
        let wanted = keys.iter().find_map(|key| {
            headers.iter().filter(|header| header.key == *key).find_map(only_value).map(|value| (key, value))
        });
        let Some((key, value)) = wanted else { return self.any.push(at) };
        let place = self.of_header.iter().position(|(have, _)| have == key).unwrap_or_else(|| {
            self.of_header.push((key.clone(), OfHeader::new()));
            self.of_header.len() - 1
        });
        self.of_header[place].1.entry(value.into()).or_default().push(at);
    }

    fn add<'a>(&'a self, headers: &dyn HeaderLookup, lists: &mut Candidates<'a>) {
        if !self.any.is_empty() {
            lists.push(&self.any);
        }
        for (key, by_value) in &self.of_header {
            if let Some(places) = headers.value(key).and_then(|value| by_value.get(&*value)) {
                lists.push(places);
            }
        }
    }
}

/// The value that a header must have, where there is just one.
fn only_value(header: &HeaderMatcher) -> Option<&[u8]> {
    match &header.test {
        HeaderTest::String(matcher) if !header.invert && !header.missing_as_empty && !matcher.ignore_case => {
            match &matcher.pattern {
                StringPattern::Exact(value) => Some(value.as_bytes()),
                StringPattern::Prefix(_)
                | StringPattern::Suffix(_)
                | StringPattern::Contains(_)
                | StringPattern::Regex(_) => None,
            }
        }
        HeaderTest::String(_) | HeaderTest::Present | HeaderTest::Range { .. } => None,
    }
}

/// Headers that tell many routes apart, the most telling first.
fn telling_keys(all: &[Arc<Route>]) -> Vec<HeaderKey> {
    let mut values: HashMap<&HeaderKey, HashSet<&[u8]>> = HashMap::new();
    for header in all.iter().flat_map(|route| &route.matcher.headers) {
        if let Some(value) = only_value(header) {
            values.entry(&header.key).or_default().insert(value);
        }
    }
    let mut keys: Vec<(usize, &HeaderKey)> = values.into_iter().map(|(key, values)| (values.len(), key)).collect();
    keys.retain(|(values, _)| *values >= WORTH_AN_INDEX);
    keys.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.as_str().cmp(right.1.as_str())));
    keys.into_iter().take(MOST_KEYS).map(|(_, key)| key.clone()).collect()
}

#[cfg(test)]
mod tests;
