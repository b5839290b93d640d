use super::*;
use crate::listener::Listener;
use serde_json::{Value, json};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const QUIC: &str = "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// As istiod writes it.
fn listener() -> Value {
    json!({
        "name": "udp_0.0.0.0_443",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 443, "protocol": "UDP" } },
        "udp_listener_config": { "downstream_socket_config": {}, "quic_options": {} },
        "filter_chains": [{
            "transport_socket": { "name": "envoy.transport_sockets.quic", "typed_config": {
                "@type": QUIC,
                "downstream_tls_context": { "common_tls_context": {
                    "alpn_protocols": ["h3"],
                    "tls_certificate_sds_secret_configs": [{ "name": "kubernetes://cert", "sds_config": { "ads": {} } }],
                } },
            } },
            "filters": [{ "name": "http", "typed_config": {
                "@type": HCM,
                "stat_prefix": "s",
                "codec_type": "HTTP3",
                "http3_protocol_options": {},
                "route_config": {},
                "http_filters": [{ "name": "r", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                } }],
            } }],
        }],
    })
}

fn convert(value: Value) -> Result<Listener> {
    super::super::listener(&meltemi_proto::json::from_value(&value).unwrap())
}

/// Sets what a JSON pointer names.
fn with(pointer: &str, value: Value) -> Value {
    let mut listener = listener();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = listener.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    match parent {
        Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
        _ => parent[field] = value,
    }
    listener
}

#[test]
fn what_istiod_writes_gets_envoys_defaults() {
    let listener = convert(listener()).unwrap();
    let quic = listener.quic.unwrap();
    assert_eq!((quic.accepts, quic.max_concurrent_streams, quic.max_connections), (true, 100, None));
    assert_eq!((quic.stream_window, quic.connection_window), (16 << 20, 24 << 20));
    assert_eq!((quic.idle_timeout.as_secs(), quic.handshake_timeout.as_secs()), (300, 20));
    assert_eq!(quic.keepalive_interval, None);
    let tls = listener.chains[0].tls.as_ref().unwrap();
    assert_eq!((tls.common.min_version, tls.common.max_version), (TlsVersion::V1_3, TlsVersion::V1_3));
    assert_eq!(tls.common.alpn, ["h3".into()]);
    assert_eq!(&*listener.address.to_string(), "0.0.0.0:443");
}

#[test]
fn options_are_taken() {
    let options = json!({
        "quic_protocol_options": {
            "max_concurrent_streams": 7, "initial_stream_window_size": 65536, "initial_connection_window_size": 131072,
            "connection_keepalive": { "initial_interval": "3s" }, "idle_network_timeout": "9s",
        },
        "idle_timeout": "60s", "crypto_handshake_timeout": "4s", "max_sessions_per_event_loop": 5,
    });
    let quic = convert(with("/udp_listener_config/quic_options", options)).unwrap().quic.unwrap();
    let expected = Quic {
        accepts: true,
        max_concurrent_streams: 7,
        stream_window: 65536,
        connection_window: 131_072,
        idle_timeout: Duration::from_secs(9),
        handshake_timeout: Duration::from_secs(4),
        keepalive_interval: Some(Duration::from_secs(3)),
        max_connections: Some(5),
    };
    assert_eq!(quic, expected);
    for refusing in [
        json!({ "reject_new_connections": true }),
        json!({ "enabled": { "default_value": false, "runtime_key": "k" } }),
    ] {
        let quic = convert(with("/udp_listener_config/quic_options", refusing)).unwrap().quic.unwrap();
        assert!(!quic.accepts);
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_path() {
    let tls = json!({ "typed_config": { "@type": TLS, "common_tls_context": {
        "tls_certificate_sds_secret_configs": [{ "name": "c" }],
    } } });
    let old = json!({ "tls_maximum_protocol_version": "TLSv1_2" });
    let echo = json!([{ "name": "e", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
    } }]);
    let chain = "/filter_chains/0";
    let context = format!("{chain}/transport_socket/typed_config/downstream_tls_context/common_tls_context");
    let options = "/udp_listener_config/quic_options";
    let cases = [
        (
            "/udp_listener_config".to_owned(),
            json!({}),
            "udp_listener_config.quic_options: is required: UDP is served as QUIC only",
        ),
        (
            "/udp_listener_config".to_owned(),
            Value::Null,
            "filter_chains[0].filters[0]: codec_type: HTTP3 needs a QUIC listener",
        ),
        ("/address/socket_address/protocol".to_owned(), json!("TCP"), "address.socket_address.protocol: must be UDP"),
        ("/address".to_owned(), json!({ "pipe": { "path": "/x" } }), "address: socket_address: is required for UDP"),
        (
            format!("{chain}/filters/0/typed_config/codec_type"),
            json!("AUTO"),
            "filter_chains[0].filters[0]: codec_type: a QUIC listener needs HTTP3",
        ),
        (format!("{chain}/filters"), echo, "filter_chains[0].filters[0]: is not supported on a QUIC listener"),
        (format!("{chain}/transport_socket"), Value::Null, "filter_chains[0]: transport_socket: is required for QUIC"),
        (
            format!("{chain}/transport_socket"),
            tls,
            "filter_chains[0].transport_socket.typed_config: a QUIC listener needs QuicDownstreamTransport",
        ),
        (
            format!("{context}/tls_params"),
            old,
            "common_tls_context: tls_params.tls_maximum_protocol_version: QUIC has TLS 1.3 only",
        ),
        (
            format!("{options}/quic_protocol_options"),
            json!({ "max_concurrent_streams": 0 }),
            "quic_protocol_options: max_concurrent_streams: must be between",
        ),
        (
            format!("{options}/quic_protocol_options"),
            json!({ "initial_stream_window_size": 16777217 }),
            "initial_stream_window_size: must be between 1 and 16777216",
        ),
        (
            format!("{options}/idle_timeout"),
            json!("0s"),
            "udp_listener_config.quic_options.idle_timeout: must be greater than zero",
        ),
        (
            format!("{options}/send_disable_active_migration"),
            json!(true),
            "udp_listener_config.quic_options.send_disable_active_migration: not supported",
        ),
        (
            "/listener_filters".to_owned(),
            json!([{ "name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" } }]),
            "listener_filters: a QUIC listener has none",
        ),
    ];
    for (pointer, value, fault) in cases {
        let error = convert(with(&pointer, value)).unwrap_err().to_string();
        assert!(error.contains(fault), "{pointer}: {error}");
    }
}

#[test]
fn udp_and_its_transport_stay_off_tcp_listeners() {
    let mut listener = listener();
    listener["filter_chains"][0]["filters"][0]["typed_config"]["codec_type"] = "AUTO".into();
    listener["udp_listener_config"] = Value::Null;
    let error = convert(listener.clone()).unwrap_err().to_string();
    assert_eq!(error, "filter_chains[0].transport_socket.typed_config: QUIC needs udp_listener_config");
    listener["filter_chains"][0]["transport_socket"] = Value::Null;
    let error = convert(listener).unwrap_err().to_string();
    assert_eq!(error, "address.socket_address.protocol: UDP needs udp_listener_config");
}
