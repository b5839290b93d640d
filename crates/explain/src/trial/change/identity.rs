//! Certificates: all that the trust domains, namespaces and accounts which policies name can make, and what is no identity of
//! a workload.

use std::collections::BTreeSet;

use super::super::call::Certificate;
use super::super::mention::{Field, Mentions};
use super::text::{near, patterns};

const SPIFFE: &str = "spiffe://";

/// How many of each part are put together with all of the others.
const MOST_OF_A_PART: usize = 24;

/// The whole ones first: parts as named before parts that are nearly so.
pub fn certificates(mentions: &Mentions, trust_domains: &[String]) -> Vec<Option<Certificate>> {
    let parts = Parts::of(mentions, trust_domains);
    let mut uris: Vec<String> = parts.raw.iter().map(|raw| format!("{SPIFFE}{raw}")).collect();
    uris.extend(parts.named());
    let first = uris.first().cloned().unwrap_or_else(|| format!("{SPIFFE}other/ns/other/sa/other"));
    uris.extend(parts.ends());
    uris.extend(parts.nearly());
    let mut known = BTreeSet::new();
    uris.retain(|uri| known.insert(uri.clone()));
    let odd = odd(&first);
    let mut all: Vec<_> = std::iter::once(None).chain(odd.into_iter().map(Some)).collect();
    all.extend(uris.into_iter().map(|uri| Some(Certificate::of_uri(uri))));
    all
}

/// How long the last character is.
fn last(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

/// The identity in other places of a certificate, beside another one, and in other words.
fn odd(uri: &str) -> Vec<Certificate> {
    let other = format!("{SPIFFE}other/ns/other/sa/other");
    let bare = uri.trim_start_matches(SPIFFE);
    vec![
        Certificate { uri_sans: vec![other, uri.into()], ..Certificate::default() },
        Certificate { dns_sans: vec![uri.into()], ..Certificate::default() },
        Certificate { subject: uri.into(), ..Certificate::default() },
        Certificate::default(),
        Certificate::of_uri(bare),
        Certificate::of_uri(uri.to_ascii_uppercase()),
        Certificate::of_uri(format!("{uri}/more/parts")),
        Certificate::of_uri(format!("https://{bare}")),
        Certificate::of_uri(format!("{uri}\n")),
    ]
}

#[derive(Default)]
struct Parts {
    domains: Vec<String>,
    namespaces: Vec<String>,
    accounts: Vec<String>,
    /// Namespaces with accounts that are named as one.
    workloads: Vec<(String, String)>,
    /// Principals that are no identities of workloads, and what is near them.
    raw: Vec<String>,
}

impl Parts {
    fn of(mentions: &Mentions, trust_domains: &[String]) -> Self {
        let mut parts = Self { domains: trust_domains.to_vec(), ..Self::default() };
        let values = |field: &Field| mentions.get(field).into_iter().flatten();
        for principal in values(&Field::Principal) {
            match principal.split('/').collect::<Vec<_>>().as_slice() {
                [domain, "ns", namespace, "sa", account] => {
                    parts.domains.push((*domain).into());
                    parts.workloads.push(((*namespace).into(), (*account).into()));
                }
                _ => parts.raw.extend(patterns(principal)),
            }
        }
        for account in values(&Field::ServiceAccount) {
            let (namespace, name) = account.split_once('/').unwrap_or(("", account));
            parts.workloads.push((namespace.into(), name.into()));
        }
        parts.workloads.truncate(MOST_OF_A_PART);
        parts.namespaces.extend(parts.workloads.iter().map(|(namespace, _)| namespace.clone()));
        parts.accounts.extend(parts.workloads.iter().map(|(_, account)| account.clone()));
        parts.namespaces.extend(values(&Field::Namespace).cloned());
        parts.domains.extend(values(&Field::TrustDomain).cloned());
        for (part, other) in
            [(&mut parts.domains, "cluster.local"), (&mut parts.namespaces, "other"), (&mut parts.accounts, "other")]
        {
            part.push(other.into());
            let mut known = BTreeSet::new();
            part.retain(|one| known.insert(one.clone()));
            part.truncate(MOST_OF_A_PART);
        }
        parts
    }

    fn named(&self) -> Vec<String> {
        let mut all = Vec::new();
        for domain in &self.domains {
            for namespace in &self.namespaces {
                all.extend(self.accounts.iter().map(|account| uri(domain, namespace, account)));
            }
        }
        all
    }

    /// One character more at either end, and one less.
    fn ends(&self) -> Vec<String> {
        let first = || Some((self.namespaces.first()?.clone(), self.accounts.first()?.clone()));
        let workloads = if self.workloads.is_empty() { first().into_iter().collect() } else { self.workloads.clone() };
        let of = |(namespace, account): &(String, String)| {
            let whole: Vec<_> = self.domains.iter().map(|domain| uri(domain, namespace, account)).collect();
            whole.into_iter().flat_map(|uri| {
                let shorter = uri[..uri.len() - last(&uri)].to_owned();
                [format!("{uri}x"), format!("x{uri}"), shorter]
            })
        };
        workloads.iter().flat_map(of).collect()
    }

    /// One part is nearly as named; the others stand where they were named first, and where they were named last.
    fn nearly(&self) -> Vec<String> {
        let mut all = Vec::new();
        let end =
            |part: &[String], first: bool| if first { part.first() } else { part.last() }.cloned().unwrap_or_default();
        for first in [true, false] {
            let (domain, namespace, account) =
                (end(&self.domains, first), end(&self.namespaces, first), end(&self.accounts, first));
            all.extend(self.namespaces.iter().flat_map(|one| patterns(one)).map(|one| uri(&domain, &one, &account)));
            all.extend(self.domains.iter().flat_map(|one| patterns(one)).map(|one| uri(&one, &namespace, &account)));
            all.extend(self.accounts.iter().flat_map(|one| near(one)).map(|one| uri(&domain, &namespace, &one)));
            all.push(format!("{SPIFFE}{domain}/ns/{namespace}/cluster/c1/sa/{account}/pod/p1"));
            all.push(format!("{SPIFFE}{domain}/sa/{account}/ns/{namespace}"));
        }
        all
    }
}

/// A star in a part is left open by a policy, and something stands there.
fn uri(domain: &str, namespace: &str, account: &str) -> String {
    let closed = |part: &str| part.replace('*', "x");
    format!("{SPIFFE}{}/ns/{}/sa/{}", closed(domain), closed(namespace), closed(account))
}
