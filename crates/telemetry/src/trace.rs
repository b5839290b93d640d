//! Trace context: W3C Trace Context level 1 and B3 (single header and multiple), read and written as pure functions.
//!
//! Malformed context is dropped as if absent, as both specifications ask; it is never an error of the request.

#[cfg(test)]
mod tests;

/// Which headers carry the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// `traceparent`, `tracestate`.
    W3c,
    /// `b3`.
    B3Single,
    /// `x-b3-traceid`, `x-b3-spanid`, `x-b3-parentspanid`, `x-b3-sampled`, `x-b3-flags`.
    B3Multi,
}

pub const TRACEPARENT: &str = "traceparent";
pub const TRACESTATE: &str = "tracestate";
pub const B3: &str = "b3";
pub const B3_TRACE_ID: &str = "x-b3-traceid";
pub const B3_SPAN_ID: &str = "x-b3-spanid";
pub const B3_PARENT_SPAN_ID: &str = "x-b3-parentspanid";
pub const B3_SAMPLED: &str = "x-b3-sampled";
pub const B3_FLAGS: &str = "x-b3-flags";

/// Where a request stands in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    pub span_id: u64,
    pub parent_id: Option<u64>,
    /// `None` leaves the decision to whoever is next.
    pub sampled: Option<bool>,
    /// B3's debug flag: sampled, and not to be dropped by collectors.
    pub debug: bool,
    /// W3C vendor state, passed on unchanged.
    pub state: Option<String>,
}

impl TraceContext {
    /// Starts a trace.
    pub fn root(sampled: bool) -> Self {
        Self {
            trace_id: rand::random::<u128>().max(1),
            span_id: rand::random::<u64>().max(1),
            parent_id: None,
            sampled: Some(sampled),
            debug: false,
            state: None,
        }
    }

    /// A new span below this one.
    pub fn child(&self) -> Self {
        Self { span_id: rand::random::<u64>().max(1), parent_id: Some(self.span_id), ..self.clone() }
    }

    pub fn is_sampled(&self) -> bool {
        self.debug || self.sampled == Some(true)
    }

