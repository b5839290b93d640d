use super::*;
use crate::testing;
use meltemi_plan::tracing::Zipkin;

fn zipkin(w3c: bool) -> Tracing {
    Tracing {
        client_sampling: 100.0,
        random_sampling: 100.0,
        overall_sampling: 100.0,
        verbose: false,
        max_path_tag_length: 256,
        custom_tags: vec![CustomTag { tag: "env".into(), value: TagValue::Literal("test".into()) }],
        provider: Some(TracingProvider::Zipkin(Zipkin {
            cluster: "zipkin".into(),
            path: "/api/v2/spans".into(),
            hostname: "zipkin".into(),
            proto: false,
            trace_id_128bit: true,
            shared_span_context: true,
            split_spans: false,
            w3c,
        })),
        spawn_upstream_span: false,
        no_context_propagation: false,
        operation: None,
        upstream_operation: None,
    }
}

fn tracer(config: Tracing) -> (Tracer, Arc<Context>) {
    let context = testing::context();
    (Tracer::new(&Arc::new(config), Direction::Inbound, &context), context)
}

#[test]
fn a_trace_is_started_or_continued() {
    let (tracer, _context) = tracer(zipkin(true));
    let run = |fields: &[(&str, &str)]| {
        let (mut head, mut info) = (testing::request(fields), testing::info());
        tracer.begin(&head, &mut info);
        tracer.inject(&mut head, &info);
        let field = |name: &str| head.headers.get_str(name).map(str::to_owned);
        (info.trace.clone().unwrap(), field("x-b3-traceid"), field("x-b3-sampled"), field("traceparent"))
    };
    let (root, id, sampled, parent) = run(&[]);
    assert_eq!((id, sampled.as_deref()), (Some(root.trace_id_hex()), Some("1")));
    assert!(parent.unwrap().ends_with("-01"));
    // A decision against it stands.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (child, id, sampled, _) = run(&[("b3", &format!("{trace}-00f067aa0ba902b7-0"))]);
    assert_eq!((child.parent_id, child.is_sampled()), (Some(0x00f0_67aa_0ba9_02b7), false));
    assert_eq!((id.as_deref(), sampled.as_deref()), (Some(trace), Some("0")));
    let (child, ..) = run(&[("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))]);
    assert_eq!((child.trace_id_hex().as_str(), child.is_sampled()), (trace, true));
}

#[test]
fn nothing_is_sampled_at_rate_zero_unless_forced() {
    let (tracer, _context) = tracer(Tracing { random_sampling: 0.0, ..zipkin(false) });
    let sampled = |fields: &[(&str, &str)]| {
        let mut info = testing::info();
        tracer.begin(&testing::request(fields), &mut info);
        info.trace.unwrap().is_sampled()
    };
    assert!(!sampled(&[]));
    assert!(sampled(&[("x-envoy-force-trace", "true")]));
    assert!(sampled(&[("x-client-trace-id", "x")]));
}

#[tokio::test]
async fn a_finished_request_becomes_a_span() {
    let (tracer, context) = tracer(zipkin(false));
    assert!(Tracer::new(&tracer.config, Direction::Inbound, &context).sink.is_some());
    let (provider, exporter) = context.next_exporter().await;
    assert_eq!(Some(&provider), tracer.config.provider.as_ref());
    let head = testing::request(&[("user-agent", "curl/8"), ("x-request-id", "abc")]);
    let mut info = testing::info();
    info.response_code = Some(503);
    tracer.begin(&head, &mut info);
    tracer.finish(&Scope { request: Some(&head), ..Scope::new(&info) });
    drop((tracer, context));
    let (sender, mut batches) = tokio::sync::mpsc::unbounded_channel();
    exporter
        .run(Box::new(move |bytes| {
            let sender = sender.clone();
            Box::pin(async move { sender.send(bytes).map_err(|e| e.to_string()) })
        }))
        .await;
    let spans: serde_json::Value = serde_json::from_slice(&batches.recv().await.unwrap()).unwrap();
    let tags = &spans[0]["tags"];
    let pairs = [
        ("component", "proxy"),
        ("http.url", "http://reviews:9080/reviews/0?x=1"),
        ("http.status_code", "503"),
        ("guid:x-request-id", "abc"),
        ("user_agent", "curl/8"),
        ("env", "test"),
        ("error", "true"),
    ];
    for (tag, value) in pairs {
        assert_eq!(tags[tag], value, "{tag} in {tags}");
    }
    assert_eq!((&spans[0]["kind"], &spans[0]["name"]), (&"SERVER".into(), &"ingress".into()));
}
