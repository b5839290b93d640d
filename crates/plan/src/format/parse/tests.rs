use super::*;
use crate::format::{HostChoice, ServerName};

fn command(operator: Operator) -> FormatOp {
    FormatOp::Command { operator, limit: None }
}

fn literal(text: &str) -> FormatOp {
    FormatOp::Literal(text.into())
}

#[test]
fn commands_and_literals_alternate() {
    let check = |text: &str, expected: &[FormatOp]| {
        assert_eq!(&*Format::parse(text).unwrap().ops, expected, "{text}");
    };
    check("", &[]);
    check("plain", &[literal("plain")]);
    check("100%%", &[literal("100%")]);
    check("a%PROTOCOL%b", &[literal("a"), command(Operator::Protocol), literal("b")]);
    check("%PROTOCOL%%PROTOCOL%", &[command(Operator::Protocol), command(Operator::Protocol)]);
    check(
        "%REQ(X-A?:PATH):10%",
        &[FormatOp::Command {
            operator: Operator::RequestHeader {
                key: HeaderKey::parse("x-a").unwrap(),
                alternative: Some(HeaderKey::Path),
            },
            limit: Some(10),
        }],
    );
    check(
        "[%START_TIME(%Y-%m-%d %H%z)%]",
        &[
            literal("["),
            command(Operator::StartTime { format: Some("%Y-%m-%d %H%z".into()), local: false }),
            literal("]"),
        ],
    );
    check(
        "%METADATA(UPSTREAM_HOST:istio:workload)%",
        &[command(Operator::Metadata {
            of: MetadataOf::UpstreamHost,
            namespace: "istio".into(),
            path: vec!["workload".into()],
        })],
    );
    check(
        "%FILTER_STATE(wasm.upstream_peer:PLAIN)%",
        &[command(Operator::FilterState {
            key: "wasm.upstream_peer".into(),
            plain: true,
            field: None,
            upstream: false,
        })],
    );
}

#[test]
fn istios_default_format_is_read() {
    let text = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
        %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
        \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
        %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
    let commands = Format::parse(text).unwrap().ops.iter().filter(|op| matches!(op, FormatOp::Command { .. })).count();
    assert_eq!(commands, 24);
}

#[test]
fn bad_formats_are_refused() {
    for text in [
        "%",
        "50% off",
        "%REQ%",
        "%REQ()%",
        "%REQ(a%",
        "%REQ(a):x%",
        "%NOPE%",
        "%protocol%",
        "%PROTOCOL(x)%",
        "%PROTOCOL",
        "%COMMON_DURATION(a:b)%",
        "%METADATA(X:y)%",
        "%REQ(a b)%",
        "%GRPC_STATUS(x)%",
        "%FILTER_STATE(a:b)%",
        "%PATH(X)%",
    ] {
        assert!(Format::parse(text).is_err(), "{text}");
    }
}

#[test]
fn json_formats_keep_their_shape_and_order() {
    let format = JsonFormat::of(&serde_json::json!({ "b": "%DURATION%", "a": { "x": [1, "s", null] } })).unwrap();
    let JsonFormat::Object(fields) = format else { panic!("not an object") };
    assert_eq!(fields.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(fields[0].1, JsonFormat::Format(Format { ops: [command(Operator::Duration)].into() }));
    let error = JsonFormat::of(&serde_json::json!({ "a": { "b": "%X" } })).unwrap_err();
    assert_eq!(error.path, "a.b");
}

#[test]
fn arguments_choose_what_is_printed() {
    let check = |text: &str, expected: Operator| {
        assert_eq!(&*Format::parse(text).unwrap().ops, &[command(expected)], "{text}");
    };
    check("%REQUESTED_SERVER_NAME%", Operator::RequestedServerName(ServerName::Sni));
    check("%REQUESTED_SERVER_NAME(SNI_ONLY)%", Operator::RequestedServerName(ServerName::Sni));
    let original = ServerName::SniOrHost(HostChoice::Original);
    check("%REQUESTED_SERVER_NAME(SNI_FIRST:ORIG)%", Operator::RequestedServerName(original));
    let either = ServerName::Host(HostChoice::OriginalOrCurrent);
    check("%REQUESTED_SERVER_NAME(HOST_FIRST)%", Operator::RequestedServerName(either));
    check("%QUERY_PARAMS(DECODED)%", Operator::QueryParameters { decoded: true });
    check("%EMIT_TIME_LOCAL%", Operator::EmitTime { format: None, local: true });
    check("%DOWNSTREAM_PEER_CHAIN_SERIALS%", Operator::DownstreamTls(TlsFact::PeerChainSerials));
    let end = Operator::PeerCertificateTime { upstream: true, end: true, format: Some("%Y".into()) };
    check("%UPSTREAM_PEER_CERT_V_END(%Y)%", end);
    check("%UPSTREAM_PEER_SUBJECT%", Operator::UpstreamTls(TlsFact::PeerSubject));
    let range = |of, bits| Operator::Address { of, part: AddressPart::Range(bits) };
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%", range(AddressOf::DownstreamRemote, 16));
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(999)%", range(AddressOf::DownstreamRemote, 128));
    let choices = [
        (Operator::RequestedServerName(ServerName::Sni), None),
        (Operator::RequestHeader { key: HeaderKey::parse(":authority").unwrap(), alternative: None }, Some(3)),
    ];
    check(
        "%COALESCE({\"operators\": [\"REQUESTED_SERVER_NAME\", {\"command\": \"REQ\", \"param\": \":authority\", \"max_length\": 3}]})%",
        Operator::Coalesce(choices.into()),
    );
}

#[test]
fn arguments_of_nobody_are_refused() {
    for text in [
        "%REQUESTED_SERVER_NAME(SNI)%",
        "%REQUESTED_SERVER_NAME(SNI_FIRST:X)%",
        "%QUERY_PARAMS(X)%",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(x)%",
        "%DOWNSTREAM_REMOTE_ADDRESS(16)%",
        "%VIRTUAL_HOST_NAME%",
        "%UPSTREAM_HOST_WITHOUT_PORT%",
        "%UPSTREAM_PEER_SERIAL%",
        "%DOWNSTREAM_TLS_VERSION(x)%",
        "%UPSTREAM_PEER_EMAIL_SAN%",
        "%COALESCE%",
        "%COALESCE(REQ)%",
        "%COALESCE({\"operators\": []})%",
        "%COALESCE({\"operators\": [\"BOGUS\"]})%",
        "%COALESCE({\"operators\": [{\"param\": \"x\"}]})%",
    ] {
        assert!(Format::parse(text).is_err(), "{text}");
    }
}
