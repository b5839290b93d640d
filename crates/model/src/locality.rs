//! Where a workload runs: region, zone, sub-zone.

use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

impl Locality {
    /// `region/zone/subzone`, with fewer parts meaning fewer levels.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let mut next = || Arc::from(parts.next().unwrap_or_default());
        Self { region: next(), zone: next(), sub_zone: next() }
    }

    /// The value of the label `istio-locality`, which has dots for slashes where it has no slash.
    pub fn of_label(text: &str) -> Self {
        if text.contains('/') { Self::parse(text) } else { Self::parse(&text.replace('.', "/")) }
    }

    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }

    /// True when `pattern` (`region/zone/*`, `region`, `*`) names this locality.
    pub fn matches(&self, pattern: &str) -> bool {
        let own = [&*self.region, &*self.zone, &*self.sub_zone];
        for (part, own) in pattern.split('/').zip(own) {
            if part == "*" {
                return true;
            }
            if part != own {
                return false;
            }
        }
        true
    }

    /// How many levels, from the region down, are equal: 0 to 3.
    pub fn shared_levels(&self, other: &Self) -> u32 {
        if self.region != other.region {
            0
        } else if self.zone != other.zone {
            1
        } else if self.sub_zone != other.sub_zone {
            2
        } else {
            3
        }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.sub_zone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.sub_zone.is_empty() {
            write!(f, "/{}", self.sub_zone)?;
        }
        Ok(())
    }
}
