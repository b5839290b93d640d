//! Host names of listeners and routes, which may begin with `*`: whether they meet, and where they meet.
//!
//! Empty means every host.

use meltemi_config::Str;
use meltemi_model::host;

/// True if a host fits both.
pub fn meet(a: &str, b: &str) -> bool {
    a.is_empty() || b.is_empty() || host::overlaps(a, b) || a == b
}

/// True if every host of `inner` is one of `outer`.
pub fn within(inner: &str, outer: &str) -> bool {
    host::covers(outer, inner)
}

/// What of the hosts lies in `bound`: of two that contain each other the narrower one.
pub fn intersection(hosts: &[Str], bound: &str) -> Vec<Str> {
    let mut both: Vec<Str> = Vec::new();
    for own in hosts {
        let met = if within(own, bound) {
            own.clone()
        } else if within(bound, own) {
            bound.into()
        } else {
            continue;
        };
        if !both.contains(&met) {
            both.push(met);
        }
    }
    both
}
