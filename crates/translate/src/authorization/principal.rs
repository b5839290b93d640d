//! What of a rule is about the client: its certificate, its addresses, its token, and headers.

use meltemi_config::wire::Str;
use meltemi_proto::envoy::config::rbac::v3::Principal;
use meltemi_proto::envoy::config::rbac::v3::principal::{Authenticated, Identifier, Set};
use meltemi_proto::envoy::r#type::matcher::v3::{StringMatcher, ValueMatcher};

use super::matcher;
use super::rule::{Context, Matcher, Transport, Unsupported, each, together_of_http};
use crate::authentication::{FILTER as JWT_FILTER, PAYLOAD};
use crate::wire;

const SPIFFE: &str = "spiffe://";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceAttribute {
    /// The peer's address.
    SourceIp,
    /// The client's address, behind trusted proxies.
    RemoteIp,
    Principal,
    Namespace,
    TrustDomain,
    ServiceAccount,
    /// `issuer/subject` of the token.
    RequestPrincipal,
    Audiences,
    Presenter,
    /// The path to a claim.
    Claim(Vec<String>),
    Header(String),
}

impl SourceAttribute {
    /// `None` where the key is not about the client.
    pub fn of_condition(key: &str) -> Option<Self> {
        Some(match key {
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::Namespace,
            "source.trustDomain" => Self::TrustDomain,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.principal" => Self::Principal,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Audiences,
            "request.auth.presenter" => Self::Presenter,
            _ => match key.strip_prefix("request.headers") {
                Some(name) => Self::Header(name.strip_prefix('[')?.strip_suffix(']')?.into()),
                None => Self::Claim(claim_path(key.strip_prefix("request.auth.claims")?)?),
            },
        })
    }
}

/// `[a][b]`; brackets in other places are part of one name.
fn claim_path(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let parts: Vec<String> = inner.split("][").map(str::to_owned).collect();
    Some(if parts.iter().any(|part| part.contains(['[', ']'])) { vec![inner.into()] } else { parts })
}

impl Matcher for Principal {
    type Attribute = SourceAttribute;

    fn any() -> Self {
        principal(Identifier::Any(true))
    }

    fn all_of(ids: Vec<Self>) -> Self {
        principal(Identifier::AndIds(Set { ids }))
    }

    fn one_of(ids: Vec<Self>) -> Self {
        principal(Identifier::OrIds(Set { ids }))
    }

    fn negated(self) -> Self {
        principal(Identifier::NotId(Box::new(self)))
    }

    fn of(attribute: &SourceAttribute, values: &[Str], context: &Context<'_>) -> Result<Option<Self>, Unsupported> {
        let identity =
            |of: &dyn Fn(&str) -> StringMatcher| each(values, context, |value| Some(authenticated(of(value))));
        match attribute {
            SourceAttribute::SourceIp => {
                each(values, context, |value| Some(principal(Identifier::DirectRemoteIp(wire::cidr(value)?))))
            }
            SourceAttribute::RemoteIp => {
                each(values, context, |value| Some(principal(Identifier::RemoteIp(wire::cidr(value)?))))
            }
            SourceAttribute::Principal => identity(&|value| matcher::text_after(SPIFFE, value)),
            SourceAttribute::Namespace => identity(&of_namespace),
            SourceAttribute::TrustDomain => identity(&of_trust_domain),
            SourceAttribute::ServiceAccount => identity(&|value| of_service_account(context.namespace, value)),
            SourceAttribute::RequestPrincipal => together_of_http(values, context, request_principals),
            SourceAttribute::Audiences => together_of_http(values, context, |values| claim(&["aud"], values)),
            SourceAttribute::Presenter => together_of_http(values, context, |values| claim(&["azp"], values)),
            SourceAttribute::Claim(path) => together_of_http(values, context, |values| {
                claim(&path.iter().map(String::as_str).collect::<Vec<_>>(), values)
            }),
            SourceAttribute::Header(name) => each(values, context, |value| {
                let is_possible = context.transport == Transport::Http && is_header_name(name);
                is_possible.then(|| principal(Identifier::Header(matcher::header(name, value, matcher::Case::Kept))))
            }),
        }
    }
}