    /// The first of `formats` that the headers carry well-formed.
    pub fn extract<'a>(formats: &[Propagation], header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        formats.iter().find_map(|format| match format {
            Propagation::W3c => {
                let mut context = parse_traceparent(header(TRACEPARENT)?)?;
                context.state = header(TRACESTATE).map(str::to_owned);
                Some(context)
            }
            Propagation::B3Single => parse_b3(header(B3)?),
            Propagation::B3Multi => parse_b3_multi(&header),
        })
    }

    /// The headers to set for each of `formats`.
    pub fn inject(&self, formats: &[Propagation], mut set: impl FnMut(&'static str, String)) {
        for format in formats {
            match format {
                Propagation::W3c => {
                    let flags = u8::from(self.is_sampled());
                    set(TRACEPARENT, format!("00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id));
                    if let Some(state) = &self.state {
                        set(TRACESTATE, state.clone());
                    }
                }
                Propagation::B3Single => set(B3, self.b3()),
                Propagation::B3Multi => {
                    set(B3_TRACE_ID, self.b3_trace_id());
                    set(B3_SPAN_ID, format!("{:016x}", self.span_id));
                    if let Some(parent) = self.parent_id {
                        set(B3_PARENT_SPAN_ID, format!("{parent:016x}"));
                    }
                    match (self.debug, self.sampled) {
                        (true, _) => set(B3_FLAGS, "1".to_owned()),
                        (false, Some(sampled)) => set(B3_SAMPLED, if sampled { "1" } else { "0" }.to_owned()),
                        (false, None) => {}
                    }
                }
            }
        }
    }

    fn b3(&self) -> String {
        let mut out = format!("{}-{:016x}", self.b3_trace_id(), self.span_id);
        match (self.debug, self.sampled) {
            (true, _) => out.push_str("-d"),
            (false, Some(true)) => out.push_str("-1"),
            (false, Some(false)) => out.push_str("-0"),
            (false, None) => return out,
        }
        if let Some(parent) = self.parent_id {
            out.push_str(&format!("-{parent:016x}"));
        }
        out
    }

    /// 64-bit trace ids stay 16 digits long.
    fn b3_trace_id(&self) -> String {
        match u64::try_from(self.trace_id) {
            Ok(short) => format!("{short:016x}"),
            Err(_) => format!("{:032x}", self.trace_id),
        }
    }

    /// As OTLP and most UIs show it.
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// Exactly `digits` lower-case hexadecimal digits, not all zero.
fn id(text: &str, digits: usize) -> Option<u128> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != digits || !text.bytes().all(hex) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().filter(|id| *id != 0)
}

/// B3 allows upper case.
fn b3_trace_id(text: &str) -> Option<u128> {
    let lower = text.to_ascii_lowercase();
    id(&lower, 32).or_else(|| id(&lower, 16))
}

fn b3_span_id(text: &str) -> Option<u64> {
    id(&text.to_ascii_lowercase(), 16).map(|id| id as u64)
}

/// W3C Trace Context section 3.2. A later version may append fields after the flags.
fn parse_traceparent(value: &str) -> Option<TraceContext> {
    let mut parts = value.trim().splitn(4, '-');
    let (version, trace_id, span_id, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !lower_hex(version) || version == "ff" {
        return None;
    }
    let (flags, more) = rest.split_at_checked(2)?;
    let extended = version != "00" && more.starts_with('-');
    if !lower_hex(flags) || !(more.is_empty() || extended) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(TraceContext {
        trace_id: id(trace_id, 32)?,
        span_id: id(span_id, 16)? as u64,
        parent_id: None,
        sampled: Some(flags & 1 == 1),
        debug: false,
        state: None,
    })
}

/// `{trace}-{span}[-{sampled}[-{parent}]]`. A lone sampling state carries no ids and is left to the sampler.
fn parse_b3(value: &str) -> Option<TraceContext> {
    let parts: Vec<&str> = value.trim().split('-').collect();
    let (&[trace, span] | &[trace, span, _] | &[trace, span, _, _]) = parts.as_slice() else { return None };
    let (sampled, debug) = match parts.get(2) {
        None => (None, false),
        Some(&"1") => (Some(true), false),
        Some(&"0") => (Some(false), false),
        Some(&"d") => (Some(true), true),
        Some(_) => return None,
    };
    let parent_id = match parts.get(3) {
        None => None,
        Some(parent) => Some(b3_span_id(parent)?),
    };
    let (trace_id, span_id) = (b3_trace_id(trace)?, b3_span_id(span)?);
    Some(TraceContext { trace_id, span_id, parent_id, sampled, debug, state: None })
}

fn parse_b3_multi<'a>(header: &impl Fn(&str) -> Option<&'a str>) -> Option<TraceContext> {
    let debug = header(B3_FLAGS) == Some("1");
    let sampled = match header(B3_SAMPLED) {
        Some("1" | "true") => Some(true),
        Some("0" | "false") => Some(false),
        _ => debug.then_some(true),
    };
    Some(TraceContext {
        trace_id: b3_trace_id(header(B3_TRACE_ID)?)?,
        span_id: b3_span_id(header(B3_SPAN_ID)?)?,
        parent_id: header(B3_PARENT_SPAN_ID).and_then(b3_span_id),
        sampled,
        debug,
        state: None,
    })
}

/// The tracing decision of Envoy's connection manager, in parts of 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// For requests with `x-client-trace-id`.
    pub client: u32,
    pub random: u32,
    /// Cap over both.
    pub overall: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { client: 10_000, random: 10_000, overall: 10_000 }
    }
}

/// Why a request is traced; what Envoy encodes in the request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceReason {
    NotTraced,
    Sampled,
    Client,
    Forced,
}

impl Sampling {
    /// `roll` is uniform over all of u64; the two rolls Envoy takes are its halves.
    pub fn decide(&self, forced: bool, client: bool, roll: u64) -> TraceReason {
        let first = (roll % 10_000) as u32;
        let second = ((roll >> 32) % 10_000) as u32;
        let reason = match (forced, client) {
            (true, _) => TraceReason::Forced,
            (false, true) if first < self.client => TraceReason::Client,
            (false, _) if first < self.random => TraceReason::Sampled,
            _ => return TraceReason::NotTraced,
        };
        if second < self.overall { reason } else { TraceReason::NotTraced }
    }
}
