//! `meltemi x authz-case`: what becomes of policies, held against what a case expects and tried with generated requests.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use meltemi_explain::case::{Judgement, play_policies};
use meltemi_explain::trial::SEED;
use serde_json::json;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi x authz-case ./cases/http-allow-path      # AuthorizationPolicies to Envoy's filters
  meltemi x authz-case ./ambient/allow-groups       # a policy of the ambient data plane
  meltemi x authz-case --seed 7 -o json ./cases/*   # other requests of chance, a line of JSON for each case

What comes of the input must be the expected messages, and must decide requests that are made up from the policies as an
evaluation of those messages does, by the same policy. Requests at the boundaries of each rule come first, then some of chance.

Exit codes: 0 every case passed; 1 one did not, or could not be read; 2 wrong usage")]
pub struct Arguments {
    /// Folders of cases, each with case.yaml, input.yaml and what is expected
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Of the requests of chance
    #[arg(long, value_name = "NUMBER", default_value_t = SEED)]
    seed: u64,
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut code = ExitCode::SUCCESS;
    for folder in &arguments.folders {
        let judged = play_policies(folder, arguments.seed)?;
        if !judged.passed() {
            code = ExitCode::FAILURE;
        }
        match arguments.output {
            Output::Text => write!(out, "{}", text(folder, &judged))?,
            Output::Json => {
                let mut line = judged.json();
                line["case"] = json!(folder);
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(code)
}

/// A line for the case, and under it what is wrong and what was tried.
fn text(folder: &Path, judged: &Judgement) -> String {
    let mut lines = vec![format!("{} {}", if judged.passed() { "pass" } else { "fail" }, folder.display())];
    lines.extend(judged.problems.iter().map(|problem| format!("  {problem}")));
    if let Some(trial) = &judged.trial {
        let asked = if trial.asked > 0 { format!(", {} asked about", trial.asked) } else { String::new() };
        lines.push(format!("  {} requests: {} allowed, {} denied{asked}", trial.calls, trial.allowed, trial.denied));
        lines.extend(trial.notes.iter().map(|note| format!("  note: {note}")));
    }
    if let Some(disagreement) = judged.disagreement() {
        lines.push("  the first request that is decided otherwise:".into());
        lines.push(format!("    request: {}", disagreement.call));
        lines.push(format!("    expected: {}", disagreement.expected));
        lines.push(format!("    found: {}", disagreement.found));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
