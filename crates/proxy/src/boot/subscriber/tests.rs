use super::*;
use crate::{Options, Proxy};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proto::envoy::config::listener::v3::Listener;
use meltemi_proto::json::from_value;
use serde_json::json;

fn subscriber() -> Subscriber {
    let bootstrap: Bootstrap = from_value(&json!({})).unwrap();
    Subscriber::new(Proxy::new(Options::new(&bootstrap).unwrap()).unwrap().state(), None)
}

fn listener(name: &str, port: u16) -> Resource {
    let document = json!({
        "name": name, "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "s", "cluster": "c" } }] }],
    });
    let body = Any::pack(&from_value::<Listener>(&document).unwrap());
    Resource { name: name.into(), version: "1".into(), body: Arc::new(body) }
}

#[tokio::test]
async fn a_listener_takes_the_address_of_one_that_leaves_or_moves_with_the_same_update() {
    let mut subscriber = subscriber();
    assert_eq!(subscriber.take(types::LISTENER, &[listener("first", 80)], &[]), []);
    assert_eq!(subscriber.take(types::LISTENER, &[listener("second", 80)], &["first".into()]), []);
    assert_eq!(subscriber.take(types::LISTENER, &[listener("a", 80), listener("second", 81)], &[]), []);
    let refused = subscriber.take(types::LISTENER, &[listener("b", 81), listener("c", 82)], &[]);
    assert_eq!(refused, [("b".into(), "has duplicate address 127.0.0.1:81, which listener \"second\" has".to_owned())]);
    let configurator = subscriber.state.configurator.lock();
    let names: Vec<String> = configurator.held_listeners().map(|(held, _)| held.plan.name.to_string()).collect();
    assert_eq!(names, ["a", "c", "second"]);
}
