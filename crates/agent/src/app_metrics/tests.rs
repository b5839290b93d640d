use super::*;
use crate::environment::{Role, Settings, Variables};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

fn caller() -> Caller {
    let variables = Variables::from_pairs([("POD_NAME", "app-1"), ("INSTANCE_IP", "127.0.0.1")]);
    Caller::new(&Settings::from_variables(Role::Sidecar, None, &variables).unwrap())
}

/// An application whose path says what its metrics are; its port.
async fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    port
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let asked = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (status, media, body) = match request.uri().path() {
        "/metrics" => (200, "text/plain; version=0.0.4", "app 1\n".to_owned()),
        "/open" => (200, "application/openmetrics-text; version=1.0.0; charset=utf-8", "open 1\n# EOF\n".to_owned()),
        "/second" => (200, "application/openmetrics-text; version=1.0.0", "second 1\n# EOF".to_owned()),
        "/asked" => (200, "text/plain", format!("{} {}", asked("accept"), asked("user-agent"))),
        "/much" => (200, "text/plain", "x".repeat(65 << 20)),
        "/slow" => {
            std::future::pending::<()>().await;
            unreachable!("nobody waits for this");
        }
        _ => (404, "text/plain", "gone 1\n".to_owned()),
    };
    Ok(Response::builder().status(status).header("content-type", media).body(Full::from(body)).unwrap())
}

fn metrics(text: &str, port: u16) -> AppMetrics {
    AppMetrics::parse(&text.replace("PORT", &port.to_string()), 15020).unwrap().unwrap()
}

fn asked(accept: &str) -> HeaderMap {
    let mut asked = HeaderMap::new();
    asked.insert("accept", accept.parse().unwrap());
    asked.insert("user-agent", "Prometheus/3".parse().unwrap());
    asked.insert("x-prometheus-scrape-timeout-seconds", "2.5".parse().unwrap());
    asked
}

#[tokio::test]
async fn the_application_follows_the_proxy() {
    let port = application().await;
    let text = TEXT.to_owned();
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8".to_owned();
    let one = |path: &str| format!(r#"{{"scrape": "true", "port": "PORT", "path": "{path}"}}"#);
    let two = |first: &str, second: &str| {
        format!(r#"{{"targets": [{{"port": "PORT", "path": "{first}"}}, {{"port": "PORT", "path": "{second}"}}]}}"#)
    };
    for (config, media, expected, failures) in [
        (one(""), &text, "proxy 1\napp 1\n", 0),
        (one("/open"), &open, "proxy 1\nopen 1\n# EOF\n", 0),
        (one("/gone"), &text, "proxy 1\n", 1),
        (one("/slow"), &text, "proxy 1\n", 1),
        (one("/much"), &text, "proxy 1\n", 1),
        (two("/open", "/second"), &open, "proxy 1\nopen 1\nsecond 1\n# EOF\n", 0),
        (two("/open", "/metrics"), &text, "proxy 1\nopen 1\napp 1\n", 0),
        (two("/gone", "/metrics"), &text, "proxy 1\napp 1\n", 1),
        (
            one("/asked"),
            &text,
            "proxy 1\napplication/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.1 Prometheus/3\n",
            0,
        ),
    ] {
        let metrics = metrics(&config, port);
        let accept = "application/vnd.google.protobuf;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.1";
        let (content_type, merged) = metrics.merge(&caller(), &asked(accept), "proxy 1\n".to_owned()).await;
        let merged = String::from_utf8(merged).unwrap();
        assert_eq!((&content_type, &*merged, metrics.failures()), (media, expected, failures), "{config}");
    }
}

#[test]
fn where_metrics_are_is_checked() {
    for (text, part) in [
        (r#"{"port": "http"}"#, "`http` is not a port"),
        (r#"{"port": "0"}"#, "`0` is not a port"),
        (r#"{"port": "015020"}"#, "the agent's own"),
        (r#"{"targets": [{"port": "80"}, {"port": "15020"}]}"#, "the agent's own"),
        (r#"{"path": "/a b"}"#, "path"),
        (r#"{"ports": "80"}"#, "unknown field"),
    ] {
        let error = AppMetrics::parse(text, 15020).err();
        assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{text}: {error:?}");
    }
    assert!(AppMetrics::parse(r#"{"scrape": "false", "port": "15020"}"#, 15020).unwrap().is_none());
    let defaults = AppMetrics::parse(r#"{"scrape": "", "path": "", "port": ""}"#, 15020).unwrap().unwrap();
    assert_eq!(defaults.targets, [(80, "/metrics".to_owned())]);
}

#[test]
fn a_media_type_that_cannot_be_merged_is_not_asked_for() {
    for (asked, expected) in [
        ("", "text/plain;version=0.0.4"),
        ("application/vnd.google.protobuf", "text/plain;version=0.0.4"),
        ("*/*", "text/plain;version=0.0.4;q=0.1"),
        ("application/*, */*;q=0.2", "application/openmetrics-text;version=0.0.1;q=0.2,text/plain;version=0.0.4;q=0.1"),
        ("text/plain; version=1.0.0; q=0.3, text/plain;version=1.0.0", "text/plain;version=1.0.0;q=0.1"),
    ] {
        let value = HeaderValue::from_str(asked).unwrap();
        assert_eq!(accepted(Some(&value)), expected, "{asked}");
    }
    assert_eq!(accepted(None), "text/plain;version=0.0.4");
}
