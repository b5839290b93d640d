//! `istio.security.Authorization` as a node proxy evaluates it for a connection: slow and obvious.

use std::net::IpAddr;

use meltemi_proto::istio::security::{
    Action, Address, Authorization, Match, Rules, ServiceAccountMatch, StringMatch, string_match::MatchType,
};

use super::Verdict;
use super::call::Call;

/// What a policy, alone, says of a connection.
pub fn decide(policy: &Authorization, call: &Call) -> Verdict {
    let peer = Peer::of(call);
    let matched = policy.groups.iter().any(|group| {
        // Rules that name nothing are no condition.
        group.rules.iter().all(|rules| rules.matches.is_empty() || rules.matches.iter().any(|one| peer.fits(one, call)))
    });
    let allowed = matched == (policy.action == Action::Allow as i32) || policy.dry_run;
    Verdict { allowed, policy: matched.then(|| format!("{}/{}", policy.namespace, policy.name)) }
}

/// For each match of a policy: how much of it holds, and of what its group asks for besides.
pub fn shares(policy: &Authorization) -> Vec<impl Fn(&Call) -> u64> {
    let mut shares = Vec::new();
    for group in &policy.groups {
        for (place, rules) in group.rules.iter().enumerate() {
            shares.extend(rules.matches.iter().map(|wanted| {
                move |call: &Call| {
                    let peer = Peer::of(call);
                    let of_rules = |(index, rules): (usize, &Rules)| match index == place {
                        true => peer.share(wanted, call),
                        false => rules.matches.iter().map(|one| peer.share(one, call)).max().unwrap_or_default(),
                    };
                    group.rules.iter().enumerate().map(of_rules).sum()
                }
            }));
        }
    }
    shares
}

/// Each match of a policy by itself.
pub fn matches(policy: &Authorization) -> impl Iterator<Item = &Match> {
    policy.groups.iter().flat_map(|group| &group.rules).flat_map(|rules| &rules.matches)
}

/// Whether a match holds for a connection.
pub fn holds(one: &Match, call: &Call) -> bool {
    Peer::of(call).fits(one, call)
}

/// Whom the client's certificate names, by parts; empty where it names nobody.
#[derive(Default)]
struct Peer {
    /// Without `spiffe://`.
    name: String,
    namespace: String,
    account: String,
}

impl Peer {
    fn of(call: &Call) -> Self {
        let spiffe = call.certificate.as_ref().and_then(|certificate| certificate.spiffe());
        let Some(name) = spiffe.and_then(|uri| uri.strip_prefix("spiffe://")) else { return Self::default() };
        match name.split('/').collect::<Vec<_>>().as_slice() {
            [_, "ns", namespace, "sa", account] => {
                Self { name: name.into(), namespace: (*namespace).into(), account: (*account).into() }
            }
            _ => Self::default(),
        }
    }

    fn fits(&self, one: &Match, call: &Call) -> bool {
        // A match without fields is passed over.
        *one != Match::default() && self.fields(one, call).iter().all(|fits| *fits)
    }

    fn share(&self, one: &Match, call: &Call) -> u64 {
        self.fields(one, call).into_iter().map(u64::from).sum()
    }

    fn fields(&self, one: &Match, call: &Call) -> [bool; 6] {
        let is_principal = |wanted: &StringMatch| !self.name.is_empty() && text(wanted, &self.name);
        let (destination, port) = (call.destination.ip(), u32::from(call.destination.port()));
        [
            field(&one.namespaces, &one.not_namespaces, |wanted| text(wanted, &self.namespace)),
            field(&one.principals, &one.not_principals, is_principal),
            field(&one.service_accounts, &one.not_service_accounts, |wanted| self.is_account(wanted)),
            field(&one.source_ips, &one.not_source_ips, |range| contains(range, call.source)),
            field(&one.destination_ips, &one.not_destination_ips, |range| contains(range, destination)),
            field(&one.destination_ports, &one.not_destination_ports, |wanted| *wanted == port),
        ]
    }

    fn is_account(&self, wanted: &ServiceAccountMatch) -> bool {
        !self.name.is_empty() && wanted.namespace == self.namespace && wanted.service_account == self.account
    }
}

fn field<T>(values: &[T], not_values: &[T], fits: impl Fn(&T) -> bool) -> bool {
    (values.is_empty() || values.iter().any(&fits)) && !not_values.iter().any(&fits)
}

fn text(wanted: &StringMatch, found: &str) -> bool {
    match &wanted.match_type {
        Some(MatchType::Exact(text)) => found == text,
        Some(MatchType::Prefix(text)) => found.starts_with(text.as_str()),
        Some(MatchType::Suffix(text)) => found.ends_with(text.as_str()),
        Some(MatchType::Presence(())) => !found.is_empty(),
        None => false,
    }
}

fn contains(range: &Address, address: IpAddr) -> bool {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bit = |octets: &[u8], at: usize| octets.get(at / 8).map(|octet| octet >> (7 - at % 8) & 1);
    let length = usize::try_from(range.length).unwrap_or(usize::MAX);
    range.address.len() == octets.len()
        && length <= octets.len() * 8
        && (0..length).all(|at| bit(&range.address, at) == bit(&octets, at))
}
