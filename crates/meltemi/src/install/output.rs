//! How the commands of an installation speak: warnings and progress on standard error, data on standard output.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use meltemi_install::lifecycle::{Action, Change, Event};

const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// A word in colour, where somebody sees it.
fn coloured(word: &str, colour: &str) -> String {
    if std::io::stderr().is_terminal() { format!("{colour}{word}{PLAIN}") } else { word.to_owned() }
}

pub fn warn(notice: impl Display) {
    eprintln!("{}: {notice}", coloured("warning", YELLOW));
}

/// One line of progress an event; objects that stay as they are only when they are asked for.
pub fn progress(event: &Event) {
    match event {
        Event::Begun(component) => eprintln!("{}", component.title()),
        Event::Applied(change) if change.action == Action::Unchanged && change.taken_over.is_empty() => {}
        Event::Applied(change) => eprintln!("  {}", line(change)),
        Event::Waiting(lacking) => eprintln!("  waiting: {}", lacking.join("; ")),
        Event::Removed(key) => eprintln!("  {} {key}", coloured("removed", YELLOW)),
    }
}

fn line(change: &Change) -> String {
    let action = match change.action {
        Action::Created => coloured("created", GREEN),
        Action::Changed => coloured("changed", YELLOW),
        Action::Unchanged => "unchanged".to_owned(),
        Action::Removed => coloured("removed", YELLOW),
    };
    match &change.taken_over[..] {
        [] => format!("{action} {}", change.object),
        fields => format!("{action} {}, taken over: {}", change.object, fields.join("; ")),
    }
}

/// How many objects were created, changed and so on.
pub fn summary(changes: &[Change]) -> String {
    let count = |action: Action| changes.iter().filter(|change| change.action == action).count();
    format!(
        "{} created, {} changed, {} unchanged, {} removed",
        count(Action::Created),
        count(Action::Changed),
        count(Action::Unchanged),
        count(Action::Removed)
    )
}

/// Asks on the terminal; without one nobody can answer.
pub fn confirm(question: &str, agreed: bool) -> anyhow::Result<bool> {
    if agreed {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question}: nobody is here to answer; -y says yes");
    }
    eprint!("{question} (y/N) ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Columns as wide as what is in them.
pub fn table(out: &mut impl Write, rows: &[Vec<String>]) -> std::io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("   ").trim_end())?;
    }
    Ok(())
}

/// A duration with its unit: `90s`, `5m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    meltemi_config::parse_duration(text).map_err(|error| error.to_string())
}
