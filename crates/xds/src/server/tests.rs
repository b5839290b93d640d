use meltemi_proto::google::rpc::Status;

use super::*;
use crate::types::{CLUSTER, ENDPOINT, LISTENER, ROUTE};

fn resource(name: &str, version: &str) -> Resource {
    Resource {
        name: name.into(),
        version: version.into(),
        body: Arc::new(Any { type_url: String::new(), value: name.to_owned().into() }),
    }
}

fn set(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn delta() -> Session {
    Session::new(Variant::Delta, 1, "test".into())
}

fn sotw() -> Session {
    Session::new(Variant::StateOfTheWorld, 1, "".into())
}

fn subscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names.iter().map(|name| name.to_string()).collect(),
        ..Default::default()
    }
}

fn unsubscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_unsubscribe: names.iter().map(|name| name.to_string()).collect(),
        ..Default::default()
    }
}

fn ask(type_url: &str, names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names: names.iter().map(|name| name.to_string()).collect(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    }
}

/// Names sent and names removed.
fn said(response: Option<Response>) -> Option<(Vec<String>, Vec<String>)> {
    let response = response?;
    Some(match response.variant {
        Variant::Delta => {
            let response = response.to_delta();
            (response.resources.into_iter().map(|r| r.name).collect(), response.removed_resources)
        }
        Variant::StateOfTheWorld => {
            let response = response.to_state_of_the_world();
            (response.resources.iter().map(|any| String::from_utf8(any.value.to_vec()).unwrap()).collect(), Vec::new())
        }
    })
}

fn words(sent: &[&str], removed: &[&str]) -> Option<(Vec<String>, Vec<String>)> {
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Some((owned(sent), owned(removed)))
}

#[test]
fn first_delta_request_without_names_means_everything_for_some_types_only() {
    for (type_url, names, expected) in [
        (CLUSTER, &[][..], true),
        (LISTENER, &[], true),
        (ENDPOINT, &[], false),
        (ROUTE, &[], false),
        (ENDPOINT, &["*"], true),
    ] {
        let mut session = delta();
        assert_eq!(session.on_delta(&subscribe(type_url, names)).unwrap().want, Want::Everything);
        assert_eq!(session.watch(type_url).unwrap().is_wildcard(), expected, "{type_url} {names:?}");
    }
}

#[test]
fn delta_sends_only_what_differs_and_says_once_what_is_gone() {
    let mut session = delta();
    session.on_delta(&subscribe(CLUSTER, &[])).unwrap();
    let world = [resource("a", "1"), resource("b", "1")];
    assert_eq!(said(session.push(CLUSTER, &world, Scope::Everything)), words(&["a", "b"], &[]));
    assert_eq!(session.push(CLUSTER, &world, Scope::Everything), None);
    let world = [resource("b", "2"), resource("c", "1")];
    assert_eq!(said(session.push(CLUSTER, &world, Scope::Everything)), words(&["b", "c"], &["a"]));
    assert_eq!(session.push(CLUSTER, &world, Scope::Everything), None);
    // A scoped push says nothing of other names, nor of names that the client never had.
    assert_eq!(session.push(CLUSTER, &[], Scope::Names(&set(&["zzz"]))), None);
    assert_eq!(said(session.push(CLUSTER, &[], Scope::Names(&set(&["b"])))), words(&[], &["b"]));
}

#[test]
fn first_request_is_answered_with_nothing_if_there_is_nothing() {
    let mut session = delta();
    session.on_delta(&subscribe(CLUSTER, &[])).unwrap();
    assert_eq!(said(session.push(CLUSTER, &[], Scope::Everything)), words(&[], &[]));
    assert_eq!(session.push(CLUSTER, &[], Scope::Everything), None);
    let mut session = sotw();
    session.on_sotw(&ask(CLUSTER, &[], "")).unwrap();
    assert_eq!(said(session.push(CLUSTER, &[], Scope::Everything)), words(&[], &[]));
    assert_eq!(session.push(CLUSTER, &[], Scope::Everything), None);
}

