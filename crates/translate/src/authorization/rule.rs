//! One rule of an AuthorizationPolicy: each `from` with all of `when` about the client is a principal, each `to` with all of
//! `when` about the destination is a permission.
//!
//! Owns the boolean structure, which is the same for both. What an attribute's value means is theirs.

use meltemi_config::security::{AuthorizationRule, Condition, Operation, Source};
use meltemi_config::wire::Str;
use meltemi_proto::envoy::config::rbac::v3::{Permission, Policy, Principal};

use super::permission::DestinationAttribute;
use super::principal::SourceAttribute;
use super::trust_domain;

/// What the filters of a chain can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Http,
    Tcp,
}

/// What the translation of a rule depends on besides the rule.
pub struct Context<'a> {
    /// Of the policy.
    pub namespace: &'a str,
    pub trust_domains: &'a [Str],
    pub transport: Transport,
    /// What cannot be evaluated is left out of the rule, which then matches more; otherwise the rule is left out.
    pub lenient: bool,
}

/// Something in a rule cannot be evaluated.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsupported;

/// A permission or a principal.
pub trait Matcher: Sized {
    type Attribute;

    fn any() -> Self;
    fn all_of(parts: Vec<Self>) -> Self;
    fn one_of(parts: Vec<Self>) -> Self;
    fn negated(self) -> Self;

