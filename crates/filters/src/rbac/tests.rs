//! The engine against an evaluator that is slow and obvious: everything is text, networks are bits, and every policy is looked
//! at.

use super::*;
use crate::testing;
use meltemi_http::Method;
use meltemi_matchers::{PathMatcher, PathTemplate, StringMatcher, StringPattern};
use meltemi_plan::HeaderKey;
use meltemi_plan::header::HeaderTest;
use meltemi_plan::rbac::ValueMatcher;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

const WORDS: &[&str] = &["a", "b", "ab", "A", ""];
const PATHS: &[&str] = &["/", "/a", "/a/b", "/ab?x=/a", "/A/b", "/a/b/c"];
const TEMPLATES: &[&str] = &["/*", "/a/*", "/**", "/a/**", "/*/b"];
const NETS: &[&str] = &["10.0.0.0/8", "10.0.0.9/32", "0.0.0.0/0", "127.0.0.0/8", "::/0"];
const ADDRESSES: &[&str] = &["10.0.0.9:1", "10.9.9.9:2", "127.0.0.1:3", "[::1]:4"];

fn text() -> impl Strategy<Value = StringMatcher> {
    let pattern = prop::sample::select(WORDS).prop_flat_map(|word| {
        prop_oneof![
            Just(StringMatcher::exact(word)),
            Just(StringMatcher::prefix(word)),
            Just(StringMatcher::suffix(word)),
            Just(StringMatcher::contains(word)),
        ]
    });
    (pattern, any::<bool>()).prop_map(|(matcher, fold)| matcher.ignoring_case(fold))
}

fn path() -> impl Strategy<Value = PathMatcher> {
    (prop::sample::select(PATHS), text()).prop_map(|(path, mut matcher)| {
        if let StringPattern::Exact(_) = matcher.pattern {
            matcher.pattern = StringPattern::Exact(path.into());
        }
        PathMatcher(matcher)
    })
}

fn net() -> impl Strategy<Value = ipnet::IpNet> {
    prop::sample::select(NETS).prop_map(|net| net.parse().unwrap())
}

fn header() -> impl Strategy<Value = HeaderMatcher> {
    (text(), any::<bool>(), any::<bool>()).prop_map(|(matcher, present, invert)| HeaderMatcher {
        key: HeaderKey::parse("x-one").unwrap(),
        test: if present { HeaderTest::Present } else { HeaderTest::String(matcher) },
        invert,
        missing_as_empty: false,
    })
}

fn metadata() -> impl Strategy<Value = MetadataMatcher> {
    (text(), any::<bool>(), any::<bool>()).prop_map(|(matcher, listed, invert)| {
        let value = ValueMatcher::String(matcher);
        MetadataMatcher {
            filter: "jwt".into(),
            path: vec!["payload".into(), "claim".into()],
            value: if listed { ValueMatcher::AnyElement(Box::new(value)) } else { value },
            invert,
        }
    })
}

fn permission() -> impl Strategy<Value = Permission> {
    let leaf = prop_oneof![
        Just(Permission::Any),
        header().prop_map(Permission::Header),
        path().prop_map(Permission::Path),
        prop::sample::select(TEMPLATES).prop_map(|template| Permission::Template(PathTemplate::new(template).unwrap())),
        net().prop_map(Permission::DestinationIp),
        prop::sample::select(&[80u16, 9080][..]).prop_map(Permission::DestinationPort),
        (0u32..9081, 1u32..100).prop_map(|(start, more)| Permission::DestinationPortRange { start, end: start + more }),
        metadata().prop_map(Permission::Metadata),
        text().prop_map(Permission::ServerName),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Permission::And),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Permission::Or),
            inner.prop_map(|one| Permission::Not(Box::new(one))),
        ]
    })
}

fn principal() -> impl Strategy<Value = Principal> {
    let leaf = prop_oneof![
        Just(Principal::Any),
        prop::option::of(text()).prop_map(Principal::Authenticated),
        net().prop_map(Principal::DirectRemoteIp),
        net().prop_map(Principal::RemoteIp),
        header().prop_map(Principal::Header),
        path().prop_map(Principal::Path),
        metadata().prop_map(Principal::Metadata),
        text().prop_map(|matcher| Principal::FilterState { key: "key".into(), matcher }),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Principal::And),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Principal::Or),
            inner.prop_map(|one| Principal::Not(Box::new(one))),
        ]
    })
}

