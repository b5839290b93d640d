use super::*;

#[test]
fn a_service_is_known_by_its_name_with_and_without_a_package() {
    let identity = Identity::new("reviews", "v1");
    let check = |service: &str, leaving: bool, expected: Health| {
        assert_eq!(Health::of(&identity, service, leaving), expected, "{service:?} {leaving}");
    };
    for own in ["", "reviews", "shop.Reviews", "grpc.health.v1.Health"] {
        check(own, false, Health::Serving);
        check(own, true, Health::NotServing);
    }
    for other in ["catalog", "reviews.v1", "shop.Review", ".", "grpc.health.v1.Other"] {
        check(other, false, Health::Unknown);
        check(other, true, Health::Unknown);
    }
}

#[test]
fn messages_are_those_of_health_proto() {
    assert_eq!(Health::Serving.framed(), &b"\0\0\0\0\x02\x08\x01"[..]);
    assert_eq!(Health::NotServing.framed(), &b"\0\0\0\0\x02\x08\x02"[..]);
    assert_eq!(Health::Unknown.framed(), &b"\0\0\0\0\x02\x08\x03"[..]);
    assert_eq!(asked(b""), Some(""));
    assert_eq!(asked(b"\x0a\x04shop"), Some("shop"));
    assert_eq!(asked(b"\x10\x01"), None);
    assert_eq!(method("/grpc.health.v1.Health/Check"), Some("Check"));
    assert_eq!(method("/grpc.health.v1.HealthCheck"), None);
    assert_eq!(method("/shop.Reviews/Check"), None);
}
