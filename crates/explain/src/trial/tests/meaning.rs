//! What policies mean, said as plainly as Istio's documentation does, against what Envoy and our engine make of the filters that
//! we generate, for policies and requests at random.

use std::net::IpAddr;

use meltemi_config::security::{AuthorizationRule, Condition, Operation, RuleFrom, RuleTo, Source};
use meltemi_model::{Config, Labels, Shared};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use meltemi_config::Str;
use meltemi_config::security::{AuthorizationAction, AuthorizationPolicy};
use meltemi_proto::json::{self as proto_json, Secrets};
use meltemi_translate::authorization::Authorization;
use serde_json::{Value, json};

use super::super::messages::Evaluator;
use super::super::{Call, Certificate, Engine, Step};

/// The mesh's own, and its alias.
const DOMAINS: [&str; 2] = ["new", "old"];

#[derive(Debug, Clone)]
struct Identity {
    domain: &'static str,
    namespace: &'static str,
    account: &'static str,
}

impl Identity {
    fn name(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.domain, self.namespace, self.account)
    }
}

#[derive(Debug, Clone)]
struct Request {
    /// Otherwise it is a connection, of which nothing about HTTP is known.
    http: bool,
    identity: Option<Identity>,
    peer: IpAddr,
    remote: IpAddr,
    sni: &'static str,
    port: u16,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    /// `x-a`
    header: Option<&'static str>,
    /// The claims of a verified token; null without one.
    token: Value,
}

fn is(pattern: &str, found: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => !found.is_empty(),
        (Some(suffix), _) => found.ends_with(suffix),
        (_, Some(prefix)) => found.starts_with(prefix),
        _ => pattern == found,
    }
}

fn in_range(range: &str, address: IpAddr) -> bool {
    match range.parse::<ipnet::IpNet>() {
        Ok(range) => range.contains(&address),
        Err(_) => range.parse() == Ok(address),
    }
}

/// Whether a field with these lists is fulfilled, by what one value means. `None`: of a connection nobody can tell.
fn field(
    values: &Option<Vec<Str>>,
    not_values: &Option<Vec<Str>>,
    told: bool,
    means: impl Fn(&str) -> bool,
) -> Option<bool> {
    if values.is_none() && not_values.is_none() {
        return Some(true);
    }
    let any = |list: &Vec<Str>| list.iter().any(|value| means(value));
    told.then(|| values.as_ref().is_none_or(any) && !not_values.as_ref().is_some_and(any))
}

impl Request {
    fn with_identity(&self, means: impl Fn(&Identity) -> bool) -> bool {
        self.identity.as_ref().is_some_and(means)
    }

    fn is_principal(&self, value: &str) -> bool {
        self.with_identity(|identity| {
            let own = value.split_once('/').filter(|(domain, rest)| {
                rest.split('/').count() == 4 && (*domain == "cluster.local" || DOMAINS.contains(domain))
            });
            match own {
                Some((_, rest)) => DOMAINS
                    .contains(&identity.domain)
                    .then(|| format!("/{rest}"))
                    .is_some_and(|rest| identity.name().ends_with(&rest)),
                None => is(value, &identity.name()),
            }
        })
    }

    fn is_of_domain(&self, value: &str) -> bool {
        self.with_identity(|identity| match DOMAINS.contains(&value) {
            true => DOMAINS.contains(&identity.domain),
            false => is(value, identity.domain),
        })
    }

    fn is_account(&self, value: &str, own_namespace: &str) -> bool {
        let (namespace, account) = value.split_once('/').unwrap_or((own_namespace, value));
        self.with_identity(|identity| identity.namespace == namespace && identity.account == account)
    }

    fn is_request_principal(&self, value: &str) -> bool {
        let claim = |name: &str| self.token[name].as_str().unwrap_or_default().to_owned();
        match value.rsplit_once('/') {
            Some((issuer, subject)) => is(issuer, &claim("iss")) && is(subject, &claim("sub")),
            None => value == "*" && !claim("iss").is_empty() && !claim("sub").is_empty(),
        }
    }

