//! Addresses from 240.240.0.0/16 for services that have none (ServiceEntries; and, without Kubernetes to assign a cluster
//! address, Services from files), by Istio's hash so that every control plane, ours or
//! Istio's, gives the same name the same address: FNV-1a of `namespace/host` picks a slot, double hashing resolves collisions.

use crate::service::{Resolution, Service, ServiceKey};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const SLOTS: u32 = 256 * 254;
const PRIME: u32 = 65_011;

#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    taken: BTreeMap<u32, ServiceKey>,
    held: BTreeMap<ServiceKey, Vec<u32>>,
}

impl Slots {
    pub fn release(&mut self, key: &ServiceKey) {
        for slot in self.held.remove(key).unwrap_or_default() {
            self.taken.remove(&slot);
        }
    }

    /// The address of a service that may have one; what it held before stays its own.
    pub fn address_of(&mut self, service: &Service) -> Option<Ipv4Addr> {
        let key = service.key();
        let eligible = service.addresses.is_empty()
            && !service.headless
            && !service.is_wildcard()
            && !matches!(service.resolution, Resolution::Passthrough | Resolution::Alias);
        if !eligible {
            self.release(&key);
            return None;
        }
        let wanted = service.declarations.max(1) as usize;
        if self.held.get(&key).is_none_or(|slots| slots.len() != wanted) {
            self.release(&key);
            let slots: Vec<u32> = (0..wanted).map_while(|_| self.claim(&key)).collect();
            self.held.insert(key.clone(), slots);
        }
        self.held.get(&key)?.iter().min().map(|slot| address(*slot))
    }

    fn claim(&mut self, key: &ServiceKey) -> Option<u32> {
        let hash = fnv1a(&format!("{}/{}", key.namespace, key.hostname));
        let first = hash % SLOTS;
        let step = PRIME - hash % PRIME;
        let probe = (1..SLOTS).map(|i| hash.wrapping_add(i.wrapping_mul(step)) % (SLOTS - 1));
        let slot = std::iter::once(first)
            .chain(probe)
            .find(|slot| !(slot + 1).is_multiple_of(255) && !self.taken.contains_key(slot))?;
        self.taken.insert(slot, key.clone());
        Some(slot)
    }
}

/// Slot 0 is 240.240.0.1. Slots whose address would end in 0 are never claimed.
fn address(slot: u32) -> Ipv4Addr {
    let number = slot + 1;
    Ipv4Addr::new(240, 240, (number / 255) as u8, (number % 255) as u8)
}

fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