fn rules() -> impl Strategy<Value = Rbac> {
    let policy = (prop::collection::vec(permission(), 1..3), prop::collection::vec(principal(), 1..3));
    let action = prop::sample::select(&[RbacAction::Allow, RbacAction::Deny, RbacAction::Log][..]);
    (action, prop::collection::vec(policy, 0..4)).prop_map(|(action, policies)| Rbac {
        action,
        policies: policies
            .into_iter()
            .enumerate()
            .map(|(n, (permissions, principals))| RbacPolicy { name: format!("p{n}").into(), permissions, principals })
            .collect(),
    })
}

/// A request as plain values.
#[derive(Debug, Clone)]
struct Case {
    path: &'static str,
    /// Values of `x-one`.
    header: Vec<&'static str>,
    remote: &'static str,
    local: &'static str,
    trusted: &'static str,
    sni: &'static str,
    uri_sans: Vec<&'static str>,
    dns_sans: Vec<&'static str>,
    tls: bool,
    claim: Option<serde_json::Value>,
    state: Option<&'static str>,
}

fn case() -> impl Strategy<Value = Case> {
    let word = || prop::sample::select(WORDS);
    let address = || prop::sample::select(ADDRESSES);
    let claim = prop_oneof![
        Just(None),
        word().prop_map(|word| Some(json!(word))),
        prop::collection::vec(word(), 0..3).prop_map(|words| Some(json!(words))),
    ];
    let names = || prop::collection::vec(word(), 0..3);
    let connection = (address(), address(), address(), word(), (names(), names()), any::<bool>());
    let request = (prop::sample::select(PATHS), names(), claim, prop::option::of(word()));
    (connection, request).prop_map(|(connection, (path, header, claim, state))| {
        let (remote, local, trusted, sni, (uri_sans, dns_sans), tls) = connection;
        Case { path, header, remote, local, trusted, sni, uri_sans, dns_sans, tls, claim, state }
    })
}

impl Case {
    fn built(&self) -> (RequestHead, StreamInfo) {
        let address = |text: &str| Address::Socket(text.parse().unwrap());
        let mut connection = crate::ConnectionInfo::new(address(self.remote), address(self.local));
        connection.requested_server_name = Some(self.sni.into());
        let peer = meltemi_tls::PeerInfo {
            uri_sans: self.uri_sans.iter().map(|san| (*san).to_owned()).collect(),
            dns_sans: self.dns_sans.iter().map(|san| (*san).to_owned()).collect(),
            subject: "subject".into(),
            ..meltemi_tls::PeerInfo::default()
        };
        connection.tls = self.tls.then(|| crate::TlsInfo { peer: Some(Arc::new(peer)), ..crate::TlsInfo::default() });
        let mut info = StreamInfo::new(std::rc::Rc::new(connection));
        info.remote = address(self.trusted);
        if let Some(claim) = &self.claim {
            info.find_out("jwt", serde_json::Map::from_iter([("payload".into(), json!({ "claim": claim }))]));
        }
        if let Some(state) = self.state {
            info.set_state("key", state);
        }
        let mut head = RequestHead::new(Method::GET, "host", self.path);
        let fields: Vec<_> = self.header.iter().map(|value| ("x-one", *value)).collect();
        head.headers = testing::headers(&fields);
        (head, info)
    }

    fn text(matcher: &StringMatcher, value: &str) -> bool {
        let fold = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        let value = fold(value);
        match &matcher.pattern {
            StringPattern::Exact(text) => value == fold(text),
            StringPattern::Prefix(text) => value.find(&fold(text)) == Some(0),
            StringPattern::Suffix(text) => {
                value.chars().rev().collect::<String>().starts_with(&fold(text).chars().rev().collect::<String>())
            }
            StringPattern::Contains(text) => value.split(&fold(text)).count() > 1,
            StringPattern::Regex(_) => unreachable!("not generated"),
        }
    }

    fn bits(ip: IpAddr) -> String {
        match ip {
            IpAddr::V4(ip) => format!("4{:032b}", u32::from(ip)),
            IpAddr::V6(ip) => format!("6{:0128b}", u128::from(ip)),
        }
    }

    fn within(net: ipnet::IpNet, address: &str) -> bool {
        let length = usize::from(net.prefix_len()) + 1;
        let ip = address.parse::<std::net::SocketAddr>().unwrap().ip();
        Self::bits(net.addr())[..length] == Self::bits(ip)[..length]
    }

