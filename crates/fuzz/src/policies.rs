//! What decides whether a request may pass: rules, and the path that they see.

use meltemi_filters::{ConnectionInfo, StreamInfo, rbac};
use meltemi_http::{Method, RequestHead};
use meltemi_matchers::{PathMatcher, PathTemplate, StringMatcher, StringPattern};
use meltemi_plan::hcm::EscapedSlashes;
use meltemi_plan::header::HeaderTest;
use meltemi_plan::rbac::{Permission, Principal, RbacPolicy};
use meltemi_plan::{HeaderKey, HeaderMatcher, Rbac, RbacAction};
use meltemi_proxy::hcm::{Normalized, normalize};
use std::net::SocketAddr;
use std::rc::Rc;

/// A path, after one byte of settings. Its normal form is normal, keeps its query, has nothing left that the settings take away, and
/// is what rules see: a rule for exactly what goes upstream holds of it.
pub fn path_normalization(data: &[u8]) {
    let Some((settings, path)) = data.split_first() else { return };
    let Ok(path) = std::str::from_utf8(path) else { return };
    let (dots, merge) = (settings & 1 != 0, settings & 2 != 0);
    let escaped = [
        EscapedSlashes::Keep,
        EscapedSlashes::Reject,
        EscapedSlashes::UnescapeAndForward,
        EscapedSlashes::UnescapeAndRedirect,
    ][usize::from(settings >> 2 & 3)];
    let (Normalized::Changed(normal) | Normalized::Redirect(normal)) = normalize(path, dots, merge, escaped) else {
        return;
    };
    assert_eq!(normalize(&normal, dots, merge, escaped), Normalized::Same, "{path:?} became {normal:?}");
    let end = normal.find(['?', '#']).unwrap_or(normal.len());
    let (plain, query) = normal.split_at(end);
    let before = path.find(['?', '#']).map_or("", |at| &path[at..]);
    assert!(query == before && plain.len() <= path.len(), "{path:?} became {normal:?}");
    let (dotted, lower) = (|segment: &str| [".", ".."].contains(&segment), plain.to_ascii_lowercase());
    let left = [
        merge && plain.contains("//"),
        dots && (plain.split('/').any(dotted) || plain.contains('\\')),
        escaped != EscapedSlashes::Keep && (lower.contains("%2f") || lower.contains("%5c")),
    ];
    assert_eq!(left, [false; 3], "{path:?} became {normal:?}");
    let head = RequestHead::new(Method::GET, "host", &*normal);
    let exactly = Permission::Path(PathMatcher(StringMatcher::exact(plain)));
    assert!(allows(exactly, Principal::Any, Some(&head)), "{normal:?}");
}

/// Rules made of the bytes, and a request: what a rule says does not depend on how it is put.
pub fn rbac_rules(data: &[u8]) {
    let mut bytes = Bytes(data);
    let path = format!("/{}?{}", bytes.word(), bytes.word());
    let mut head = RequestHead::new(Method::GET, bytes.word(), path);
    if let Ok(value) = meltemi_http::HeaderValue::from_str(&bytes.word()) {
        head.headers.append(meltemi_http::HeaderName::from_static("x-one"), value);
    }
    let (permission, principal) = (bytes.permission(6), bytes.principal(6));
    for head in [Some(&head), None] {
        let (may, is) =
            (allows(permission.clone(), Principal::Any, head), allows(Permission::Any, principal.clone(), head));
        assert_eq!(allows(permission.clone(), principal.clone(), head), may && is);
        assert_eq!(allows(Permission::Not(Box::new(permission.clone())), Principal::Any, head), !may);
        assert_eq!(allows(Permission::Any, Principal::Not(Box::new(principal.clone())), head), !is);
        let both = Permission::And(vec![permission.clone(), Permission::Not(Box::new(permission.clone()))]);
        let either = Permission::Or(vec![permission.clone(), Permission::Not(Box::new(permission.clone()))]);
        assert!(!allows(both, Principal::Any, head) && allows(either, Principal::Any, head));
        let rules = |action| rules(action, permission.clone(), principal.clone());
        let denied = !rbac::evaluate(&rules(RbacAction::Deny), head, &info()).allowed;
        assert_eq!(denied, may && is, "what ALLOW lets in DENY keeps out");
        assert!(rbac::evaluate(&rules(RbacAction::Log), head, &info()).allowed);
    }
}