    /// Matches where the attribute has one of the values; nothing where no value is left of them.
    fn of(attribute: &Self::Attribute, values: &[Str], context: &Context<'_>) -> Result<Option<Self>, Unsupported>;
}

/// An attribute with the values that it must and must not have.
#[derive(Clone)]
struct Test<A> {
    attribute: A,
    values: Vec<Str>,
    not_values: Vec<Str>,
}

/// `None` where the rule is left out.
pub fn policy(rule: &AuthorizationRule, context: &Context<'_>) -> Option<Policy> {
    let (clients, destinations) = conditions(rule.when.as_deref().unwrap_or_default(), context).ok()?;
    let sources = rule.from.iter().flatten().map(|from| from.source.as_ref());
    let mut principals = Vec::new();
    for source in sources {
        let own = source.map(|source| source_tests(source, context)).unwrap_or_default();
        principals.push([own, clients.clone()].concat());
    }
    if principals.is_empty() {
        principals.push(clients);
    }
    let operations = rule.to.iter().flatten().map(|to| to.operation.as_ref());
    let mut permissions = Vec::new();
    for operation in operations {
        let own = operation.map(operation_tests).unwrap_or_default();
        permissions.push([own, destinations.clone()].concat());
    }
    if permissions.is_empty() {
        permissions.push(destinations);
    }
    Some(Policy {
        permissions: conjunctions::<Permission>(&permissions, context).ok()?,
        principals: conjunctions::<Principal>(&principals, context).ok()?,
        ..Policy::default()
    })
}

fn conjunctions<M: Matcher>(lists: &[Vec<Test<M::Attribute>>], context: &Context<'_>) -> Result<Vec<M>, Unsupported> {
    lists.iter().map(|tests| conjunction(tests, context)).collect()
}

fn conjunction<M: Matcher>(tests: &[Test<M::Attribute>], context: &Context<'_>) -> Result<M, Unsupported> {
    let mut parts = Vec::new();
    for test in tests {
        parts.extend(M::of(&test.attribute, &test.values, context)?);
        parts.extend(M::of(&test.attribute, &test.not_values, context)?.map(M::negated));
    }
    if parts.is_empty() {
        parts.push(M::any());
    }
    Ok(M::all_of(parts))
}

/// One of the values, each matched by itself.
pub fn each<M: Matcher>(
    values: &[Str],
    context: &Context<'_>,
    one: impl Fn(&str) -> Option<M>,
) -> Result<Option<M>, Unsupported> {
    let mut found = Vec::new();
    for value in values {
        match one(value) {
            Some(matcher) => found.push(matcher),
            None if context.lenient => {}
            None => return Err(Unsupported),
        }
    }
    Ok((!found.is_empty()).then(|| M::one_of(found)))
}

/// The same for what only HTTP has.
pub fn each_of_http<M: Matcher>(
    values: &[Str],
    context: &Context<'_>,
    one: impl Fn(&str) -> M,
) -> Result<Option<M>, Unsupported> {
    each(values, context, |value| (context.transport == Transport::Http).then(|| one(value)))
}

/// All values in one matcher, of what only HTTP has.
pub fn together_of_http<M>(
    values: &[Str],
    context: &Context<'_>,
    all: impl FnOnce(&[Str]) -> M,
) -> Result<Option<M>, Unsupported> {
    match context.transport {
        _ if values.is_empty() => Ok(None),
        Transport::Http => Ok(Some(all(values))),
        Transport::Tcp if context.lenient => Ok(None),
        Transport::Tcp => Err(Unsupported),
    }
}

type Conditions = (Vec<Test<SourceAttribute>>, Vec<Test<DestinationAttribute>>);

/// `when`, by whether it is about the client or about the destination.
fn conditions(when: &[Condition], context: &Context<'_>) -> Result<Conditions, Unsupported> {
    let (mut clients, mut destinations) = (Vec::new(), Vec::new());
    for condition in when {
        let (values, not_values) = (&condition.values, &condition.not_values);
        if let Some(attribute) = DestinationAttribute::of_condition(&condition.key) {
            push(&mut destinations, attribute, values, not_values);
        } else if let Some(attribute) = SourceAttribute::of_condition(&condition.key) {
            push_source(&mut clients, attribute, values, not_values, context);
        } else if !context.lenient {
            return Err(Unsupported);
        }
    }
    Ok((clients, destinations))
}

fn push<A>(tests: &mut Vec<Test<A>>, attribute: A, values: &Option<Vec<Str>>, not_values: &Option<Vec<Str>>) {
    let list = |values: &Option<Vec<Str>>| values.clone().unwrap_or_default();
    tests.push(Test { attribute, values: list(values), not_values: list(not_values) });
}

/// Identities stand for those of all trust domains that the mesh takes for its own.
fn push_source(
    tests: &mut Vec<Test<SourceAttribute>>,
    attribute: SourceAttribute,
    values: &Option<Vec<Str>>,
    not_values: &Option<Vec<Str>>,
    context: &Context<'_>,
) {
    let migrated = |values: &Option<Vec<Str>>| {
        let values = values.as_deref().unwrap_or_default();
        match attribute {
            SourceAttribute::Principal => trust_domain::principals(values, context.trust_domains),
            SourceAttribute::TrustDomain => trust_domain::expanded(values, context.trust_domains),
            _ => values.to_vec(),
        }
    };
    let (values, not_values) = (migrated(values), migrated(not_values));
    tests.push(Test { attribute, values, not_values });
}

fn source_tests(source: &Source, context: &Context<'_>) -> Vec<Test<SourceAttribute>> {
    let lists = [
        (SourceAttribute::Principal, &source.principals, &source.not_principals),
        (SourceAttribute::RequestPrincipal, &source.request_principals, &source.not_request_principals),
        (SourceAttribute::ServiceAccount, &source.service_accounts, &source.not_service_accounts),
        (SourceAttribute::TrustDomain, &source.trust_domains, &source.not_trust_domains),
        (SourceAttribute::Namespace, &source.namespaces, &source.not_namespaces),
        (SourceAttribute::RemoteIp, &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        (SourceAttribute::SourceIp, &source.ip_blocks, &source.not_ip_blocks),
    ];
    let mut tests = Vec::new();
    for (attribute, values, not_values) in lists {
        push_source(&mut tests, attribute, values, not_values, context);
    }
    tests
}

fn operation_tests(operation: &Operation) -> Vec<Test<DestinationAttribute>> {
    let lists = [
        (DestinationAttribute::Host, &operation.hosts, &operation.not_hosts),
        (DestinationAttribute::Method, &operation.methods, &operation.not_methods),
        (DestinationAttribute::Path, &operation.paths, &operation.not_paths),
        (DestinationAttribute::Port, &operation.ports, &operation.not_ports),
    ];
    let mut tests = Vec::new();
    for (attribute, values, not_values) in lists {
        push(&mut tests, attribute, values, not_values);
    }
    tests
}
