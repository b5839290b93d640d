//! Of durations. What is asked of a clock or of a calendar is not here: an injection says the same today and tomorrow.

use std::time::Duration;

use meltemi_config::parse_duration;

use super::super::functions::{Function, go_duration, number, text};

/// Units by their length in seconds, the longest first.
const UNITS: [(u64, &str); 6] =
    [(365 * 86_400, "y"), (30 * 86_400, "mo"), (86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("duration", |args| {
        let seconds = u64::try_from(number(args, 0)?).unwrap_or_default();
        Ok(go_duration(Duration::from_secs(seconds)).into())
    }),
    ("durationRound", |args| {
        let duration = parse_duration(&text(args, 0)?).unwrap_or_default();
        let unit = UNITS.iter().find(|(length, _)| duration > Duration::from_secs(*length));
        let rounded = unit.map(|(length, name)| format!("{}{name}", duration.as_secs() / length));
        Ok(rounded.unwrap_or_else(|| "0s".to_owned()).into())
    }),
];
