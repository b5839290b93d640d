use std::sync::Mutex;

use meltemi_proto::otlp::ExportTraceServiceRequest;

use super::*;

fn span(service: &str, name: &'static str) -> Span {
    let context = TraceContext {
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        span_id: 0x00f0_67aa_0ba9_02b7,
        parent_id: Some(5),
        sampled: Some(true),
        debug: false,
        state: None,
    };
    Span {
        context,
        kind: SpanKind::Client,
        name: name.into(),
        service: service.into(),
        start: SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000),
        duration: Duration::from_micros(250),
        tags: vec![("http.status_code".into(), "503".to_owned())],
        error: true,
        local: Some("10.0.0.1:80".parse().unwrap()),
        remote: Some("[::1]:81".parse().unwrap()),
    }
}

#[test]
fn otlp_groups_by_service_and_frames_for_grpc() {
    let spans = [span("a", "get"), span("b", "get"), span("a", "put")];
    let frame = Encoding::OtlpGrpc.encode(&spans, &[("k8s.pod.name".into(), "p".into())]);
    let (prefix, message) = frame.split_at(5);
    assert_eq!(prefix[0], 0);
    assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
    let request: ExportTraceServiceRequest = meltemi_proto::decode(message).unwrap();
    let counts: Vec<usize> = request.resource_spans.iter().map(|r| r.scope_spans[0].spans.len()).collect();
    assert_eq!(counts, [2, 1]);
    assert_eq!(request.resource_spans[0].resource.as_ref().unwrap().attributes.len(), 2);
    let first = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(
        (first.trace_id.len(), first.span_id.len(), &first.parent_span_id[..]),
        (16, 8, &5u64.to_be_bytes()[..])
    );
    assert_eq!((first.start_time_unix_nano, first.end_time_unix_nano), (1_500_000_000, 1_500_250_000));
    assert_eq!((first.kind, first.status.as_ref().unwrap().code), (3, 2));
}

#[test]
fn zipkin_json() {
    let bytes = Encoding::ZipkinJson.encode(&[span("a", "get")], &[]);
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "parentId": "0000000000000005", "id": "00f067aa0ba902b7",
            "kind": "CLIENT", "name": "get", "timestamp": 1_500_000, "duration": 250,
            "localEndpoint": { "serviceName": "a", "ipv4": "10.0.0.1", "port": 80 },
            "remoteEndpoint": { "ipv6": "::1", "port": 81 },
            "tags": { "http.status_code": "503", "error": "true" },
        }])
    );
}

#[tokio::test]
async fn batches_by_size_and_delay_and_counts_what_it_drops() {
    let registry = Registry::new();
    let limits = Limits { queue: 5, batch: 3, delay: Duration::from_millis(20), ..Limits::default() };
    let (sink, exporter) = pipeline(&registry, "zipkin", Encoding::ZipkinJson, vec![], limits);
    for _ in 0..7 {
        sink.push(span("a", "get"));
    }
    assert_eq!(sink.stats.spans_dropped().value(), 2, "queue of 5");
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let transport: Transport = Box::new(move |bytes| {
        let seen = seen.clone();
        Box::pin(async move {
            let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            seen.lock().unwrap().push(json.as_array().unwrap().len());
            if seen.lock().unwrap().len() == 2 { Err("refused".to_owned()) } else { Ok(()) }
        })
    });
    let stats = sink.stats.clone();
    let task = tokio::spawn(exporter.run(transport));
    // The second batch is short of three and leaves by the delay: the sink still lives.
    while stats.reports_dropped().value() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(*sizes.lock().unwrap(), [3, 2]);
    drop(sink);
    task.await.unwrap();
    assert_eq!((stats.spans_sent().value(), stats.spans_dropped().value()), (3, 4));
    assert_eq!((stats.reports_sent().value(), stats.reports_dropped().value()), (1, 1));
}