    fn has_group(&self, value: &str) -> bool {
        match &self.token["groups"] {
            Value::String(one) => is(value, one),
            Value::Array(all) => all.iter().filter_map(Value::as_str).any(|one| is(value, one)),
            _ => false,
        }
    }
}

fn source(s: &Source, r: &Request) -> [Option<bool>; 7] {
    [
        field(&s.principals, &s.not_principals, true, |v| r.is_principal(v)),
        field(&s.namespaces, &s.not_namespaces, true, |v| r.with_identity(|i| is(v, i.namespace))),
        field(&s.service_accounts, &s.not_service_accounts, true, |v| r.is_account(v, "a")),
        field(&s.trust_domains, &s.not_trust_domains, true, |v| r.is_of_domain(v)),
        field(&s.ip_blocks, &s.not_ip_blocks, true, |v| in_range(v, r.peer)),
        field(&s.remote_ip_blocks, &s.not_remote_ip_blocks, true, |v| in_range(v, r.remote)),
        field(&s.request_principals, &s.not_request_principals, r.http, |v| r.is_request_principal(v)),
    ]
}

fn operation(o: &Operation, r: &Request) -> [Option<bool>; 4] {
    [
        field(&o.hosts, &o.not_hosts, r.http, |v| is(&v.to_lowercase(), &r.host.to_lowercase())),
        field(&o.methods, &o.not_methods, r.http, |v| is(v, r.method)),
        field(&o.paths, &o.not_paths, r.http, |v| is(v, r.path)),
        field(&o.ports, &o.not_ports, true, |v| v == r.port.to_string()),
    ]
}

fn condition(c: &Condition, r: &Request) -> Option<bool> {
    let of = |told: bool, means: &dyn Fn(&str) -> bool| field(&c.values, &c.not_values, told, means);
    match &*c.key {
        "source.ip" => of(true, &|v| in_range(v, r.peer)),
        "source.namespace" => of(true, &|v| r.with_identity(|i| is(v, i.namespace))),
        "connection.sni" => of(true, &|v| is(v, r.sni)),
        "destination.port" => of(true, &|v| v == r.port.to_string()),
        "request.headers[x-a]" => of(r.http, &|v| r.header.is_some_and(|found| v == "*" || is(v, found))),
        "request.auth.claims[groups]" => of(r.http, &|v| r.has_group(v)),
        other => panic!("{other}"),
    }
}

/// What cannot be told of a connection makes an ALLOW rule void, and counts for nothing in a DENY rule.
fn rule(rule: &AuthorizationRule, allow: bool, r: &Request) -> bool {
    let from: Vec<Vec<Option<bool>>> =
        rule.from.iter().flatten().map(|from| source(from.source.as_ref().unwrap(), r).to_vec()).collect();
    let to: Vec<Vec<Option<bool>>> =
        rule.to.iter().flatten().map(|to| operation(to.operation.as_ref().unwrap(), r).to_vec()).collect();
    let when: Vec<Option<bool>> = rule.when.iter().flatten().map(|one| condition(one, r)).collect();
    let untold = from.iter().chain(&to).flatten().chain(&when).any(Option::is_none);
    if allow && untold {
        return false;
    }
    let holds = |list: &[Option<bool>]| list.iter().all(|one| one.unwrap_or(true));
    let one_holds = |lists: &[Vec<Option<bool>>]| lists.is_empty() || lists.iter().any(|list| holds(list));
    one_holds(&from) && one_holds(&to) && holds(&when)
}

/// Nothing that is denied, and where there are ALLOW policies only what they allow.
fn is_allowed(policies: &[AuthorizationPolicy], r: &Request) -> bool {
    let matched = |action: AuthorizationAction| {
        let own = policies.iter().filter(move |policy| policy.action == action);
        own.flat_map(|policy| &policy.rules).any(|one| rule(one, action == AuthorizationAction::Allow, r))
    };
    let allows = policies.iter().any(|policy| policy.action == AuthorizationAction::Allow);
    !matched(AuthorizationAction::Deny) && (!allows || matched(AuthorizationAction::Allow))
}

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<Str>>> {
    of(vec(select(values).prop_map(Str::from), 1..3))
}