#[test]
fn resumed_stream_gets_only_the_difference() {
    let mut session = delta();
    let mut request = subscribe(CLUSTER, &[]);
    request.initial_resource_versions =
        [("a", "1"), ("b", "1"), ("gone", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    session.on_delta(&request).unwrap();
    let world = [resource("a", "1"), resource("b", "2"), resource("c", "1")];
    assert_eq!(said(session.push(CLUSTER, &world, Scope::Everything)), words(&["b", "c"], &["gone"]));

    let mut session = delta();
    let mut request = subscribe(ENDPOINT, &["a", "b"]);
    request.initial_resource_versions = [("a", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    session.on_delta(&request).unwrap();
    assert_eq!(
        said(session.push(ENDPOINT, &[resource("a", "1"), resource("b", "1")], Scope::Everything)),
        words(&["b"], &[])
    );
}

#[test]
fn name_asked_for_again_is_sent_again() {
    let mut session = delta();
    session.on_delta(&subscribe(ENDPOINT, &["a"])).unwrap();
    let world = [resource("a", "1")];
    session.push(ENDPOINT, &world, Scope::Everything).unwrap();
    let received = session.on_delta(&subscribe(ENDPOINT, &["a"])).unwrap();
    let Want::Names(names) = received.want else { panic!("{received:?}") };
    assert_eq!(said(session.push(ENDPOINT, &world, Scope::Names(&names))), words(&["a"], &[]));
}

#[test]
fn name_that_does_not_exist_is_said_to_be_removed_once() {
    let mut session = delta();
    session.on_delta(&subscribe(ENDPOINT, &["a", "none"])).unwrap();
    let world = [resource("a", "1")];
    assert_eq!(said(session.push(ENDPOINT, &world, Scope::Everything)), words(&["a"], &["none"]));
    assert_eq!(session.push(ENDPOINT, &world, Scope::Everything), None);
    let world = [resource("a", "1"), resource("none", "1")];
    assert_eq!(said(session.push(ENDPOINT, &world, Scope::Everything)), words(&["none"], &[]));
}

#[test]
fn name_unsubscribed_under_the_wildcard_is_confirmed_or_withdrawn() {
    let mut session = delta();
    session.on_delta(&subscribe(CLUSTER, &["*", "a", "x"])).unwrap();
    let world = [resource("a", "1")];
    assert_eq!(said(session.push(CLUSTER, &world, Scope::Everything)), words(&["a"], &["x"]));
    let received = session.on_delta(&unsubscribe(CLUSTER, &["a", "x"])).unwrap();
    let Want::Names(names) = received.want else { panic!("{received:?}") };
    assert_eq!(said(session.push(CLUSTER, &world, Scope::Names(&names))), words(&["a"], &["x"]));
    assert_eq!(session.push(CLUSTER, &world, Scope::Names(&names)), None);
    session.on_delta(&unsubscribe(CLUSTER, &["*"])).unwrap();
    assert_eq!(session.push(CLUSTER, &[resource("a", "2")], Scope::Everything), None);
}

#[test]
fn answers_are_matched_to_responses() {
    let mut session = delta();
    session.on_delta(&subscribe(CLUSTER, &[])).unwrap();
    let first = session.push(CLUSTER, &[resource("a", "1")], Scope::Everything).unwrap();
    let second = session.push(CLUSTER, &[resource("a", "2")], Scope::Everything).unwrap();
    assert_ne!(&first.nonce, &second.nonce);
    let answer = |nonce: &str, error: Option<&str>| DeltaDiscoveryRequest {
        type_url: CLUSTER.to_owned(),
        response_nonce: nonce.to_owned(),
        error_detail: error.map(|message| Status { code: 3, message: message.to_owned(), details: vec![] }),
        ..Default::default()
    };
    let received = session.on_delta(&answer(&first.nonce, Some("bad"))).unwrap();
    assert_eq!(received.verdict, Verdict::Rejected { nonce: first.nonce.clone(), message: "bad".to_owned() });
    let watch = session.watch(CLUSTER).unwrap();
    assert!(watch.is_outstanding());
    assert_eq!(watch.rejection().unwrap().message, "bad");
    let received = session.on_delta(&answer(&second.nonce, None)).unwrap();
    assert_eq!(received.verdict, Verdict::Accepted { nonce: second.nonce.clone() });
    let watch = session.watch(CLUSTER).unwrap();
    assert!(!watch.is_outstanding() && watch.rejection().is_none());
    for stale in ["other-0", &first.nonce] {
        assert_eq!(session.on_delta(&answer(stale, None)).unwrap().verdict, Verdict::Stale);
    }
}

#[test]
fn state_of_the_world_sends_the_whole_set_of_clusters_and_only_changed_endpoints() {
    let mut session = sotw();
    session.on_sotw(&ask(CLUSTER, &[], "")).unwrap();
    assert!(session.needs_full_set(CLUSTER) && !session.needs_full_set(ENDPOINT));
    session.push(CLUSTER, &[resource("a", "1"), resource("b", "1")], Scope::Everything).unwrap();
    let world = [resource("a", "1"), resource("b", "2")];
    assert_eq!(said(session.push(CLUSTER, &world, Scope::Everything)), words(&["a", "b"], &[]));
    assert_eq!(said(session.push(CLUSTER, &world[..1], Scope::Everything)), words(&["a"], &[]));
    assert_eq!(session.push(CLUSTER, &world[..1], Scope::Everything), None);

    session.on_sotw(&ask(ENDPOINT, &["a", "b"], "")).unwrap();
    session.push(ENDPOINT, &[resource("a", "1"), resource("b", "1")], Scope::Everything).unwrap();
    assert_eq!(said(session.push(ENDPOINT, &world, Scope::Everything)), words(&["b"], &[]));
}

#[test]
fn state_of_the_world_names_follow_the_latest_answer() {
    let mut session = sotw();
    session.on_sotw(&ask(ENDPOINT, &["a"], "from-an-earlier-stream")).unwrap();
    let world = [resource("a", "1"), resource("b", "1")];
    let first = session.push(ENDPOINT, &world, Scope::Everything).unwrap();
    assert_eq!(session.on_sotw(&ask(ENDPOINT, &["a"], &first.nonce)).unwrap().want, Want::Nothing);
    let received = session.on_sotw(&ask(ENDPOINT, &["a", "b"], &first.nonce)).unwrap();
    let Want::Names(names) = received.want else { panic!("{received:?}") };
    assert_eq!(names, set(&["b"]));
    let second = session.push(ENDPOINT, &world, Scope::Names(&names)).unwrap();
    // Sent before the client read the second response.
    let received = session.on_sotw(&ask(ENDPOINT, &["a"], &first.nonce)).unwrap();
    assert_eq!((received.verdict, received.want), (Verdict::Stale, Want::Nothing));
    assert!(session.watch(ENDPOINT).unwrap().covers("b"));
    session.on_sotw(&ask(ENDPOINT, &[], &second.nonce)).unwrap();
    assert!(!session.watch(ENDPOINT).unwrap().covers("a"));
}

#[test]
fn state_of_the_world_without_names_means_nothing_once_names_were_given() {
    let mut session = sotw();
    session.on_sotw(&ask(LISTENER, &["l"], "")).unwrap();
    assert!(!session.watch(LISTENER).unwrap().is_wildcard());
    session.on_sotw(&ask(LISTENER, &[], "")).unwrap();
    assert!(!session.watch(LISTENER).unwrap().is_wildcard());
    assert_eq!(session.on_sotw(&ask(LISTENER, &["*"], "")).unwrap().want, Want::Everything);
    assert!(session.watch(LISTENER).unwrap().is_wildcard());
}

#[test]
fn limits_are_kept() {
    assert_eq!(delta().on_delta(&subscribe("", &[])), Err(Violation::NoType));
    let mut session = delta();
    for i in 0..MAX_TYPES {
        session.on_delta(&subscribe(&format!("type{i}"), &[])).unwrap();
    }
    assert_eq!(session.on_delta(&subscribe("more", &[])), Err(Violation::TooManyTypes(MAX_TYPES)));
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    assert_eq!(delta().on_delta(&subscribe(CLUSTER, &[&long])), Err(Violation::LongName(MAX_NAME_BYTES)));
    let many: Vec<String> = (0..=MAX_NAMES).map(|i| i.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(delta().on_delta(&subscribe(ENDPOINT, &many)), Err(Violation::TooManyNames { .. })));
    assert!(matches!(sotw().on_sotw(&ask(ENDPOINT, &many, "")), Err(Violation::TooManyNames { .. })));
}

#[test]
fn renewed_names_are_sent_though_the_client_holds_them() {
    for mut session in [delta(), sotw()] {
        match session.variant() {
            Variant::Delta => session.on_delta(&subscribe(ENDPOINT, &["a", "b"])).unwrap(),
            Variant::StateOfTheWorld => session.on_sotw(&ask(ENDPOINT, &["a", "b"], "")).unwrap(),
        };
        let world = [resource("a", "1"), resource("b", "1")];
        session.push(ENDPOINT, &world, Scope::Everything).unwrap();
        assert_eq!(session.renew(ENDPOINT, &set(&["b", "unknown"])), set(&["b"]));
        assert_eq!(said(session.push(ENDPOINT, &world, Scope::Everything)), words(&["b"], &[]));
        assert_eq!(session.push(ENDPOINT, &world, Scope::Everything), None);
    }
}