/// A proxy would refuse all of its listener for another. The pseudo-headers of requests are among them.
fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match name.strip_prefix(':') {
        Some(pseudo) => ["method", "path", "authority", "scheme", "protocol"].contains(&pseudo),
        None => !name.is_empty() && name.bytes().all(is_token),
    }
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn authenticated(name: StringMatcher) -> Principal {
    principal(Identifier::Authenticated(Authenticated { principal_name: Some(name) }))
}

fn of_namespace(value: &str) -> StringMatcher {
    let quoted: Vec<String> = value.split('*').map(matcher::quoted).collect();
    matcher::regex(format!(".*/ns/{}/.*", quoted.join(".*")))
}

fn of_trust_domain(value: &str) -> StringMatcher {
    match value.split_once('*') {
        None => wire::prefix(&format!("{SPIFFE}{value}/")),
        Some(("", "")) => wire::prefix(SPIFFE),
        Some((before, after)) => {
            let (before, after) = (matcher::quoted(before), matcher::quoted(after));
            matcher::regex(format!("{SPIFFE}{before}[^/]*{after}/.*"))
        }
    }
}

/// `name`, or `namespace/name`. Other pairs of a key and a value may be in the identity.
fn of_service_account(own_namespace: &str, value: &str) -> StringMatcher {
    let (namespace, name) = value.split_once('/').unwrap_or((own_namespace, value));
    let (namespace, name) = (matcher::quoted(namespace), matcher::quoted(name));
    matcher::regex(format!("{SPIFFE}.+/ns/{namespace}/(.+/|)sa/{name}(/.+)?"))
}

fn request_principals(values: &[Str]) -> Principal {
    let mut ids: Vec<Principal> = values.iter().map(|value| request_principal(value)).collect();
    match ids.pop() {
        Some(only) if ids.is_empty() => only,
        last => {
            ids.extend(last);
            Principal::one_of(ids)
        }
    }
}

/// The subject is after the last slash, as an issuer may be a URL.
fn request_principal(value: &str) -> Principal {
    let any = || matcher::text("*");
    let (issuer, subject) = match value.rsplit_once('/') {
        _ if value == "*" => (any(), any()),
        // Without a slash, a wildcard stands for the whole of the other half.
        None if value.starts_with('*') => (any(), matcher::text(value)),
        None if value.ends_with('*') => (matcher::text(value), any()),
        None => (wire::exact(value), wire::exact("")),
        Some((issuer, subject)) if value.starts_with('*') => (matcher::text(issuer), wire::exact(subject)),
        Some((issuer, subject)) if value.ends_with('*') => (wire::exact(issuer), matcher::text(subject)),
        Some((issuer, subject)) => (wire::exact(issuer), wire::exact(subject)),
    };
    let part = |name: &str, wanted: StringMatcher| token(&[name], matcher::value(wanted));
    Principal::all_of(vec![part("iss", issuer), part("sub", subject)])
}

/// A claim is one of the values, or a list with one of them.
fn claim(path: &[&str], values: &[Str]) -> Principal {
    let one = matcher::one_value(values.iter().map(|value| matcher::value(matcher::text(value))).collect());
    token(path, matcher::element_or_value(one))
}

#[expect(deprecated, reason = "what Istio sends; its successor is the same and newer than some proxies")]
fn token(path: &[&str], wanted: ValueMatcher) -> Principal {
    let path: Vec<&str> = std::iter::once(PAYLOAD).chain(path.iter().copied()).collect();
    principal(Identifier::Metadata(matcher::metadata(JWT_FILTER, &path, wanted)))
}