const PRINCIPALS: &[&str] =
    &["cluster.local/ns/x/sa/web", "old/ns/x/sa/web", "far/ns/y/sa/db", "*", "*/sa/web", "far/*"];
const NAMESPACES: &[&str] = &["x", "y", "x*", "*y", "*"];
const ACCOUNTS: &[&str] = &["web", "x/web", "y/db"];
const TRUST_DOMAINS: &[&str] = &["new", "old", "far", "f*", "*"];
const RANGES: &[&str] = &["10.0.0.1", "10.0.0.0/24", "0.0.0.0/0", "fd00::/8"];
const REQUEST_PRINCIPALS: &[&str] = &["iss/me", "iss/*", "*/me", "*", "iss/m*"];
const HOSTS: &[&str] = &["A.com", "*.com", "a*", "*"];
const METHODS: &[&str] = &["GET", "P*", "*T", "*"];
const PATHS: &[&str] = &["/a", "/a*", "*/b", "*"];
const PORTS: &[&str] = &["80", "443"];

fn sources() -> impl Strategy<Value = RuleFrom> {
    let identities = (
        (one_of(PRINCIPALS), one_of(PRINCIPALS)),
        (one_of(NAMESPACES), one_of(NAMESPACES)),
        (one_of(ACCOUNTS), one_of(ACCOUNTS)),
        (one_of(TRUST_DOMAINS), one_of(TRUST_DOMAINS)),
    );
    let others = (
        (one_of(RANGES), one_of(RANGES)),
        (one_of(RANGES), one_of(RANGES)),
        (one_of(REQUEST_PRINCIPALS), one_of(REQUEST_PRINCIPALS)),
    );
    // Few fields at once, as most of many would contradict each other.
    (identities, others, 0..7_usize, 0..7_usize).prop_map(|((p, n, s, t), (i, r, q), first, second)| {
        let keep = |place: usize, pair: (Option<Vec<Str>>, Option<Vec<Str>>)| {
            if place == first || place == second { pair } else { (None, None) }
        };
        let (principals, not_principals) = keep(0, p);
        let (namespaces, not_namespaces) = keep(1, n);
        let (service_accounts, not_service_accounts) = keep(2, s);
        let (trust_domains, not_trust_domains) = keep(3, t);
        let (ip_blocks, not_ip_blocks) = keep(4, i);
        let (remote_ip_blocks, not_remote_ip_blocks) = keep(5, r);
        let (request_principals, not_request_principals) = keep(6, q);
        let source = Source {
            principals,
            not_principals,
            request_principals,
            not_request_principals,
            namespaces,
            not_namespaces,
            service_accounts,
            not_service_accounts,
            ip_blocks,
            not_ip_blocks,
            remote_ip_blocks,
            not_remote_ip_blocks,
            trust_domains,
            not_trust_domains,
        };
        RuleFrom { source: Some(source) }
    })
}

fn operations() -> impl Strategy<Value = RuleTo> {
    let fields = (
        (one_of(HOSTS), one_of(HOSTS)),
        (one_of(METHODS), one_of(METHODS)),
        (one_of(PATHS), one_of(PATHS)),
        (one_of(PORTS), one_of(PORTS)),
    );
    fields.prop_map(|((hosts, not_hosts), (methods, not_methods), (paths, not_paths), (ports, not_ports))| {
        let operation = Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths };
        RuleTo { operation: Some(operation) }
    })
}

fn conditions() -> impl Strategy<Value = Condition> {
    let keys: [(&str, &'static [&'static str]); 6] = [
        ("source.ip", RANGES),
        ("source.namespace", NAMESPACES),
        ("connection.sni", HOSTS),
        ("destination.port", PORTS),
        ("request.headers[x-a]", PATHS),
        ("request.auth.claims[groups]", METHODS),
    ];
    select(keys.to_vec()).prop_flat_map(|(key, values)| {
        (one_of(values), one_of(values)).prop_map(move |(values, not_values)| Condition {
            key: key.into(),
            values,
            not_values,
        })
    })
}

