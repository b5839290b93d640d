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

/// What an exporter sends once nobody can add to it.
async fn exported(exporter: meltemi_telemetry::export::Exporter) -> serde_json::Value {
    let (sender, mut batches) = tokio::sync::mpsc::unbounded_channel();
    exporter
        .run(Box::new(move |bytes| {
            let sender = sender.clone();
            Box::pin(async move { sender.send(bytes).map_err(|e| e.to_string()) })
        }))
        .await;
    serde_json::from_slice(&batches.recv().await.unwrap()).unwrap()
}

#[tokio::test]
async fn each_attempt_has_a_span_of_its_own_where_asked_for() {
    let context = testing::context();
    let config = Arc::new(Tracing { spawn_upstream_span: true, ..zipkin(false) });
    let tracer = Tracer::new(&config, Direction::Outbound, &context);
    let (_, exporter) = context.next_exporter().await;
    let (mut head, mut info) = (testing::request(&[]), testing::info());
    info.response_code = Some(200);
    tracer.begin(&head, &mut info);
    tracer.inject(&mut head, &info);
    let mut seen = Vec::new();
    for attempt in 1..=2 {
        info.upstream.attempts = attempt;
        tracer.abandon_attempt(&mut info);
        tracer.begin_attempt(&mut head, &mut info);
        seen.push(head.headers.get_str(&HeaderName::from_static("x-b3-spanid")).unwrap().to_owned());
    }
    tracer.finish(&Scope { request: Some(&head), ..Scope::new(&info) });
    drop((tracer, context));
    let spans = exported(exporter).await;
    let field = |index: usize, key: &str| spans[index][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [field(0, "id"), field(1, "id")],
        [seen[0].clone(), seen[1].clone()],
        "hosts get the attempts' contexts"
    );
    for attempt in 0..2 {
        assert_eq!((field(attempt, "parentId"), field(attempt, "kind")), (field(2, "id"), "CLIENT".to_owned()));
        assert_eq!(field(attempt, "name"), "router  egress");
    }
    assert_eq!((&spans[0]["tags"]["error"], &spans[1]["tags"]["error"]), (&"true".into(), &serde_json::Value::Null));
    assert_eq!((&spans[1]["tags"]["retry.count"], &spans[1]["tags"]["http.status_code"]), (&"1".into(), &"200".into()));
    assert_eq!((field(2, "kind"), field(2, "name")), ("SERVER".to_owned(), "egress".to_owned()));
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
    let spans = exported(exporter).await;
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

#[test]
fn a_hop_has_one_name_which_the_application_does_not_see() {
    let context = testing::context();
    let tracer = |direction| Tracer::new(&Arc::new(zipkin(false)), direction, &context);
    let (outbound, inbound) = (tracer(Direction::Outbound), tracer(Direction::Inbound));
    let told = |headers: &Headers| headers.get_str(&name::X_ENVOY_DECORATOR_OPERATION).map(str::to_owned);
    // A server's span is called what its client says.
    let (mut head, mut info) = (testing::request(&[("x-envoy-decorator-operation", "catalog:80/*")]), testing::info());
    outbound.take_operation(&mut head.headers, &mut info);
    assert_eq!(told(&head.headers).as_deref(), Some("catalog:80/*"), "not for a client's proxy");
    inbound.take_operation(&mut head.headers, &mut info);
    assert_eq!((told(&head.headers), info.operation.as_deref()), (None, Some("catalog:80/*")));
    assert_eq!(inbound.operation(&Scope::new(&info)), "catalog:80/*");
    // A client's span is called what a server answers that was told nothing.
    let mut info = testing::info();
    outbound
        .answer_operation(&mut testing::request(&[("x-envoy-decorator-operation", "stock:80/*")]).headers, &mut info);
    assert_eq!(outbound.operation(&Scope::new(&info)), "stock:80/*");
}
