//! Prometheus text exposition 0.0.4, and Envoy's `/stats` in text and JSON. Runs on the admin thread, never on a worker.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::quantiles::{self, Buckets};
use super::{Group, Kind, Registry, Spec, cells};

/// Which metrics to show.
#[derive(Default)]
pub struct Filter<'a> {
    /// Hide what was never counted.
    pub used_only: bool,
    /// Over the `/stats` name.
    pub name: Option<&'a dyn Fn(&str) -> bool>,
    /// Only these.
    pub kind: Option<KindName>,
}

/// Envoy's `?type=`. Text readouts are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindName {
    Counters,
    Gauges,
    Histograms,
    TextReadouts,
}

impl KindName {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counters,
            Kind::Gauge => Self::Gauges,
            Kind::Histogram(_) => Self::Histograms,
        }
    }
}

impl Filter<'_> {
    fn shows(&self, group: &Group, index: usize, name: &str, cells: &[u64]) -> bool {
        let spec = &group.0.list.specs[index];
        let zero = cells.iter().all(|cell| *cell == 0);
        let hidden = zero && (spec.hides_zero() || self.used_only && !group.0.was_set(index));
        !hidden
            && self.kind.is_none_or(|kind| kind == KindName::of(spec.kind))
            && self.name.is_none_or(|matches| matches(name))
    }
}

struct Sample {
    labels: String,
    kind: Kind,
    cells: Vec<u64>,
}

impl Registry {
    /// Prometheus text, families sorted by name, series by labels.
    pub fn prometheus(&self, filter: &Filter<'_>) -> String {
        let mut families: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        self.visit(filter, |group, spec, cells| {
            let metric = spec.tag.as_ref().map_or(&spec.name, |t| &t.metric);
            let name = prometheus_name(group, metric);
            let sample = Sample { labels: label_text(group, spec), kind: spec.kind, cells };
            families.entry(name).or_default().push(sample);
        });
        let mut out = String::new();
        for (name, mut samples) in families {
            samples.sort_by(|a, b| a.labels.cmp(&b.labels));
            let kind = match samples[0].kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for sample in samples {
                write_sample(&mut out, &name, &sample);
            }
        }
        out
    }

    /// Envoy's `/stats`: `name: value`, sorted, then histograms.
    pub fn text(&self, filter: &Filter<'_>) -> String {
        self.text_with(filter, Buckets::Summary)
    }

    /// The same with histograms as asked.
    pub fn text_with(&self, filter: &Filter<'_>, buckets: Buckets) -> String {
        let mut lines = BTreeMap::new();
        let mut histograms = BTreeMap::new();
        self.visit(filter, |group, spec, cells| {
            let name = text_name(group, spec);
            match spec.kind {
                Kind::Counter => lines.insert(name, cells[0].to_string()),
                Kind::Gauge => lines.insert(name, (cells[0] as i64).max(0).to_string()),
                Kind::Histogram(bounds) => {
                    histograms.insert(name, quantiles::text(bounds, &cells[..=bounds.len()], buckets))
                }
            };
        });
        let mut out = String::new();
        for (name, value) in lines.into_iter().chain(histograms) {
            let _ = writeln!(out, "{name}: {value}");
        }
        out
    }

    /// Envoy's `/stats?format=json`.
    pub fn json(&self, filter: &Filter<'_>) -> serde_json::Value {
        let mut stats = BTreeMap::new();
        self.visit(filter, |group, spec, cells| {
            let name = text_name(group, spec);
            let value = match spec.kind {
                Kind::Counter => serde_json::json!({ "name": name, "value": cells[0] }),
                Kind::Gauge => serde_json::json!({ "name": name, "value": (cells[0] as i64).max(0) }),
                Kind::Histogram(bounds) => {
                    let count: u64 = cells[..=bounds.len()].iter().sum();
                    serde_json::json!({ "name": name, "count": count, "sum": cells[bounds.len() + 1] as f64 / 1000.0 })
                }
            };
            stats.insert(name, value);
        });
        serde_json::json!({ "stats": stats.into_values().collect::<Vec<_>>() })
    }

    /// Envoy's `/reset_counters`: what was counted until now is forgotten.
    pub fn reset_counters(&self) {
        for group in self.live() {
            let counters = group.0.list.specs.iter().enumerate().filter(|(_, spec)| spec.kind == Kind::Counter);
            for (index, _) in counters {
                cells::set(group.cell(index), 0);
            }
        }
    }

    fn visit(&self, filter: &Filter<'_>, mut show: impl FnMut(&Group, &Spec, Vec<u64>)) {
        for group in self.live() {
            let Some(range) = &group.0.range else { continue };
            let values = cells::sum_range(range.base, range.len);
            for (i, spec) in group.0.list.specs.iter().enumerate() {
                let first = group.0.list.offsets[i] as usize;
                let cells = values[first..first + spec.kind.cells() as usize].to_vec();
                if filter.shows(&group, i, &text_name(&group, spec), &cells) {
                    show(&group, spec, cells);
                }
            }
        }
    }
}

/// A metric's name with its group's prefix.
pub(super) fn prometheus_name(group: &Group, metric: &str) -> String {
    sanitised(&format!("{}{metric}", group.0.scope.prometheus))
}

fn text_name(group: &Group, spec: &Spec) -> String {
    let text = group.0.scope.text();
    let mut name = format!("{text}{}", spec.name);
    // Envoy's scopes carry their labels in the prefix; Istio's carry them after the name.
    if text.is_empty() {
        for (k, v) in group.labels().iter() {
            let _ = write!(name, ".{k}.{v}");
        }
    }
    name
}

fn label_text(group: &Group, spec: &Spec) -> String {
    let mut out = String::new();
    let tag = spec.tag.as_ref().map(|t| (t.label, &*t.value));
    for (name, value) in tag.into_iter().chain(group.labels().iter()) {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{}=\"", sanitised(name));
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

fn sanitised(name: &str) -> String {
    let mut out: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' }).collect();
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

fn write_sample(out: &mut String, name: &str, sample: &Sample) {
    let braced = if sample.labels.is_empty() { String::new() } else { format!("{{{}}}", sample.labels) };
    let _ = match sample.kind {
        Kind::Counter => writeln!(out, "{name}{braced} {}", sample.cells[0]),
        Kind::Gauge => writeln!(out, "{name}{braced} {}", sample.cells[0] as i64),
        Kind::Histogram(bounds) => {
            let comma = if sample.labels.is_empty() { "" } else { "," };
            let mut count = 0;
            for (i, cell) in sample.cells[..=bounds.len()].iter().enumerate() {
                count += cell;
                let _ = write!(out, "{name}_bucket{{{}{comma}le=\"", sample.labels);
                let _ = match bounds.get(i) {
                    Some(bound) => write!(out, "{}", *bound as f64 / 1000.0),
                    None => write!(out, "+Inf"),
                };
                let _ = writeln!(out, "\"}} {count}");
            }
            let _ = writeln!(out, "{name}_sum{braced} {}", sample.cells[bounds.len() + 1] as f64 / 1000.0);
            writeln!(out, "{name}_count{braced} {count}")
        }
    };
}