fn rules() -> impl Strategy<Value = AuthorizationRule> {
    (of(vec(sources(), 1..3)), of(vec(operations(), 1..3)), of(vec(conditions(), 1..3)))
        .prop_map(|(from, to, when)| AuthorizationRule { from, to, when })
}

fn policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let actions = vec![AuthorizationAction::Allow, AuthorizationAction::Deny];
    let policy = (select(actions), vec(rules(), 0..3));
    let policy = policy.prop_map(|(action, rules)| AuthorizationPolicy { action, rules, ..Default::default() });
    vec(policy, 0..4)
}

fn requests() -> impl Strategy<Value = Request> {
    let names = (select(vec!["new", "old", "far"]), select(vec!["x", "y", "xy"]), select(vec!["web", "webs", "db"]));
    let identity = of(names.prop_map(|(domain, namespace, account)| Identity { domain, namespace, account }));
    let address = || select(vec!["10.0.0.1", "10.0.0.9", "10.9.9.9", "fd00::1"]).prop_map(|text| text.parse().unwrap());
    let token = select(vec![
        Value::Null,
        json!({"iss": "iss", "sub": "me"}),
        json!({"iss": "iss", "sub": "you", "groups": ["GET", "x"]}),
        json!({"iss": "other", "sub": "me", "groups": "PUT"}),
    ]);
    let connection = (any::<bool>(), identity, address(), address(), select(vec!["", "a.com", "b.org"]));
    let http = (
        select(vec![80_u16, 443, 1]),
        select(vec!["GET", "PUT", "POST"]),
        select(vec!["a.com", "b.org"]),
        select(vec!["/a", "/a/b", "/c"]),
        of(select(vec!["/a", "/b", ""])),
        token,
    );
    (connection, http).prop_map(|((http, identity, peer, remote, sni), (port, method, host, path, header, token))| {
        Request { http, identity, peer, remote, sni, port, method, host, path, header, token }
    })
}

fn authorization(policies: &[AuthorizationPolicy]) -> Authorization {
    let config = |(index, spec): (usize, &AuthorizationPolicy)| {
        Shared::new(Config {
            name: format!("p{index}").into(),
            namespace: "a".into(),
            labels: Labels::new(),
            annotations: Labels::new(),
            creation: None,
            spec: std::sync::Arc::new(spec.clone()),
        })
    };
    Authorization {
        policies: policies.iter().enumerate().map(config).collect(),
        trust_domains: DOMAINS.map(Str::from).to_vec(),
        ..Authorization::default()
    }
}

/// The same request, as it is evaluated.
fn call(request: &Request) -> Call {
    let uri = |identity: &Identity| Certificate::of_uri(format!("spiffe://{}", identity.name()));
    let mut call = Call {
        certificate: request.identity.as_ref().map(uri),
        source: request.peer,
        remote: request.remote,
        server_name: request.sni.into(),
        method: request.method.into(),
        host: request.host.into(),
        path: request.path.into(),
        headers: request.header.iter().map(|value| ("x-a".to_owned(), (*value).to_owned())).collect(),
        ..Call::plain(request.http)
    };
    call.destination.set_port(request.port);
    for (claim, value) in request.token.as_object().into_iter().flatten() {
        call.claim(std::slice::from_ref(claim), Some(value.clone()));
    }
    call
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn filters_allow_what_policies_mean(policies in policies(), requests in vec(requests(), 8)) {
        let authorization = authorization(&policies);
        let http: Vec<_> = authorization.local_http().iter().map(|one| proto_json::to_value(one, Secrets::Shown)).collect();
        let tcp: Vec<_> = authorization.local_tcp().iter().map(|one| proto_json::to_value(one, Secrets::Shown)).collect();
        let evaluator = Evaluator::default();
        let engines = [Engine::of(&tcp, false).unwrap(), Engine::of(&http, true).unwrap()];
        for request in &requests {
            let filters = if request.http { &http } else { &tcp };
            let call = call(request);
            let steps = evaluator.decide(filters, &call).unwrap();
            prop_assert_eq!(!steps.iter().any(Step::is_denial), is_allowed(&policies, request), "{:?}", request);
            prop_assert_eq!(engines[usize::from(request.http)].decide(&call), steps, "{:?}", request);
        }
    }
}
