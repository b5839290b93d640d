use super::*;
use crate::testing;
use meltemi_plan::rate_limit::DescriptorAction as A;
use meltemi_plan::{HeaderKey, RouteAction};
use serde_json::json;

fn policy(actions: Vec<A>) -> RateLimitPolicy {
    RateLimitPolicy { stage: 0, actions }
}

fn header(name: &str, skip_if_absent: bool) -> A {
    A::RequestHeader { header: HeaderKey::parse(name).unwrap(), key: name.into(), skip_if_absent }
}

fn found(own: &[RateLimitPolicy], head: &RequestHead, info: &StreamInfo) -> Vec<String> {
    let counted = Counted { stage: 0, own, host: HostPolicies::Override, service_cluster: "me" };
    let text = |descriptor: Descriptor| {
        let pairs = descriptor.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(" ")
    };
    all(counted, head, info).into_iter().map(text).collect()
}

#[test]
fn each_action_finds_its_entry() {
    let mut info = testing::info();
    info.upstream.cluster = Some(testing::cluster("reviews", json!({})));
    info.find_out("jwt", serde_json::Map::from_iter([("claims".into(), json!({ "sub": "me" }))]));
    let mut head = testing::request(&[("x-one", "1"), ("x-one", "2")]);
    head.path = "/a?u=v".into();
    let metadata = |path: &str, default: &str| A::Metadata {
        key: "claim".into(),
        of_route: false,
        namespace: "jwt".into(),
        path: vec!["claims".into(), path.into()],
        default: default.into(),
        skip_if_absent: false,
    };
    let param = A::QueryParameter { name: "u".into(), key: "user".into(), skip_if_absent: false };
    let cases = [
        (A::SourceCluster, Some("source_cluster=me")),
        (A::DestinationCluster, Some("destination_cluster=reviews")),
        (A::RemoteAddress, Some("remote_address=10.0.0.9")),
        (A::MaskedRemoteAddress { v4: 8, v6: 64 }, Some("masked_remote_address=10.0.0.0/8")),
        (header("x-one", false), Some("x-one=1")),
        (header(":path", false), Some(":path=/a?u=v")),
        (header("x-two", false), None),
        (header("x-two", true), Some("")),
        (param, Some("user=v")),
        (metadata("sub", ""), Some("claim=me")),
        (metadata("other", "nobody"), Some("claim=nobody")),
        (metadata("other", ""), None),
    ];
    for (action, expected) in cases {
        let text = found(&[policy(vec![action.clone()])], &head, &info);
        assert_eq!(text.first().map(String::as_str), expected, "{action:?}");
    }
    let both = vec![A::GenericKey { key: "generic_key".into(), value: "v".into() }, header("x-two", true)];
    assert_eq!(found(&[policy(both)], &head, &info), ["generic_key=v"]);
    let none = vec![A::GenericKey { key: "generic_key".into(), value: "v".into() }, header("x-two", false)];
    assert!(found(&[policy(none)], &head, &info).is_empty());
}

#[test]
fn a_stage_has_its_own_policies_and_the_filters_come_before_the_routes() {
    let mut route = (*testing::route(vec![])).clone();
    let RouteAction::Forward(forward) = &mut route.action else { panic!("no forward") };
    let mut settings = (*forward.settings).clone();
    settings.rate_limits =
        vec![policy(vec![A::RemoteAddress]), RateLimitPolicy { stage: 1, actions: vec![A::SourceCluster] }];
    forward.settings = settings.into();
    let mut info = testing::info();
    info.route = Some(Arc::new(route));
    let head = testing::request(&[]);
    assert_eq!(found(&[], &head, &info), ["remote_address=10.0.0.9"]);
    assert_eq!(found(&[policy(vec![A::SourceCluster])], &head, &info), ["source_cluster=me"]);
    let counted = Counted { stage: 1, own: &[], host: HostPolicies::Override, service_cluster: "me" };
    assert_eq!(all(counted, &head, &info).len(), 1);
}
