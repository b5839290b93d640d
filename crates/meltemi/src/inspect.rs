//! The commands that only look: `validate`, `version`, `completion`, `x support`.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use meltemi_config::{Problem, Severity, decode, parse_documents};
use serde_json::json;

/// sysexits' EX_DATAERR: the input is wrong.
const DATA_ERROR: u8 = 65;
const MAX_DEPTH: usize = 16;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi validate -f ./manifests
  kubectl get virtualservice -o yaml | meltemi validate -f -

Exit codes: 0 everything is valid, possibly with warnings; 1 a file cannot be read; 65 a document is wrong")]
pub struct Validate {
    /// Files or folders of YAML or JSON; - is standard input
    #[arg(short = 'f', long, required = true, value_name = "PATH", num_args = 1..)]
    filename: Vec<PathBuf>,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn validate(arguments: &Validate) -> anyhow::Result<ExitCode> {
    let (mut problems, mut documents) = (Vec::new(), 0);
    for path in &arguments.filename {
        for (name, bytes) in sources(path, 0)? {
            let text = match decode(&name, bytes) {
                Ok(text) => text,
                Err(problem) => {
                    problems.push(*problem);
                    continue;
                }
            };
            for document in parse_documents(&name, &text) {
                documents += 1;
                problems.extend(document.check());
            }
        }
    }
    let wrong = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let list: Vec<_> = problems.iter().map(problem_json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&json!({"documents": documents, "problems": list}))?)?;
    } else {
        for problem in &problems {
            writeln!(out, "{problem}")?;
        }
        writeln!(out, "{documents} documents, {wrong} errors, {} warnings", problems.len() - wrong)?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(DATA_ERROR) })
}

fn problem_json(problem: &Problem) -> serde_json::Value {
    json!({
        "severity": problem.severity.to_string(),
        "file": *problem.source.file,
        "line": problem.source.line,
        "object": problem.object.as_ref().map(ToString::to_string),
        "path": problem.path,
        "message": problem.message,
        "suggestion": problem.suggestion,
    })
}

/// The name and content of each file at a path.
fn sources(path: &Path, depth: usize) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(vec![("stdin".to_owned(), bytes)]);
    }
    let name = path.display().to_string();
    if !path.is_dir() {
        let bytes = std::fs::read(path).with_context(|| name.clone())?;
        return Ok(vec![(name, bytes)]);
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| name.clone())? {
        entries.push(entry.with_context(|| name.clone())?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let manifest = entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if manifest || (entry.is_dir() && depth < MAX_DEPTH) {
            found.extend(sources(&entry, depth + 1)?);
        }
    }
    Ok(found)
}

#[derive(Debug, Clone, Args)]
pub struct Version {
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn version(arguments: &Version) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if arguments.output == "json" {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({"clientVersion": {"version": version, "profile": profile}}))?
        );
    } else {
        println!("client version: {version}");
    }
    Ok(())
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  source <(meltemi completion bash)
  meltemi completion zsh > \"${fpath[1]}/_meltemi\"
  meltemi completion fish > ~/.config/fish/completions/meltemi.fish")]
pub struct Completion {
    shell: Shell,
}

pub fn completion<C: CommandFactory>(arguments: &Completion) {
    clap_complete::generate(arguments.shell, &mut C::command(), "meltemi", &mut std::io::stdout());
}
