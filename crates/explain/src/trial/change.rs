//! What can be changed of a call: each value that policies name, what is nearly it, and what is not there at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use meltemi_http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::call::{Call, Certificate};
use super::mention::{Field, Mentions};

mod identity;
mod text;

use text::{near, patterns};

/// How many certificates are tried of all that the parts which policies name can make.
const MOST_CERTIFICATES: usize = 600;

/// How many of the values that policies name stand beside another.
const MOST_BESIDE: usize = 3;

/// One thing about a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Certificate(Option<Certificate>),
    Source(IpAddr),
    Remote(IpAddr),
    Destination(IpAddr),
    Port(u16),
    ServerName(String),
    Method(String),
    Host(String),
    Path(String),
    /// All values of a header; none: it is absent.
    Header(String, Vec<String>),
    Claim(Vec<String>, Option<Value>),
    Found {
        filter: String,
        key: String,
        value: Option<Value>,
    },
}

impl Change {
    pub fn apply(&self, call: &mut Call) {
        match self {
            Self::Certificate(certificate) => call.certificate.clone_from(certificate),
            Self::Source(address) => call.source = *address,
            Self::Remote(address) => call.remote = *address,
            Self::Destination(address) => call.destination.set_ip(*address),
            Self::Port(port) => call.destination.set_port(*port),
            Self::ServerName(name) => call.server_name.clone_from(name),
            Self::Method(method) => call.method.clone_from(method),
            Self::Host(host) => call.host.clone_from(host),
            Self::Path(path) => call.path.clone_from(path),
            Self::Header(name, values) => {
                call.headers.retain(|(own, _)| own != name);
                call.headers.extend(values.iter().map(|value| (name.clone(), value.clone())));
            }
            Self::Claim(path, value) => call.claim(path, value.clone()),
            Self::Found { filter, key, value } => call.find(filter, &[key], value.clone()),
        }
    }

    /// Whether there can be a request like that: nobody can send what is no method and no header.
    fn can_be(&self) -> bool {
        match self {
            Self::Method(method) => Method::from_bytes(method.as_bytes()).is_ok(),
            Self::Header(name, values) => {
                HeaderName::from_bytes(name.as_bytes()).is_ok()
                    && values.iter().all(|value| HeaderValue::from_bytes(value.as_bytes()).is_ok())
            }
            _ => true,
        }
    }
}

/// By what they change, for calls with or without a request.
pub fn changes(mentions: &Mentions, trust_domains: &[String], is_http: bool) -> Vec<Vec<Change>> {
    let mut aspects: BTreeMap<Aspect, Vec<Change>> = BTreeMap::new();
    for (field, values) in mentions.iter().filter(|(field, _)| is_http || !is_of_http(field)) {
        let beside = beside(values);
        for change in values.iter().flat_map(|value| of_field(field, value, &beside)) {
            let known = aspects.entry(Aspect::of(&change)).or_default();
            if change.can_be() && !known.contains(&change) {
                known.push(change);
            }
        }
    }
    let certificates = identity::certificates(mentions, trust_domains);
    aspects.insert(
        Aspect::Certificate,
        certificates.into_iter().take(MOST_CERTIFICATES).map(Change::Certificate).collect(),
    );
    aspects.into_values().collect()
}

/// Changes of one aspect replace each other.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Aspect {
    Certificate,
    Source,
    Remote,
    Destination,
    Port,
    ServerName,
    Method,
    Host,
    Path,
    Header(String),
    Claim(Vec<String>),
    Found(String, String),
}

impl Aspect {
    fn of(change: &Change) -> Self {
        match change {
            Change::Certificate(_) => Self::Certificate,
            Change::Source(_) => Self::Source,
            Change::Remote(_) => Self::Remote,
            Change::Destination(_) => Self::Destination,
            Change::Port(_) => Self::Port,
            Change::ServerName(_) => Self::ServerName,
            Change::Method(_) => Self::Method,
            Change::Host(_) => Self::Host,
            Change::Path(_) => Self::Path,
            Change::Header(name, _) => Self::Header(name.clone()),
            Change::Claim(path, _) => Self::Claim(path.clone()),
            Change::Found { filter, key, .. } => Self::Found(filter.clone(), key.clone()),
        }
    }
}

fn is_of_http(field: &Field) -> bool {
    match field {
        Field::RequestPrincipal | Field::Host | Field::Method | Field::Path | Field::Header(_) | Field::Claim(_) => {
            true
        }
        Field::Principal
        | Field::Namespace
        | Field::TrustDomain
        | Field::ServiceAccount
        | Field::SourceIp
        | Field::RemoteIp
        | Field::DestinationIp
        | Field::Port
        | Field::ServerName
        | Field::Found { .. } => false,
    }
}

