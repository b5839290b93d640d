use super::*;
use crate::labels::labels_of;

fn service(labels: &[(&str, &str)]) -> Service {
    Service { labels: labels_of(labels.iter().copied()), ..Service::default() }
}

#[test]
fn labels_of_a_service_ask_for_sessions() {
    let sessions = Sessions { enabled: true, ..Sessions::default() };
    let cookie = |name: &str, path: &str| Some(PersistentSession::Cookie { name: name.into(), path: path.into() });
    let label = "istio.io/persistent-session";
    assert_eq!(sessions.of(&service(&[(label, "mine")])), cookie("mine", "/"));
    assert_eq!(sessions.of(&service(&[(label, "mine:/cart")])), cookie("mine", "/cart"));
    let header = ("istio.io/persistent-session-header", "x-mine");
    assert_eq!(sessions.of(&service(&[header])), Some(PersistentSession::Header("x-mine".into())));
    assert_eq!(sessions.of(&service(&[(label, "mine"), header])), cookie("mine", "/"));
    for none in [&[][..], &[(label, "")]] {
        assert_eq!(sessions.of(&service(none)), None);
    }
    assert_eq!(Sessions::default().of(&service(&[header])), None, "not enabled");
    let both = |service: &Service| (sessions.reach_draining(service), sessions.keep_draining(service));
    assert_eq!(both(&service(&[(label, "mine")])), (true, true));
    assert_eq!(both(&service(&[header])), (true, false));
    assert_eq!(both(&service(&[])), (false, false));
    let unlabelled = Sessions { cookie_label: "".into(), ..sessions.clone() };
    assert_eq!(unlabelled.of(&service(&[("", "mine"), (label, "mine")])), None, "a label may be turned off");
}

#[test]
fn endpoints_drain_by_state_or_by_label() {
    let label = &*Sessions::default().draining_label;
    let endpoint = |labels: &[(&str, &str)], health: Health| Endpoint {
        labels: labels_of(labels.iter().copied()),
        health,
        ..Endpoint::default()
    };
    assert!(is_draining(&endpoint(&[("istio.io/draining", "true")], Health::Healthy), label));
    assert!(is_draining(&endpoint(&[], Health::Draining), label));
    assert!(!is_draining(&endpoint(&[("istio.io/draining", "")], Health::Healthy), label));
}
