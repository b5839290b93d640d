use super::*;
use meltemi_plan::bootstrap::ConnectionLimits;

fn gate(limits: &Arc<Limits>, name: &str) -> Arc<Gate> {
    let text = format!(
        r#"{{"name": "{name}", "statPrefix": "{name}", "address": {{"socketAddress": {{"address": "127.0.0.1", "portValue": 1}}}},
            "filterChains": [{{"filters": [{{"name": "e", "typedConfig": {{
                "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}}}}]}}]}}"#
    );
    let proto = meltemi_proto::json::from_text(&text).unwrap();
    limits.gate(&meltemi_plan::listener(&proto).unwrap())
}

fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 0, 0, last]))
}

#[test]
fn seats_are_taken_up_to_each_limit_and_given_back() {
    let plan = ConnectionLimits { total: Some(3), listeners: [("a".into(), 2)].into(), per_source: None };
    let registry = Registry::new();
    let limits = Limits::new(plan, &registry);
    let (a, b) = (gate(&limits, "a"), gate(&limits, "b"));
    let mut open = vec![a.enter(address(1), true).unwrap(), a.enter(address(1), true).unwrap()];
    assert!(a.enter(address(1), true).is_none(), "the listener is full");
    open.push(b.enter(address(1), true).unwrap());
    assert!(b.enter(address(1), true).is_none(), "the process is full");
    open.push(b.enter(address(1), false).expect("one that does not count"));
    let total = |name: &str, listener: &str| registry.total(name, &[("envoy_listener_address", listener)]);
    assert_eq!(total("envoy_listener_downstream_cx_overflow", "a"), 1);
    assert_eq!(total("envoy_listener_downstream_global_cx_overflow", "b"), 1);
    assert_eq!(total("envoy_listener_downstream_cx_active", "b"), 2);
    open.clear();
    assert_eq!(total("envoy_listener_downstream_cx_active", "b"), 0);
    assert_eq!(total("envoy_listener_downstream_cx_total", "a"), 2);
    assert_eq!(total("envoy_listener_downstream_cx_destroy", "a"), 2);
    assert!(a.enter(address(1), true).is_some() && b.enter(address(1), true).is_some());
}

#[test]
fn one_source_does_not_take_the_seats_of_others() {
    let plan = ConnectionLimits { per_source: Some(2), ..ConnectionLimits::default() };
    let registry = Registry::new();
    let limits = Limits::new(plan, &registry);
    let gate = gate(&limits, "a");
    let enter = |last| gate.enter(address(last), true);
    let first = [enter(1).unwrap(), enter(1).unwrap()];
    assert!(enter(1).is_none());
    assert!(enter(2).is_some());
    assert!(gate.enter(None, true).is_some(), "a Unix socket has no source");
    drop(first);
    assert!(enter(1).is_some());
    assert!(gate.sources.lock().is_empty(), "nothing is kept of those who left");
    assert_eq!(registry.total("envoy_listener_downstream_cx_source_overflow", &[]), 1);
}

#[test]
fn workers_share_the_gate_of_a_listener() {
    let limits = Limits::new(ConnectionLimits::default(), &Registry::new());
    let held = gate(&limits, "a");
    assert!(Arc::ptr_eq(&held, &gate(&limits, "a")));
}
