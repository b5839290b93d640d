//! A report as text: what becomes of the request first, then its way, each step below the one before.

use std::fmt::Write;

use super::{Candidate, Report, Step, Upstream, words};
use crate::origin::Place;
use crate::policy;

/// As many endpoints of a cluster are listed.
const MAX_ENDPOINTS: usize = 10;

/// Marks for a terminal; none of them elsewhere.
#[derive(Clone, Copy)]
struct Paint {
    on: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn verdict(self, text: &str, good: bool) -> String {
        self.with(if good { "1;32" } else { "1;31" }, text)
    }
}

struct Lines {
    out: String,
    paint: Paint,
}

impl Lines {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{:indent$}{text}", "", indent = depth * 2);
    }

    fn places(&mut self, depth: usize, places: &[Place]) {
        for place in places {
            let at = place.source.as_ref().map(|source| format!("  {source}")).unwrap_or_default();
            let text = format!("from {}{}", place.title(), self.paint.faint(&at));
            self.line(depth, &text);
        }
    }

    fn facts(&mut self, depth: usize, facts: &[(&'static str, String)]) {
        for (name, text) in facts {
            self.line(depth, &format!("{name}: {text}"));
        }
    }
}

impl Report {
    /// Text for a person.
    pub fn text(&self, colour: bool) -> String {
        let paint = Paint { on: colour };
        let mut lines = Lines { out: String::new(), paint };
        lines.line(0, &format!("{} from {}", self.request, self.proxy));
        lines.line(0, &paint.verdict(&self.verdict, self.is_served));
        lines.line(0, "");
        let mut depth = 0;
        for step in &self.steps {
            one(&mut lines, depth, step);
            depth += 1;
        }
        for upstream in &self.upstreams {
            cluster(&mut lines, depth, upstream, self.upstreams.len() > 1);
        }
        if !self.notes.is_empty() {
            lines.line(0, "");
        }
        for note in &self.notes {
            lines.line(0, &format!("note: {note}"));
        }
        lines.out
    }
}

fn one(lines: &mut Lines, depth: usize, step: &Step) {
    let name = if step.name.is_empty() { String::new() } else { format!(" {}", lines.paint.strong(&step.name)) };
    lines.line(depth, &format!("{}{name}: {}", step.kind, step.why));
    lines.places(depth + 2, &step.places);
    lines.facts(depth + 2, &step.facts);
    // Of filter chains a person wants to know only when none fitted.
    if step.kind == "filter chain" && step.is_found {
        return;
    }
    for passed in &step.passed {
        let at = passed.place.as_ref().and_then(|place| place.source.as_ref());
        let at = at.map(|source| lines.paint.faint(&format!("  {source}"))).unwrap_or_default();
        lines.line(depth + 2, &format!("passed over {}: {}{at}", passed.name, passed.reason));
    }
}

fn cluster(lines: &mut Lines, depth: usize, upstream: &Upstream, shared: bool) {
    let share = if shared { format!("{} ", words::percent(upstream.share)) } else { String::new() };
    let text = format!("{share}cluster {}", lines.paint.strong(&upstream.cluster));
    let text = match &upstream.problem {
        Some(problem) => format!("{text}: {}", lines.paint.verdict(problem, false)),
        None => text,
    };
    lines.line(depth, &text);
    lines.places(depth + 2, &upstream.places);
    lines.facts(depth + 2, &upstream.facts);
    for candidate in upstream.endpoints.iter().take(MAX_ENDPOINTS) {
        let text = endpoint(candidate);
        lines.line(depth + 1, &text);
    }
    if let Some(more) = upstream.endpoints.len().checked_sub(MAX_ENDPOINTS).filter(|more| *more > 0) {
        lines.line(depth + 1, &format!("and {more} endpoints more"));
    }
}

fn endpoint(candidate: &Candidate) -> String {
    let mut parts = vec![format!("endpoint {}", candidate.address)];
    let Candidate { workload, locality, priority, weight, health, security, .. } = candidate;
    if !workload.is_empty() {
        parts.push(workload.clone());
    }
    if !locality.is_empty() {
        parts.push(format!("in {locality}"));
    }
    parts.push((*health).to_owned());
    if *weight != 1 {
        parts.push(format!("weight {weight}"));
    }
    if *priority != 0 {
        parts.push(format!("priority {priority}, after those before it"));
    }
    parts.push(security.clone());
    match (&candidate.problem, policy::summary(&candidate.policies)) {
        (Some(problem), _) => parts.push(format!("there {problem}")),
        (None, Some(summary)) => parts.push(format!("there {summary}")),
        (None, None) => {}
    }
    parts.join(", ")
}
