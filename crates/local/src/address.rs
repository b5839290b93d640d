//! Addresses: of the fabric itself, of replicas, and of services that ask for one.
//!
//! Owns the two ranges. A service's address follows from its name alone, so it stays the same from run to run unless two
//! names collide.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

#[cfg(test)]
mod tests;

/// The bridge's own address: discovery and the cluster's DNS are there.
pub(crate) const FABRIC: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub(crate) const PREFIX: u8 = 16;
/// Replicas' addresses are 10.244.0.2 and on.
const FIRST_SLOT: u16 = 2;
const LAST_SLOT: u16 = 60_000;
/// Services' addresses are 10.96.0.1 to 10.111.255.254, Kubernetes' usual range.
const SERVICES: u32 = u32::from_be_bytes([10, 96, 0, 0]);
const SERVICES_SIZE: u32 = 1 << 20;

/// A replica's place on the bridge; gives its address and its link's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u16);

impl Slot {
    pub fn address(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 244, high, low)
    }

    /// The name of the link's end at the bridge.
    pub fn link(self) -> String {
        format!("veth{}", self.0)
    }
}

/// Hands out slots, going round before one is used again, so that an address is not reused while somebody remembers it.
#[derive(Debug)]
pub(crate) struct Slots {
    next: u16,
    taken: BTreeSet<u16>,
}

impl Default for Slots {
    fn default() -> Self {
        Slots { next: FIRST_SLOT, taken: BTreeSet::new() }
    }
}

impl Slots {
    pub fn take(&mut self) -> Option<Slot> {
        for _ in FIRST_SLOT..=LAST_SLOT {
            let slot = self.next;
            self.next = if slot == LAST_SLOT { FIRST_SLOT } else { slot + 1 };
            if self.taken.insert(slot) {
                return Some(Slot(slot));
            }
        }
        None
    }

    pub fn release(&mut self, slot: Slot) {
        self.taken.remove(&slot.0);
    }
}

/// An address for each `namespace/name`, none of them in `fixed`.
pub(crate) fn service_addresses(names: &BTreeSet<String>, fixed: &BTreeSet<Ipv4Addr>) -> BTreeMap<String, Ipv4Addr> {
    let mut taken = fixed.clone();
    let mut addresses = BTreeMap::new();
    for name in names {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let start = u32::try_from(hasher.finish() % u64::from(SERVICES_SIZE - 2)).unwrap_or_default();
        let candidates = (0..SERVICES_SIZE - 2).map(|step| (start + step) % (SERVICES_SIZE - 2) + 1);
        let free = candidates.map(|offset| Ipv4Addr::from(SERVICES + offset)).find(|address| !taken.contains(address));
        if let Some(address) = free {
            taken.insert(address);
            addresses.insert(name.clone(), address);
        }
    }
    addresses
}
