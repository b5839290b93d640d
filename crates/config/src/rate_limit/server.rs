//! What a rate limit server enforces: one document a domain, as Envoy's reference server reads it.

use crate::wire::{Ignored, Str, enumeration, message};

message! {
    /// All limits of one domain.
    struct RateLimitConfiguration {
        domain: Str,
        descriptors: Vec<LimitDescriptor>,
    }

    /// One entry of a descriptor, and what may follow it.
    struct LimitDescriptor {
        key: Str,
        /// Empty: any value, each with a count of its own. `*` stands for any characters.
        value: Str,
        /// None: nothing is limited here, only below.
        #[serde(rename = "rate_limit")]
        rate_limit: Option<LimitBlock>,
        /// Entries that follow this one.
        descriptors: Vec<LimitDescriptor>,
        /// Counts, and never refuses.
        #[serde(rename = "shadow_mode")]
        shadow_mode: bool,
        /// Refuses only when every limit of this mode is exceeded.
        #[serde(rename = "quota_mode")]
        quota_mode: bool,
        /// All values that a `*` matches share one count.
        #[serde(rename = "share_threshold")]
        share_threshold: bool,
        #[serde(rename = "detailed_metric")]
        detailed_metric: bool,
        #[serde(rename = "value_to_metric")]
        value_to_metric: bool,
        /// For the response's dynamic metadata, which is not sent.
        metadata: Option<Ignored>,
    }

    struct LimitBlock {
        /// What others may replace it by.
        name: Str,
        /// Limits that do not count where this one does.
        replaces: Vec<Replaced>,
        /// A [`RateLimitUnit`], in any case.
        unit: Str,
        #[serde(rename = "requests_per_unit")]
        requests_per_unit: u32,
        unlimited: bool,
    }

    struct Replaced {
        name: Str,
    }
}

enumeration! {
    /// How long a window is.
    enum RateLimitUnit {
        #[default]
        Second = "SECOND",
        Minute = "MINUTE",
        Hour = "HOUR",
        Day = "DAY",
        Week = "WEEK",
        /// 30 days.
        Month = "MONTH",
        /// 365 days.
        Year = "YEAR",
    }
}

impl RateLimitUnit {
    /// All units, the shortest first.
    pub const ALL: [Self; 7] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// By its name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str().eq_ignore_ascii_case(text))
    }

    /// Its length in seconds.
    pub fn seconds(self) -> u64 {
        const DAY: u64 = 24 * 60 * 60;
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
            Self::Year => 365 * DAY,
        }
    }
}
