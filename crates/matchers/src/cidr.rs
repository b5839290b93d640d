//! Longest-prefix matching of addresses.
//!
//! A hash map a distinct prefix length, longest first: configurations use a handful of lengths, so a look-up is a
//! handful of probes, and building is linear.

use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// The address as 128 bits, IPv4 left-aligned so that a prefix length means the same in both families.
fn bits(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (false, u128::from(u32::from(v4)) << 96),
        IpAddr::V6(v6) => (true, u128::from(v6)),
    }
}

fn masked(value: u128, length: u8) -> u128 {
    if length == 0 { 0 } else { value & (u128::MAX << (128 - u32::from(length))) }
}

/// An IPv4-mapped IPv6 address counts as IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[derive(Debug, Clone)]
struct Level<T> {
    v6: bool,
    length: u8,
    entries: HashMap<u128, T>,
}

/// Prefix → value, answering with the longest prefix that holds an address.
#[derive(Debug, Clone)]
pub struct CidrMap<T> {
    /// Longest first.
    levels: Vec<Level<T>>,
}

impl<T> Default for CidrMap<T> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<T> CidrMap<T> {
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// The value of exactly this prefix, inserted if it is new. Host bits are ignored.
    pub fn entry(&mut self, prefix: IpNet, new: impl FnOnce() -> T) -> &mut T {
        let length = prefix.prefix_len();
        let (v6, value) = bits(prefix.addr());
        let at = match self.levels.iter().position(|level| level.v6 == v6 && level.length == length) {
            Some(at) => at,
            None => {
                let at = self.levels.iter().position(|level| level.length < length).unwrap_or(self.levels.len());
                self.levels.insert(at, Level { v6, length, entries: HashMap::new() });
                at
            }
        };
        self.levels[at].entries.entry(masked(value, length)).or_insert_with(new)
    }

    /// The previous value of exactly this prefix, if there was one.
    pub fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        let mut value = Some(value);
        let slot = self.entry(prefix, || value.take().expect("taken once"));
        value.map(|new| std::mem::replace(slot, new))
    }

    pub fn longest(&self, address: IpAddr) -> Option<&T> {
        self.matching(address).next()
    }

    /// Every value whose prefix holds the address, longest prefix first.
    pub fn matching(&self, address: IpAddr) -> impl Iterator<Item = &T> {
        let (v6, value) = bits(canonical(address));
        self.levels
            .iter()
            .filter(move |level| level.v6 == v6)
            .filter_map(move |level| level.entries.get(&masked(value, level.length)))
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.levels.iter_mut().flat_map(|level| level.entries.values_mut())
    }
}

/// A set of prefixes.
#[derive(Debug, Clone, Default)]
pub struct CidrSet(CidrMap<()>);

impl CidrSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn insert(&mut self, prefix: IpNet) {
        self.0.insert(prefix, ());
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.longest(address).is_some()
    }
}

impl FromIterator<IpNet> for CidrSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            set.insert(prefix);
        }
        set
    }
}

#[cfg(test)]
mod tests;
