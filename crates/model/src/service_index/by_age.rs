//! Services in the order of their age, which settles conflicts.

use crate::service::Service;
use crate::shared::Shared;
use std::cmp::Ordering;
use std::ops::Deref;

/// Beyond this many changes at once sorting anew is cheaper than moving each to its place.
const MANY: usize = 256;

pub(super) fn order(a: &Shared<Service>, b: &Shared<Service>) -> Ordering {
    (&a.creation, &a.hostname, &a.namespace).cmp(&(&b.creation, &b.hostname, &b.namespace))
}

#[derive(Clone, Debug, Default)]
pub(super) struct ByAge(Vec<Shared<Service>>);

impl Deref for ByAge {
    type Target = [Shared<Service>];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl ByAge {
    /// Takes services out, as they were when they came in, and others in.
    pub fn edit(&mut self, before: &[Shared<Service>], now: &[Shared<Service>]) {
        for service in before {
            if let Ok(place) = self.0.binary_search_by(|other| order(other, service)) {
                self.0.remove(place);
            }
        }
        if now.len() > MANY {
            self.0.extend(now.iter().cloned());
            self.0.sort_by(order);
            return;
        }
        for service in now {
            if let Err(place) = self.0.binary_search_by(|other| order(other, service)) {
                self.0.insert(place, service.clone());
            }
        }
    }
}