    fn path_only(&self) -> &str {
        self.path.split('?').next().unwrap()
    }

    fn header(&self, matcher: &HeaderMatcher) -> bool {
        let found = match &matcher.test {
            HeaderTest::Present => !self.header.is_empty(),
            // A header that is not there has no value to compare, inverted or not.
            HeaderTest::String(_) if self.header.is_empty() => return false,
            HeaderTest::String(text) => self.header.iter().filter(|value| Self::text(text, value)).count() > 0,
            HeaderTest::Range { .. } => unreachable!("not generated"),
        };
        found != matcher.invert
    }

    fn metadata(&self, matcher: &MetadataMatcher) -> bool {
        let found = match (&matcher.value, &self.claim) {
            (ValueMatcher::String(text), Some(serde_json::Value::String(value))) => Self::text(text, value),
            (ValueMatcher::AnyElement(inner), Some(serde_json::Value::Array(list))) => {
                let ValueMatcher::String(text) = &**inner else { unreachable!("not generated") };
                list.iter().filter_map(|item| item.as_str()).filter(|item| Self::text(text, item)).count() > 0
            }
            _ => false,
        };
        found != matcher.invert
    }

    fn template(&self, template: &PathTemplate) -> bool {
        let segments: Vec<&str> = self.path_only().split('/').skip(1).collect();
        let is = |text: &str| *template == PathTemplate::new(text).unwrap();
        match segments.as_slice() {
            _ if is("/**") => true,
            [one] => is("/*") && !one.is_empty(),
            ["a", rest @ ..] if is("/a/**") => !rest.is_empty(),
            ["a", one] if is("/a/*") => !one.is_empty(),
            [one, "b"] if is("/*/b") => !one.is_empty(),
            _ => false,
        }
    }

    fn permitted(&self, permission: &Permission) -> bool {
        let port = self.local.rsplit(':').next().unwrap().parse::<u32>().unwrap();
        match permission {
            Permission::And(all) => all.iter().filter(|one| !self.permitted(one)).count() == 0,
            Permission::Or(any) => any.iter().filter(|one| self.permitted(one)).count() > 0,
            Permission::Not(one) => !self.permitted(one),
            Permission::Any => true,
            Permission::Header(matcher) => self.header(matcher),
            Permission::Path(matcher) => Self::text(&matcher.0, self.path_only()),
            Permission::Template(template) => self.template(template),
            Permission::DestinationIp(net) => Self::within(*net, self.local),
            Permission::DestinationPort(wanted) => port == u32::from(*wanted),
            Permission::DestinationPortRange { start, end } => port >= *start && port < *end,
            Permission::Metadata(matcher) => self.metadata(matcher),
            Permission::ServerName(matcher) => Self::text(matcher, self.sni),
        }
    }

    fn is(&self, principal: &Principal) -> bool {
        match principal {
            Principal::And(all) => all.iter().filter(|one| !self.is(one)).count() == 0,
            Principal::Or(any) => any.iter().filter(|one| self.is(one)).count() > 0,
            Principal::Not(one) => !self.is(one),
            Principal::Any => true,
            Principal::Authenticated(None) => self.tls,
            Principal::Authenticated(Some(matcher)) => {
                let names = [self.uri_sans.as_slice(), &self.dns_sans, &["subject"]].concat();
                self.tls && names.iter().filter(|name| Self::text(matcher, name)).count() > 0
            }
            Principal::DirectRemoteIp(net) => Self::within(*net, self.remote),
            Principal::RemoteIp(net) => Self::within(*net, self.trusted),
            Principal::Header(matcher) => self.header(matcher),
            Principal::Path(matcher) => Self::text(&matcher.0, self.path_only()),
            Principal::Metadata(matcher) => self.metadata(matcher),
            Principal::FilterState { matcher, .. } => self.state.is_some_and(|state| Self::text(matcher, state)),
        }
    }