/// What stands beside a value where there can be several: another one, and those that policies name.
fn beside(values: &BTreeSet<String>) -> Vec<String> {
    let named =
        values.iter().map(|value| value.trim_matches(['*', '[', ']']).to_owned()).filter(|name| !name.is_empty());
    std::iter::once("other".to_owned()).chain(named.take(MOST_BESIDE)).collect()
}

fn of_field(field: &Field, value: &str, beside: &[String]) -> Vec<Change> {
    let texts = |of: &dyn Fn(String) -> Change| patterns(value).into_iter().map(of).collect();
    match field {
        // Together: a certificate has all of them.
        Field::Principal | Field::Namespace | Field::TrustDomain | Field::ServiceAccount => Vec::new(),
        Field::RequestPrincipal => request_principal(value),
        Field::SourceIp => addresses(value).into_iter().map(Change::Source).collect(),
        Field::RemoteIp => addresses(value).into_iter().map(Change::Remote).collect(),
        Field::DestinationIp => addresses(value).into_iter().map(Change::Destination).collect(),
        Field::Port => ports(value).into_iter().map(Change::Port).collect(),
        Field::ServerName => texts(&Change::ServerName),
        Field::Host => text::hosts(value).into_iter().map(Change::Host).collect(),
        Field::Method => texts(&Change::Method),
        Field::Path => text::paths(value).into_iter().map(Change::Path).collect(),
        Field::Header(name) => header(name, value, beside),
        Field::Claim(path) => {
            documents(value, beside).into_iter().map(|document| Change::Claim(path.clone(), document)).collect()
        }
        Field::Found { filter, key } => {
            let found = |value| Change::Found { filter: filter.clone(), key: key.clone(), value };
            let element = value.trim_start_matches('[').trim_end_matches(']');
            documents(element, beside).into_iter().map(found).collect()
        }
    }
}

fn header(name: &str, value: &str, beside: &[String]) -> Vec<Change> {
    let mut lists: Vec<Vec<String>> = vec![Vec::new()];
    for text in patterns(value) {
        for other in beside {
            lists.push(vec![other.clone(), text.clone()]);
            lists.push(vec![text.clone(), other.clone()]);
            lists.push(vec![format!("{text},{other}")]);
        }
        lists.push(vec![text]);
    }
    lists.into_iter().map(|values| Change::Header(name.into(), values)).collect()
}

/// As a claim, or whatever else a filter finds out.
fn documents(value: &str, beside: &[String]) -> Vec<Option<Value>> {
    let mut documents = vec![None, Some(json!([])), Some(json!(7)), Some(json!(true)), Some(json!({}))];
    for text in patterns(value) {
        documents.push(Some(json!([text])));
        documents.extend(beside.iter().map(|other| Some(json!([other, text]))));
        documents.push(Some(json!([[text]])));
        documents.push(Some(json!({ text.clone(): text })));
        documents.push(Some(json!(format!("other {text}"))));
        documents.push(Some(json!(text)));
    }
    documents
}

/// Issuer and subject each by itself: what is before any of the slashes, and what is behind it.
fn request_principal(value: &str) -> Vec<Change> {
    let claim = |name: &str, value: Value| Change::Claim(vec![name.to_owned()], Some(value));
    let mut issuers: BTreeSet<String> = near(value.trim_matches('*')).into_iter().collect();
    let mut subjects = issuers.clone();
    for (slash, _) in value.match_indices('/') {
        issuers.extend(patterns(&value[..slash]));
        subjects.extend(patterns(&value[slash + 1..]));
    }
    let texts = |name: &'static str, texts: BTreeSet<String>| {
        let absent = Change::Claim(vec![name.to_owned()], None);
        let odd = [claim(name, json!(7)), claim(name, json!(["other"])), absent];
        texts.into_iter().map(move |text| claim(name, json!(text))).chain(odd)
    };
    texts("iss", issuers).chain(texts("sub", subjects)).collect()
}

fn ports(value: &str) -> Vec<u16> {
    let Ok(port) = value.parse::<u16>() else { return Vec::new() };
    vec![port, port.wrapping_sub(1), port.wrapping_add(1)]
}

/// The first and the last of a range, their neighbours outside, and what is not of its family.
fn addresses(value: &str) -> Vec<IpAddr> {
    let range = value.parse::<ipnet::IpNet>().or_else(|_| value.parse::<IpAddr>().map(ipnet::IpNet::from));
    let Ok(range) = range else { return Vec::new() };
    let (first, last) = (range.network(), range.broadcast());
    let mut all = vec![first, last];
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            all.push(IpAddr::V4(u32::from(first).wrapping_sub(1).into()));
            all.push(IpAddr::V4(u32::from(last).wrapping_add(1).into()));
            all.push(first.to_ipv6_mapped().into());
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            all.push(IpAddr::V6(u128::from(first).wrapping_sub(1).into()));
            all.push(IpAddr::V6(u128::from(last).wrapping_add(1).into()));
            all.extend(first.to_ipv4_mapped().map(IpAddr::from));
        }
        _ => {}
    }
    all
}
