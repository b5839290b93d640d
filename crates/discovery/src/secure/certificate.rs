//! The certificate of discovery's own TLS ports: under which names, by whom it is signed, and when it is renewed.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use meltemi_ca::external_server_identity;
use meltemi_tls::{Identity, SpiffeId, TrustDomain};

use crate::options::Options;

/// It is renewed no later than this, and long before it ends.
const RENEW_EVERY: Duration = Duration::from_secs(24 * 3600);
/// After a failure.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// A new one under the names that proxies know us by: of our own authority, or of whoever signs in its place.
pub(super) async fn issue(options: &Options, trust_domain: &TrustDomain) -> Result<Identity> {
    let (names, id) = (names(options), SpiffeId::new(trust_domain.clone(), &options.namespace, "istiod")?);
    let Some(external) = &options.external else { return Ok(options.authority.server_identity(&names, &id)?) };
    let longest = options.authority.options().max_ttl;
    Ok(external_server_identity(&**external, &names, &id, longest).await?)
}

fn names(options: &Options) -> Vec<String> {
    let namespace = &options.namespace;
    let mut names = vec!["istiod".to_owned(), "localhost".to_owned()];
    let of_revision = options.webhook.revision_service();
    for service in ["istiod", "istio-pilot", "istiod-remote"].into_iter().chain(of_revision.as_deref()) {
        names.push(format!("{service}.{namespace}"));
        names.push(format!("{service}.{namespace}.svc"));
        names.push(format!("{service}.{namespace}.svc.{}", options.domain));
    }
    names
}

/// The life of a certificate, by the clock that others judge it by: a machine that slept, or whose clock was put right, may find it
/// over, or not begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    begins: SystemTime,
    renewed_at: SystemTime,
}

impl Life {
    /// Half of what is left of the one in force `now`, or a moment where there is none.
    pub fn of(current: Option<&Identity>, now: SystemTime) -> Self {
        let Some(info) = current.map(Identity::info) else {
            return Self { begins: SystemTime::UNIX_EPOCH, renewed_at: now + RETRY };
        };
        let half = info.not_after.duration_since(now).unwrap_or_default() / 2;
        Self { begins: info.not_before, renewed_at: now + half.clamp(RETRY, RENEW_EVERY) }
    }

    pub fn is_over(&self, now: SystemTime) -> bool {
        now < self.begins || now >= self.renewed_at
    }
}

#[cfg(test)]
mod tests {
    use meltemi_ca::{Authority, AuthorityOptions};

    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_the_middle_of_its_life_or_after_a_day() {
        let options = AuthorityOptions { max_ttl: 10 * RENEW_EVERY, ..AuthorityOptions::new("a".parse().unwrap()) };
        let id = SpiffeId::new("a".parse().unwrap(), "istio-system", "istiod").unwrap();
        let identity = Authority::self_signed(options).unwrap().server_identity(&[], &id).unwrap();
        let end = identity.info().not_after;
        let rest = |identity, now| Life::of(identity, now).renewed_at.duration_since(now).unwrap();
        assert_eq!(rest(Some(&identity), end - 4 * RENEW_EVERY), RENEW_EVERY);
        assert_eq!(rest(Some(&identity), end - RENEW_EVERY), RENEW_EVERY / 2);
        assert_eq!(rest(Some(&identity), end), RETRY);
        assert_eq!(rest(None, end), RETRY);
    }

    #[test]
    fn a_clock_that_leads_out_of_its_life_ends_it() {
        let hour = Duration::from_secs(3600);
        let begins = SystemTime::UNIX_EPOCH + 1000 * hour;
        let life = Life { begins, renewed_at: begins + hour };
        for (hours, expected) in [(0.5, false), (1.0, true), (5.0, true), (-0.1, true)] {
            let now = SystemTime::UNIX_EPOCH + hour.mul_f64(1000.0 + hours);
            assert_eq!(life.is_over(now), expected, "after {hours} h");
        }
    }
}
