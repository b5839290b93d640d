//! Durations and moments.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use crate::cel::evaluate::{Budget, Failure, Outcome};
use crate::cel::value::Value;

pub(super) const METHODS: &[&str] = &[
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
];

pub(super) fn method(name: &str, arguments: &[Value], _: &Budget) -> Option<Outcome> {
    match arguments {
        [Value::Duration(duration)] => {
            let value = match name {
                "getHours" => duration.as_hours(),
                "getMinutes" => duration.as_mins(),
                "getSeconds" => duration.as_secs(),
                "getMilliseconds" => duration.subsec_millis().into(),
                _ => return None,
            };
            Some(Ok(Value::Int(value)))
        }
        [Value::Timestamp(at)] => part(name, at.to_zoned(TimeZone::UTC).datetime()).map(Ok),
        [Value::Timestamp(at), Value::Text(zone)] => match time_zone(zone) {
            Ok(zone) => part(name, at.to_zoned(zone).datetime()).map(Ok),
            Err(error) => Some(Err(error)),
        },
        _ => None,
    }
}

/// `+02:00`, `-03:30` or UTC: names of zones need a database, which a rule must not depend on.
fn time_zone(text: &str) -> Result<TimeZone, Failure> {
    if matches!(text, "UTC" | "") {
        return Ok(TimeZone::UTC);
    }
    let unknown = || Failure(format!("unknown time zone {text:?}"));
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.trim_start_matches('+')), |rest| (-1, rest));
    let (hours, minutes) = digits.split_once(':').ok_or_else(unknown)?;
    let number = |text: &str| text.parse::<i32>().map_err(|_| unknown());
    let seconds = sign * (number(hours)? * 3600 + number(minutes)? * 60);
    Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown())
}

/// Months and days count from 0, but for `getDate`.
fn part(name: &str, at: DateTime) -> Option<Value> {
    let value: i64 = match name {
        "getFullYear" => at.year().into(),
        "getMonth" => i64::from(at.month()) - 1,
        "getDate" => at.day().into(),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => at.weekday().to_sunday_zero_offset().into(),
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getHours" => at.hour().into(),
        "getMinutes" => at.minute().into(),
        "getSeconds" => at.second().into(),
        "getMilliseconds" => at.millisecond().into(),
        _ => return None,
    };
    Some(Value::Int(value))
}

/// As Go writes durations, with their sign.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, ()> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if rest.starts_with('-') || (negative && rest.starts_with('+')) {
        return Err(());
    }
    let value = crate::wire::parse_duration(rest).map_err(|_| ())?;
    let value = SignedDuration::try_from(value).map_err(|_| ())?;
    Ok(if negative { -value } else { value })
}

/// As protobuf writes durations.
pub(super) fn seconds(value: SignedDuration) -> String {
    let sign = if value.is_negative() { "-" } else { "" };
    format!("{sign}{}", crate::wire::format_duration(value.unsigned_abs()))
}
