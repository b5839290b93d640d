use std::sync::Arc;

use meltemi_plan::Hcm;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_proto::json as proto_json;

use super::*;
use crate::sent::{chains, manager};

#[test]
fn rules_are_found_by_the_names_that_translation_gives_them() {
    let title = |name: &str| Rule::of_name(name).map(|rule| rule.title());
    let expected = Some("AuthorizationPolicy shop/readers spec.rules[2]".to_owned());
    assert_eq!(title("ns[shop]-policy[readers]-rule[2]"), expected);
    assert_eq!(title("istio-ext-authz-door-ns[shop]-policy[readers]-rule[2]"), expected);
    assert_eq!(title("ns[shop]-policy[readers]-rule[2]-deny-due-to-bad-CUSTOM-action"), expected);
    for other in ["", "mine", "ns[shop]", "ns[shop]-policy[readers]-rule[x]"] {
        assert_eq!(title(other), None, "{other:?}");
    }
}

#[test]
fn audit_tells_only_what_it_matched_and_connections_are_closed() {
    assert_eq!(said(RbacAction::Log, true, None, true), None);
    let audited = said(RbacAction::Log, true, Some("ns[a]-policy[b]-rule[0]"), true).unwrap();
    assert_eq!(audited.text(), "AUDIT: AuthorizationPolicy a/b spec.rules[0] matches");
    let closed = said(RbacAction::Deny, false, Some("ns[a]-policy[b]-rule[0]"), false).unwrap();
    assert!(closed.is_refusal() && closed.text().ends_with("so the connection is closed"), "{}", closed.text());
    let broken = said(RbacAction::Deny, false, Some(&format!("ns[a]-policy[b]-rule[0]{BAD_CUSTOM}")), true).unwrap();
    assert!(broken.text().starts_with("CUSTOM without its provider: "), "{}", broken.text());
    assert_eq!(summary(&[]), None);
    assert!(summary(std::slice::from_ref(&audited)).unwrap().starts_with("passed by AUDIT"));
    assert!(summary(&[audited, closed]).unwrap().starts_with("refused by DENY"));
}

/// The connection manager of a listener, with these settings.
fn manager_with(settings: &str) -> Arc<Hcm> {
    let text = format!(
        "
name: l
address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}
filter_chains:
- filters:
  - name: m
    typed_config:
      '@type': type.googleapis.com/{}
      stat_prefix: s
      route_config: {{name: r}}
      http_filters:
      - {{name: r, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
      {settings}
",
        <HttpConnectionManager as meltemi_proto::prost::Name>::full_name()
    );
    let listener = meltemi_plan::listener(&proto_json::from_text(&text).unwrap()).unwrap();
    chains(&listener).find_map(|chain| manager(chain)).unwrap().clone()
}

#[test]
fn the_client_is_the_one_that_trusted_proxies_name() {
    let of = |settings: &str, fields: &[&str]| {
        let headers = fields.iter().map(|value| ("X-Forwarded-For".to_owned(), (*value).to_owned())).collect();
        let request = Request { headers, ..Request::to(([10, 0, 0, 1], 80).into()) };
        facts::forwarded(&request, &manager_with(settings)).map(|client| client.ip().to_string())
    };
    let is = |settings: &str, fields: &[&str], expected: Option<&str>| {
        assert_eq!(of(settings, fields).as_deref(), expected, "{settings} {fields:?}");
    };
    // A sidecar, and a gateway without trusted proxies before it.
    is("", &["1.1.1.1, 2.2.2.2"], Some("2.2.2.2"));
    is("", &[], None);
    is("use_remote_address: true", &["1.1.1.1, 2.2.2.2"], None);
    let behind = |hops: u32| format!("use_remote_address: true\n      xff_num_trusted_hops: {hops}");
    is(&behind(1), &["1.1.1.1, 2.2.2.2"], Some("2.2.2.2"));
    is(&behind(2), &["1.1.1.1", "2.2.2.2"], Some("1.1.1.1"));
    is(&behind(3), &["1.1.1.1, 2.2.2.2"], None);
    is(&behind(1), &["nobody"], None);
    is("xff_num_trusted_hops: 1", &["[2001:db8::1]:80, 2.2.2.2"], Some("2001:db8::1"));
}
