//! The ConfigMap `istio`: documents within a document.
//!
//! Owns which line of the file a line of such a text is.

use super::de::Finding;
use super::tree::Node;
use super::{Part, parse_mesh_config, parse_mesh_networks};
use crate::object::{Key, Object, Spec};
use crate::problem::{Problem, Severity};

/// What is wrong with the mesh configuration and the networks in it.
pub(super) fn findings(object: &Object, root: &Node, part: &Part<'_>) -> Vec<Finding> {
    let Spec::ConfigMap(map) = &object.spec else { return Vec::new() };
    if object.key() != Key::mesh_config_map() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut inside = |key: &str, check: &dyn Fn(&str) -> Vec<Problem>| {
        if let Some(text) = map.data.get(key) {
            let first = FirstLine::of(root, part, key);
            found.extend(check(text).into_iter().map(|problem| first.finding(key, problem)));
        }
    };
    inside("mesh", &|text| match parse_mesh_config("", text) {
        Ok(settings) => settings.warnings,
        Err(problems) => problems,
    });
    inside("meshNetworks", &|text| match parse_mesh_networks("", text) {
        Ok(settings) if settings.value.networks.is_empty() => settings.warnings,
        Ok(mut settings) => {
            settings.warnings.push(unsupported());
            settings.warnings
        }
        Err(problems) => problems,
    });
    found
}

fn unsupported() -> Problem {
    Problem {
        severity: Severity::Warning,
        source: crate::problem::Source { file: "".into(), line: 1 },
        object: None,
        path: "networks".into(),
        message: "has no effect: more than one network is not supported yet".into(),
        suggestion: None,
    }
}

/// Where the text of an entry begins.
struct FirstLine {
    /// The line of the key.
    key: u32,
    /// The text stands below its key, line by line.
    is_block: bool,
}

impl FirstLine {
    fn of(root: &Node, part: &Part<'_>, key: &str) -> Self {
        let entry = root.get("data").and_then(|data| data.entry(key));
        let line = entry.map_or(root.line, |entry| entry.line);
        let written = part.text.lines().nth((line - part.first_line) as usize).unwrap_or_default();
        let after = written.split_once(':').map_or("", |(_, after)| after.trim_start());
        Self { key: line, is_block: after.starts_with(['|', '>']) }
    }

    fn finding(&self, key: &str, problem: Problem) -> Finding {
        let dot = if problem.path.is_empty() { "" } else { "." };
        Finding {
            severity: problem.severity,
            line: if self.is_block { self.key + problem.source.line } else { self.key },
            path: format!("data.{key}{dot}{}", problem.path),
            message: problem.message,
            suggestion: problem.suggestion,
        }
    }
}