fn rules(action: RbacAction, permission: Permission, principal: Principal) -> Rbac {
    let policy = RbacPolicy { name: "fuzz".into(), permissions: vec![permission], principals: vec![principal] };
    Rbac { action, policies: vec![policy] }
}

fn allows(permission: Permission, principal: Principal, head: Option<&RequestHead>) -> bool {
    rbac::evaluate(&rules(RbacAction::Allow, permission, principal), head, &info()).allowed
}

fn info() -> StreamInfo {
    let address = |port| SocketAddr::from(([10, 0, 0, 9], port));
    StreamInfo::new(Rc::new(ConnectionInfo::new(address(40_000).into(), address(8080).into())))
}

/// Bytes that are read as what is wanted; where they end, as zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// At most seven characters that a path may have.
    fn word(&mut self) -> String {
        let length = self.byte() & 7;
        (0..length).map(|_| char::from(self.byte() & 0x3f | 0x40)).filter(|c| c.is_ascii_graphic()).collect()
    }

    fn text(&mut self) -> StringMatcher {
        let (kind, word) = (self.byte(), self.word());
        let pattern = match kind & 3 {
            0 => StringPattern::Exact(word.into()),
            1 => StringPattern::Prefix(word.into()),
            2 => StringPattern::Suffix(word.into()),
            _ => StringPattern::Contains(word.into()),
        };
        StringMatcher { pattern, ignore_case: kind & 4 != 0 }
    }

    fn header(&mut self) -> Option<HeaderMatcher> {
        let kind = self.byte();
        let key = HeaderKey::parse(if kind & 1 == 0 { "x-one" } else { ":path" }).ok()?;
        let test = if kind & 2 == 0 { HeaderTest::Present } else { HeaderTest::String(self.text()) };
        Some(HeaderMatcher { key, test, invert: kind & 4 != 0, missing_as_empty: kind & 8 != 0 })
    }

    fn net(&mut self) -> Option<ipnet::IpNet> {
        let (last, length) = (self.byte(), self.byte() % 33);
        ipnet::IpNet::new([10, 0, 0, last].into(), length).ok()
    }

    fn permission(&mut self, depth: u8) -> Permission {
        let kind = self.byte();
        let leaf = match kind % 10 {
            0 if depth > 0 => return Permission::And((0..kind >> 6).map(|_| self.permission(depth - 1)).collect()),
            1 if depth > 0 => return Permission::Or((0..kind >> 6).map(|_| self.permission(depth - 1)).collect()),
            2 if depth > 0 => return Permission::Not(Box::new(self.permission(depth - 1))),
            3 => self.header().map(Permission::Header),
            4 => Some(Permission::Path(PathMatcher(self.text()))),
            5 => self.net().map(Permission::DestinationIp),
            6 => Some(Permission::DestinationPort(u16::from(self.byte()) + 8000)),
            7 => PathTemplate::new(&format!("/{}/*", self.word())).ok().map(Permission::Template),
            8 => Some(Permission::ServerName(self.text())),
            _ => None,
        };
        leaf.unwrap_or(Permission::Any)
    }

    fn principal(&mut self, depth: u8) -> Principal {
        let kind = self.byte();
        let leaf = match kind % 9 {
            0 if depth > 0 => return Principal::And((0..kind >> 6).map(|_| self.principal(depth - 1)).collect()),
            1 if depth > 0 => return Principal::Or((0..kind >> 6).map(|_| self.principal(depth - 1)).collect()),
            2 if depth > 0 => return Principal::Not(Box::new(self.principal(depth - 1))),
            3 => self.header().map(Principal::Header),
            4 => Some(Principal::Path(PathMatcher(self.text()))),
            5 => self.net().map(Principal::DirectRemoteIp),
            6 => self.net().map(Principal::RemoteIp),
            7 => Some(Principal::Authenticated((kind & 0x40 != 0).then(|| self.text()))),
            _ => None,
        };
        leaf.unwrap_or(Principal::Any)
    }
}
