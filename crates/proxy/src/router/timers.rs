//! The times of one request: all of them behind the exchange's single deadline.

use std::time::Duration;

use meltemi_http::{Headers, name};
use meltemi_plan::route::{Forward, MaxStreamDuration};
use meltemi_upstream::TrafficStats;
use tokio::time::Instant;

use super::retry::Retries;
use crate::hcm::Exchange;

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The route's timeout for the whole response.
    Request,
    /// One attempt's.
    PerTry,
    /// One attempt's time without response bytes.
    PerTryIdle,
    /// Nothing moved either way.
    StreamIdle,
    /// The stream as a whole.
    MaxDuration,
}

impl Expired {
    /// Otherwise the connection manager's.
    pub fn is_of_router(self) -> bool {
        matches!(self, Self::Request | Self::PerTry | Self::PerTryIdle)
    }

    pub fn count(self, traffic: &TrafficStats) {
        match self {
            Self::Request => traffic.upstream_rq_timeout().inc(),
            Self::PerTry => traffic.upstream_rq_per_try_timeout().inc(),
            Self::PerTryIdle => traffic.upstream_rq_per_try_idle_timeout().inc(),
            Self::MaxDuration => traffic.upstream_rq_max_duration_reached().inc(),
            Self::StreamIdle => {}
        }
        traffic.upstream_rq_tx_reset().inc();
    }
}

#[derive(Default)]
pub(super) struct Timers {
    request: Option<Duration>,
    per_try: Option<Duration>,
    per_try_idle: Option<Duration>,
    idle: Option<Duration>,
    max: Option<Duration>,
    request_due: Option<Instant>,
    per_try_due: Option<Instant>,
    per_try_idle_due: Option<Instant>,
    idle_due: Option<Instant>,
    max_due: Option<Instant>,
}

impl Timers {
    /// Takes the headers that ask for timeouts: they are for this hop.
    pub fn new(exchange: &mut Exchange<'_>, forward: &Forward, retries: &Retries) -> Self {
        let mut request = of_route(forward, &exchange.request.headers, exchange.info.is_grpc);
        let headers = &mut exchange.request.headers;
        let mut millis = |key| headers.remove(&key)?.to_str().ok()?.parse().ok().map(Duration::from_millis);
        if let Some(asked) = millis(name::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS) {
            request = Some(asked);
        }
        let per_try = millis(name::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS).or(retries.per_try_timeout());
        let non_zero = |d: &Duration| !d.is_zero();
        let request = request.filter(non_zero);
        let plan = &exchange.context.http.plan;
        let stream_max = forward.max_stream_duration.as_ref().and_then(|max| of_stream(max, headers));
        Self {
            request,
            // A try that may take longer than the whole has no limit of its own.
            per_try: per_try.filter(non_zero).filter(|per_try| request.is_none_or(|request| *per_try < request)),
            per_try_idle: retries.per_try_idle_timeout().filter(non_zero),
            idle: forward.idle_timeout.or(plan.stream_idle_timeout).filter(non_zero),
            max: stream_max.or(plan.max_stream_duration).filter(non_zero),
            request_due: None,
            per_try_due: None,
            per_try_idle_due: None,
            idle_due: None,
            max_due: None,
        }
    }

    /// What the next hop may expect of an attempt that begins now: less with each, as the request's time goes by.
    pub fn expected(&self, now: Instant) -> Option<Duration> {
        let whole = self.per_try.or(self.request)?;
        let left = self.request_due.map_or(whole, |due| due.saturating_duration_since(now));
        // None left would read as no limit.
        Some(whole.min(left.max(Duration::from_millis(1))))
    }

    pub fn start(&mut self, now: Instant, request_done: bool) {
        self.max_due = after(now, self.max);
        self.idle_due = after(now, self.idle);
        if request_done {
            self.request_sent(now);
        }
    }

    /// The request has been received in whole: from here on its response is waited for.
    pub fn request_sent(&mut self, now: Instant) {
        if self.request_due.is_none() {
            self.request_due = after(now, self.request);
        }
    }

    pub fn begin_try(&mut self, now: Instant) {
        self.per_try_due = after(now, self.per_try);
        self.per_try_idle_due = after(now, self.per_try_idle);
    }

    /// Something moved.
    pub fn progress(&mut self, now: Instant) {
        self.idle_due = after(now, self.idle);
        self.per_try_idle_due = after(now, self.per_try_idle);
    }

    /// The response has begun: a try is no longer to be given up.
    pub fn response_began(&mut self) {
        self.per_try_due = None;
    }

