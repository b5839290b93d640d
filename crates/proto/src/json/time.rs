//! Durations and timestamps as text.

/// The largest magnitude of a `google.protobuf.Duration`, in seconds.
const MAX_SECONDS: i64 = 315_576_000_000;

/// Reads `1.5s` as protobuf writes it, and `1h2m3.5s`, `250ms`, `10us` as Go does.
pub(super) fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some((0, 0));
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = &rest[..digits];
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| digits + end);
        nanos = nanos.checked_add(scaled(number, unit_nanos(&rest[digits..unit_end])?)?)?;
        rest = &rest[unit_end..];
    }
    let nanos = if negative { -nanos } else { nanos };
    let seconds = i64::try_from(nanos / 1_000_000_000).ok().filter(|s| s.abs() <= MAX_SECONDS)?;
    Some((seconds, (nanos % 1_000_000_000) as i32))
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number`, decimal digits with at most one point, times `unit`.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 15 || fraction.contains('.') {
        return None;
    }
    let mut total = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? }.checked_mul(unit)?;
    let mut step = unit;
    for digit in fraction.bytes() {
        step /= 10;
        total += i128::from(digit - b'0') * step;
    }
    Some(total)
}

/// As protobuf's JSON: seconds with no, three, six or nine decimals.
pub(super) fn format_duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos.unsigned_abs()))
}

fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    }
}

/// RFC 3339 in UTC, as protobuf's JSON.
pub(super) fn format_timestamp(seconds: i64, nanos: i32) -> String {
    let stamp = prost_types::Timestamp { seconds, nanos: 0 }.to_string();
    format!("{}{}Z", stamp.trim_end_matches('Z'), fraction(nanos.max(0).unsigned_abs()))
}

pub(super) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let stamp: prost_types::Timestamp = text.parse().ok()?;
    Some((stamp.seconds, stamp.nanos))
}
