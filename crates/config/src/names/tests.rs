use super::*;

#[derive(serde::Deserialize)]
struct Scalar {
    function: String,
    args: Vec<serde_json::Value>,
    valid: bool,
}

/// Istio's own table for its small checks.
#[test]
fn istios_scalar_cases_have_istios_verdict() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/peer/api-validation/scalars.yaml");
    let Ok(text) = std::fs::read_to_string(file) else {
        eprintln!("skipped: no ../shared");
        return;
    };
    let cases: Vec<Scalar> = serde_saphyr::from_str(&text).expect("cases");
    let (mut run, mut elsewhere) = (0, 0);
    for case in &cases {
        let first = case.args[0].as_str().unwrap_or_default();
        let number = case.args[0].as_i64().unwrap_or_default();
        let verdict = match case.function.as_str() {
            "ValidatePort" => port(number),
            "ValidatePortName" => dns_label(first),
            "ValidateFQDN" => fqdn(first),
            "ValidateWildcardDomain" => wildcard_domain(first),
            "ValidateWildcardDomainForVirtualServiceBoundToGateway" => {
                gateway_domain(case.args[1].as_str().unwrap_or_default(), case.args[0] == true)
            }
            "ValidateHTTPHeaderNameOrJwtClaimRoute" => match_header_name(first),
            "ValidateStrictHTTPHeaderName" => strict_header_name(first),
            "ValidateHTTPHeaderValue" => header_value(first),
            "ValidateProxyAddress" => host_port(first),
            "ValidateTrustDomain" => trust_domain(first),
            "ValidateIPSubnet" => ip_or_cidr(first),
            "validateExtensionProviderService" => provider_service(first),
            // Durations, policies and localities are checked where their types are.
            _ => {
                elsewhere += 1;
                continue;
            }
        };
        run += 1;
        assert_eq!(verdict.is_ok(), case.valid, "{} {:?}: {verdict:?}", case.function, case.args);
    }
    println!("{run} cases, {elsewhere} elsewhere");
    assert!(run >= 40, "{run}");
}

#[track_caller]
fn check(cases: &[(&str, bool)], valid: fn(&str) -> Result<(), String>) {
    for (text, expected) in cases {
        assert_eq!(valid(text).is_ok(), *expected, "{text:?}: {:?}", valid(text));
    }
}

#[test]
fn labels_and_values() {
    check(
        &[
            ("app", true),
            ("app.kubernetes.io/name", true),
            ("/name", false),
            ("a/b/c", false),
            ("-a", false),
            ("", false),
        ],
        label_key,
    );
    check(&[("", true), ("v1.2_x", true), ("a b", false), ("a-", false), (&"x".repeat(64), false)], label_value);
}

#[test]
fn header_values_hold_commands_or_doubled_percent_signs() {
    check(
        &[
            ("plain", true),
            ("100%%", true),
            ("%REQ(x-a?y)%", true),
            ("%REQ(x):10% and %PROTOCOL%", true),
            ("%REQ(x):%", false),
            ("%REQ(x", false),
            ("50%", false),
            ("%lower%", false),
        ],
        header_value,
    );
}

#[test]
fn unix_addresses_and_hosts_with_ports() {
    check(
        &[
            ("unix:///a/b", true),
            ("unix://@x", true),
            ("unix://a", false),
            ("unix:///a/", false),
            ("unix://", false),
            ("/a", false),
        ],
        unix_address,
    );
    check(
        &[
            ("a.b:80", true),
            ("[::1]:80", true),
            ("1.2.3.4:80", true),
            ("a.b:0", false),
            ("a.b", false),
            ("::1:80", false),
            ("a:99999", false),
        ],
        host_port,
    );
}

#[test]
fn patterns_of_hosts_overlap_or_contain_one_another() {
    for (a, b, overlap, a_in_b) in [
        ("a.b", "a.b", true, true),
        ("a.b", "*.b", true, true),
        ("*.a.b", "*.b", true, true),
        ("*.b", "*.a.b", true, false),
        ("*", "a", true, false),
        ("a.b", "c.b", false, false),
        ("*.a", "*.b", false, false),
        ("b", "*.b", false, false),
    ] {
        assert_eq!(hosts_overlap(a, b), overlap, "{a} {b}");
        assert_eq!(hosts_overlap(b, a), overlap, "{b} {a}");
        assert_eq!(host_within(a, b), a_in_b, "{a} in {b}");
    }
}

#[test]
fn protocols_are_known_in_any_case() {
    assert_eq!(protocol("grpc-web"), Some("GRPC-WEB"));
    assert_eq!(protocol("Http2"), Some("HTTP2"));
    assert_eq!(protocol(""), None);
    assert_eq!(protocol("QUIC"), None);
}

#[test]
fn a_misspelt_protocol_is_recognised() {
    assert_eq!(known_protocol("http2"), Ok(()));
    assert_eq!(known_protocol("HTPP"), Err("invalid protocol \"HTPP\"; did you mean `HTTP`?".to_owned()));
    assert_eq!(known_protocol("SMTP3000"), Err("invalid protocol \"SMTP3000\"".to_owned()));
}