    /// An upgraded stream lasts as long as it lasts; only idleness ends it.
    pub fn upgraded(&mut self) {
        self.request_due = None;
        self.per_try_due = None;
        self.max_due = None;
    }

    pub fn due(&self) -> Option<Instant> {
        [self.request_due, self.per_try_due, self.per_try_idle_due, self.idle_due, self.max_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// What ran out by `now`; the widest first, because it cannot be retried.
    pub fn expired(&self, now: Instant) -> Option<Expired> {
        let past = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        [
            (self.max_due, Expired::MaxDuration),
            (self.request_due, Expired::Request),
            (self.per_try_due, Expired::PerTry),
            (self.per_try_idle_due, Expired::PerTryIdle),
            (self.idle_due, Expired::StreamIdle),
        ]
        .into_iter()
        .find(|(due, _)| past(*due))
        .map(|(_, expired)| expired)
    }
}

fn after(now: Instant, limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| now.checked_add(limit))
}

/// The limit of the whole response. A route that limits streams has none.
fn of_route(forward: &Forward, headers: &Headers, is_grpc: bool) -> Option<Duration> {
    if forward.max_stream_duration.is_some() {
        return None;
    }
    match forward.max_grpc_timeout.filter(|_| is_grpc) {
        Some(max) => Some(grpc_timeout(asked(headers), max, forward.grpc_timeout_offset)),
        None => forward.timeout,
    }
}

/// The limit of a stream: by its `grpc-timeout` where the route looks at it.
fn of_stream(max: &MaxStreamDuration, headers: &Headers) -> Option<Duration> {
    let (Some(asked), Some(limit)) = (asked(headers), max.grpc_timeout_max) else { return max.duration };
    let limited = if limit.is_zero() { asked } else { asked.min(limit) };
    Some(limited.saturating_sub(max.grpc_timeout_offset.unwrap_or_default()))
}

fn asked(headers: &Headers) -> Option<Duration> {
    headers.get_str(&name::GRPC_TIMEOUT).and_then(parse_grpc_timeout)
}

/// `grpc-timeout` less the offset, within `max` (zero: any). Without the header there is no limit but `max`.
fn grpc_timeout(asked: Option<Duration>, max: Duration, offset: Option<Duration>) -> Duration {
    let mut asked = asked.unwrap_or(Duration::ZERO);
    if let Some(offset) = offset.filter(|offset| *offset < asked) {
        asked -= offset;
    }
    if !max.is_zero() && (asked.is_zero() || asked > max) { max } else { asked }
}

/// Up to 8 digits and a unit.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        let cases = [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("2H", Some(Duration::from_secs(7200))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("5x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_grpc_timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn the_expected_timeout_shrinks_with_the_time_that_is_left() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut timers = Timers { request: Some(ms(300)), ..Timers::default() };
        assert_eq!(timers.expected(start), Some(ms(300)));
        timers.request_sent(start);
        assert_eq!(timers.expected(start + ms(100)), Some(ms(200)));
        assert_eq!(timers.expected(start + ms(400)), Some(ms(1)), "none left must not read as no limit");
        timers.per_try = Some(ms(50));
        assert_eq!(timers.expected(start + ms(100)), Some(ms(50)));
        assert_eq!(timers.expected(start + ms(280)), Some(ms(20)));
        assert_eq!(Timers::default().expected(start), None);
    }

    #[test]
    fn a_stream_may_be_limited_by_its_grpc_timeout() {
        let ms = Duration::from_millis;
        let limit = |max: Option<u64>, offset: Option<u64>| MaxStreamDuration {
            duration: Some(ms(10)),
            grpc_timeout_max: max.map(ms),
            grpc_timeout_offset: offset.map(ms),
        };
        let mut headers = Headers::new();
        assert_eq!(of_stream(&limit(Some(0), None), &headers), Some(ms(10)));
        headers.append(name::GRPC_TIMEOUT, http::HeaderValue::from_static("500m"));
        let cases = [
            (limit(None, None), 10),
            (limit(Some(0), None), 500),
            (limit(Some(200), None), 200),
            (limit(Some(0), Some(100)), 400),
            (limit(Some(200), Some(300)), 0),
        ];
        for (max, expected) in cases {
            assert_eq!(of_stream(&max, &headers), Some(ms(expected)), "{max:?}");
        }
        assert_eq!(grpc_timeout(Some(ms(500)), ms(450), Some(ms(100))), ms(400));
    }
}
