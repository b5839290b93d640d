//! `%START_TIME%`: ISO 8601 with milliseconds by default, else strftime with Envoy's `%Nf`, `%E*S`, `%s`.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(super) fn write(out: &mut Vec<u8>, time: SystemTime, format: Option<&str>, local: bool) -> bool {
    match format {
        None => iso(out, time),
        Some(format) => strftime(out, time, format, local),
    }
}

thread_local! {
    /// The second last printed and its text: a worker prints many lines a second.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// `2026-11-21T09:30:05.123Z`.
fn iso(out: &mut Vec<u8>, time: SystemTime) -> bool {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            let Ok(timestamp) = Timestamp::from_second(since.as_secs() as i64) else { return false };
            *second = since.as_secs();
            *text = timestamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        let millis = since.subsec_millis();
        let digit = |n: u32| b'0' + (n % 10) as u8;
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
        true
    })
}

fn strftime(out: &mut Vec<u8>, time: SystemTime, format: &str, local: bool) -> bool {
    let Ok(timestamp) = Timestamp::try_from(time) else { return false };
    let zone = if local { TimeZone::system() } else { TimeZone::UTC };
    let subsecond = expand_subseconds(format, timestamp);
    let mut text = String::new();
    let printer = jiff::fmt::strtime::BrokenDownTime::from(&timestamp.to_zoned(zone));
    if printer.format(&subsecond, &mut text).is_err() {
        return false;
    }
    out.extend_from_slice(text.as_bytes());
    true
}

/// Replaces `%f` and `%1f` to `%9f` (digits of the fraction), `%s` with fraction digits `%3s`, and absl's `%E3S`, `%E*S`.
fn expand_subseconds(format: &str, timestamp: Timestamp) -> String {
    let nanos = format!("{:09}", timestamp.subsec_nanosecond().unsigned_abs());
    let seconds = timestamp.as_second();
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = &rest[at + 1..];
        let digit = |text: &str| text.chars().next().and_then(|c| c.to_digit(10)).filter(|d| (1..=9).contains(d));
        let digits = digit(spec);
        let (printed, used) = match (spec.as_bytes(), digits) {
            ([b'f', ..], _) => (nanos.clone(), 1),
            ([_, b'f', ..], Some(n)) => (nanos[..n as usize].to_owned(), 2),
            ([_, b's', ..], Some(n)) => (format!("{seconds}{}", &nanos[..n as usize]), 2),
            ([b's', ..], _) => (seconds.to_string(), 1),
            ([b'E', b'*', b'S', ..], _) => (format!("%S.{}", nanos.trim_end_matches('0')), 3),
            ([b'E', _, b'S', ..], _) if digit(&spec[1..]).is_some() => {
                (format!("%S.{}", &nanos[..digit(&spec[1..]).unwrap_or(9) as usize]), 3)
            }
            ([b'%', ..], _) => ("%%".to_owned(), 1),
            _ => ("%".to_owned(), 0),
        };
        out.push_str(&printed);
        rest = &spec[used..];
    }
    out.push_str(rest);
    out
}
