//! The application's metrics, which Prometheus gets at the status port behind the proxy's. Injection says in
//! `ISTIO_PROMETHEUS_ANNOTATIONS` where they are.
//!
//! An application that fails costs its own metrics alone. Bounded in time by what Prometheus grants, and in size.

use crate::call::{Answer, Caller, Target};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Empty;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Of all targets together.
const MAX_BYTES: usize = 64 << 20;
/// Prometheus' own default.
const TIMEOUT: Duration = Duration::from_secs(10);
const GRANTED: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text";
const END: &[u8] = b"# EOF";

/// Where the application's metrics are.
#[derive(Clone, Debug)]
pub struct AppMetrics {
    targets: Vec<(u16, String)>,
    failures: Arc<AtomicU64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Scraping {
    scrape: String,
    path: String,
    port: String,
    targets: Vec<ScrapeTarget>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrapeTarget {
    port: String,
    #[serde(default)]
    path: String,
}

/// What one target gave.
struct Scraped {
    format: Format,
    body: Vec<u8>,
}

/// How metrics are written; OpenMetrics has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics(&'static str),
}

impl Format {
    fn of(content_type: Option<&HeaderValue>) -> Self {
        let text = content_type.and_then(|text| text.to_str().ok()).unwrap_or_default();
        let mut parts = text.split(';').map(str::trim);
        if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case(OPEN_METRICS)) {
            return Self::Text;
        }
        match parts.find_map(|part| part.strip_prefix("version=")) {
            Some("1.0.0") => Self::OpenMetrics("1.0.0"),
            None | Some("0.0.1" | "") => Self::OpenMetrics("0.0.1"),
            Some(_) => Self::Text,
        }
    }

    fn content_type(self) -> String {
        match self {
            Self::Text => TEXT.to_owned(),
            Self::OpenMetrics(version) => format!("{OPEN_METRICS}; version={version}; charset=utf-8"),
        }
    }
}

impl AppMetrics {
    /// None where nothing is to be scraped; the reason where the text is not what injection writes.
    pub fn parse(text: &str, status_port: u16) -> Result<Option<Self>, String> {
        let scraping: Scraping = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if scraping.scrape == "false" {
            return Ok(None);
        }
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        let targets = match scraping.targets {
            targets if targets.is_empty() => {
                vec![ScrapeTarget { port: or(scraping.port, "80"), path: scraping.path }]
            }
            targets => targets,
        };
        let targets = targets.into_iter().map(|ScrapeTarget { port, path }| {
            let number = port.parse::<u16>().ok().filter(|number| *number != 0);
            let number = number.ok_or_else(|| format!("`{port}` is not a port"))?;
            if number == status_port {
                return Err(format!("port {port} is the agent's own, which would ask itself for ever"));
            }
            let path = or(path, "/metrics");
            path.parse::<Uri>().map_err(|e| format!("path {path:?}: {e}"))?;
            Ok((number, path))
        });
        Ok(Some(Self { targets: targets.collect::<Result<_, _>>()?, failures: Arc::default() }))
    }

    /// How many scrapes of the application failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The media type for both, and `proxy` with what the application has behind it.
    pub async fn merge(&self, caller: &Caller, asked: &HeaderMap, proxy: String) -> (String, Vec<u8>) {
        let scrapes = self.targets.iter().map(|(port, path)| self.scrape(caller, (*port, path), asked));
        let scraped: Vec<Scraped> = join_all(scrapes).await.into_iter().flatten().collect();
        let mut formats = scraped.iter().map(|scraped| scraped.format);
        // What is not the same everywhere can only be text.
        let format = match formats.next() {
            Some(first) if formats.all(|format| format == first) => first,
            _ => Format::Text,
        };
        let mut merged = proxy.into_bytes();
        for Scraped { body, .. } in &scraped {
            merged.extend_from_slice(without_end(body));
            if merged.last().is_some_and(|last| *last != b'\n') {
                merged.push(b'\n');
            }
        }
        if format != Format::Text {
            merged.extend_from_slice(END);
            merged.push(b'\n');
        }
        (format.content_type(), merged)
    }

    async fn scrape(&self, caller: &Caller, (port, path): (u16, &str), asked: &HeaderMap) -> Option<Scraped> {
        let limit = granted(asked);
        let answered = tokio::time::timeout(limit, ask(caller, (port, path), asked, MAX_BYTES / self.targets.len()));
        let answered = answered.await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        let scraped = answered.and_then(|answer| match answer.head.status.as_u16() {
            200 if answer.is_whole => {
                Ok(Scraped { format: Format::of(answer.head.headers.get(header::CONTENT_TYPE)), body: answer.body })
            }
            200 => Err(format!("more than {} bytes", answer.body.len())),
            status => Err(format!("status {status}")),
        });
        scraped
            .inspect_err(|reason| {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(port, path, reason, "no metrics of the application");
            })
            .ok()
    }
}

/// What Prometheus has of patience.
fn granted(asked: &HeaderMap) -> Duration {
    let seconds = asked.get(GRANTED).and_then(|text| text.to_str().ok()?.parse::<f64>().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map_or(TIMEOUT, |it| it.min(TIMEOUT * 6))
}

async fn ask(
    caller: &Caller,
    (port, path): (u16, &str),
    asked: &HeaderMap,
    max_bytes: usize,
) -> Result<Answer, String> {
    let mut request = Request::get(path).header(header::HOST, format!("localhost:{port}"));
    request = request.header(header::ACCEPT, accepted(asked.get(header::ACCEPT)));
    for name in [header::USER_AGENT, GRANTED] {
        if let Some(value) = asked.get(&name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    caller.http(Target { host: "localhost", port, secure: false }, request, max_bytes).await
}

/// Of what Prometheus takes, what can be put behind the proxy's text: no protocol buffers.
fn accepted(asked: Option<&HeaderValue>) -> String {
    let asked = asked.and_then(|text| text.to_str().ok()).unwrap_or_default();
    let mut kept: Vec<String> = Vec::new();
    for wanted in asked.split(',').map(str::trim) {
        let mut parts = wanted.split(';').map(str::trim);
        let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "*" | "*/*" => "text/plain;version=0.0.4".to_owned(),
            "application/*" => format!("{OPEN_METRICS};version=0.0.1"),
            media @ ("text/plain" | "text/*" | OPEN_METRICS) => {
                let parameters = parts.filter(|part| !part.starts_with("q=")).map(|part| format!(";{part}"));
                format!("{media}{}", parameters.collect::<String>())
            }
            _ => continue,
        };
        if !kept.contains(&media) {
            kept.push(media);
        }
    }
    if kept.is_empty() {
        return "text/plain;version=0.0.4".to_owned();
    }
    let count = kept.len();
    let ranked = kept.iter().enumerate().map(|(at, media)| match count {
        1..10 => format!("{media};q=0.{}", count - at),
        _ => media.clone(),
    });
    ranked.collect::<Vec<_>>().join(",")
}

/// A body without the mark that nothing follows it.
fn without_end(body: &[u8]) -> &[u8] {
    let trimmed = body.trim_ascii_end();
    trimmed.strip_suffix(END).unwrap_or(body)
}
