use super::*;

#[test]
fn a_service_port_declares_its_protocol() {
    for (name, port, transport, app, expected) in [
        ("http", 80, "TCP", None, Protocol::Http),
        ("http-web", 80, "TCP", None, Protocol::Http),
        ("HTTP2-x", 80, "TCP", None, Protocol::Http2),
        ("grpc-web", 80, "TCP", None, Protocol::GrpcWeb),
        ("grpc-web-x", 80, "TCP", None, Protocol::GrpcWeb),
        ("grpc-x", 80, "TCP", None, Protocol::Grpc),
        ("httpx", 80, "TCP", None, Protocol::Auto),
        ("", 80, "TCP", None, Protocol::Auto),
        ("", 3306, "TCP", None, Protocol::MySql),
        ("", 25, "TCP", None, Protocol::Tcp),
        ("http", 80, "UDP", None, Protocol::Udp),
        ("tcp", 80, "TCP", Some("http"), Protocol::Http),
        ("tcp", 80, "TCP", Some("kubernetes.io/h2c"), Protocol::Http2),
        ("tcp", 80, "TCP", Some(""), Protocol::Tcp),
        ("tcp", 80, "TCP", Some("example.com/mine"), Protocol::Auto),
        ("tls-x", 443, "TCP", None, Protocol::Tls),
    ] {
        assert_eq!(
            Protocol::of_service_port(name, port, transport, app),
            expected,
            "{name} {port} {transport} {app:?}"
        );
    }
}
