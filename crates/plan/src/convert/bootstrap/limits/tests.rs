use super::*;
use serde_json::json;

fn layer(values: serde_json::Value) -> RuntimeLayer {
    RuntimeLayer { name: "l".into(), values }
}

#[test]
fn limits_are_found_in_either_spelling_and_the_last_layer_counts() {
    let layers = [
        layer(
            json!({ TOTAL: 10, "envoy": { "resource_limits": { "listener": { "in": { "connection_limit": 3 } } } } }),
        ),
        layer(json!({ "overload": { "global_downstream_max_connections": 20.0 }, PER_SOURCE: 2, "other": "x" })),
        layer(json!({ "envoy.resource_limits.listener.0.0.0.0_80.connection_limit": 4 })),
    ];
    let limits = limits(None, &layers, &mut Vec::new()).unwrap();
    assert_eq!((limits.total, limits.per_source), (Some(20), Some(2)));
    let listeners: Vec<_> = limits.listeners.iter().map(|(name, limit)| (&**name, *limit)).collect();
    assert_eq!(listeners, [("0.0.0.0_80", 4), ("in", 3)]);
}

#[test]
fn what_is_no_number_is_refused_by_its_key() {
    for wrong in [json!("many"), json!(-1), json!(1.5), json!(null)] {
        let error = limits(None, &[layer(json!({ PER_SOURCE: wrong }))], &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(PER_SOURCE), "{error}");
    }
}

#[test]
fn a_monitor_of_connections_counts_and_others_are_told_of() {
    let monitor = |name: &str, most: i64| ResourceMonitor {
        name: name.into(),
        config_type: Some(resource_monitor::ConfigType::TypedConfig(meltemi_proto::Any::pack(
            &DownstreamConnectionsConfig { max_active_downstream_connections: most },
        ))),
    };
    let manager = |most| OverloadManager {
        resource_monitors: vec![monitor("envoy.resource_monitors.fixed_heap", 1), monitor(CONNECTIONS, most)],
        ..OverloadManager::default()
    };
    let mut ignored = Vec::new();
    let found = limits(Some(&manager(7)), &[layer(json!({ TOTAL: 10 }))], &mut ignored).unwrap();
    assert_eq!(found.total, Some(7));
    assert_eq!(ignored.len(), 1);
    assert_eq!(&*ignored[0].0, "overload_manager.resource_monitors[0]");
    assert!(limits(Some(&manager(0)), &[], &mut Vec::new()).is_err());
}