    fn verdict<'a>(&self, rules: &'a Rbac) -> Verdict<'a> {
        let mut matching: Vec<&str> = Vec::new();
        for policy in &rules.policies {
            let permitted = policy.permissions.iter().filter(|one| self.permitted(one)).count();
            let is = policy.principals.iter().filter(|one| self.is(one)).count();
            if permitted * is > 0 {
                matching.push(&policy.name);
            }
        }
        let allowed = match (rules.action, matching.len()) {
            (RbacAction::Log, _) | (RbacAction::Allow, 1..) | (RbacAction::Deny, 0) => true,
            (RbacAction::Allow, 0) | (RbacAction::Deny, 1..) => false,
        };
        Verdict { allowed, policy: matching.first().copied() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_engine_says_what_an_obvious_evaluator_says(rules in rules(), case in case()) {
        let (head, info) = case.built();
        prop_assert_eq!(evaluate(&rules, Some(&head), &info), case.verdict(&rules));
    }
}

#[test]
fn a_certificate_is_known_by_each_of_its_names() {
    let case = Case {
        path: "/",
        header: Vec::new(),
        remote: "10.0.0.9:1",
        local: "127.0.0.1:3",
        trusted: "10.0.0.9:1",
        sni: "",
        uri_sans: vec!["spiffe://a/ns/b/sa/c"],
        dns_sans: vec!["web.example.com"],
        tls: true,
        claim: None,
        state: None,
    };
    let (head, info) = case.built();
    let denies = |name: &str| {
        let principals = vec![Principal::Authenticated(Some(StringMatcher::exact(name)))];
        let policy = RbacPolicy { name: "p".into(), permissions: vec![Permission::Any], principals };
        !evaluate(&Rbac { action: RbacAction::Deny, policies: vec![policy] }, Some(&head), &info).allowed
    };
    for name in ["spiffe://a/ns/b/sa/c", "web.example.com", "subject"] {
        assert!(denies(name), "{name}");
    }
    assert!(!denies("spiffe://a/ns/b/sa/d"));
}

/// CVE-2026-26308.
#[test]
fn a_repeated_field_hides_none_of_its_values_from_a_rule() {
    let request = |values: &[&str]| {
        let fields: Vec<_> = values.iter().map(|value| ("x-role", *value)).collect();
        let mut head = RequestHead::new(Method::GET, "host", "/");
        head.headers = testing::headers(&fields);
        head
    };
    let matcher = HeaderMatcher {
        key: HeaderKey::parse("x-role").unwrap(),
        test: HeaderTest::String(StringMatcher::exact("admin")),
        invert: false,
        missing_as_empty: false,
    };
    let header = Permission::Header(matcher);
    let allowed = |action: RbacAction, permission: &Permission, values: &[&str]| {
        let (permissions, principals) = (vec![permission.clone()], vec![Principal::Any]);
        let policies = vec![RbacPolicy { name: "p".into(), permissions, principals }];
        let info = testing::info();
        evaluate(&Rbac { action, policies }, Some(&request(values)), &info).allowed
    };
    let not = Permission::Not(Box::new(header.clone()));
    for values in [&["user", "admin"][..], &["admin", "user"], &["a", "admin", "b"]] {
        assert!(!allowed(RbacAction::Deny, &header, values), "{values:?}");
        assert!(!allowed(RbacAction::Allow, &not, values), "{values:?}");
        assert!(allowed(RbacAction::Allow, &header, values), "{values:?}");
    }
    assert!(allowed(RbacAction::Deny, &header, &["user", "guest"]));
    assert!(!allowed(RbacAction::Deny, &not, &["user", "guest"]));
}

#[test]
fn shadow_rules_tell_their_result_and_policy() {
    let denied = Verdict { allowed: false, policy: Some("ns[a]-policy[b]-rule[0]") };
    let expected = json!({ "istio_dry_run_shadow_engine_result": "denied",
        "istio_dry_run_shadow_effective_policy_id": "ns[a]-policy[b]-rule[0]" });
    assert_eq!(serde_json::Value::Object(denied.as_metadata("istio_dry_run_")), expected);
    assert_eq!(denial(denied.policy), "rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]");
    assert_eq!(denial(None), "rbac_access_denied_matched_policy[none]");
}

#[test]
fn a_verdict_in_words_names_the_policy_and_its_rule() {
    let verdict = Verdict { allowed: false, policy: Some("ns[a]-policy[b]-rule[0]") };
    assert_eq!(verdict.in_words("shadow"), "shadow denied, matched policy ns[a]-policy[b]-rule[0]");
    assert_eq!(Verdict { allowed: true, policy: None }.in_words("enforced"), "enforced allowed, matched policy none");
}
