//! `meltemi profile`: what installations begin with.

use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use meltemi_install::path::find;
use meltemi_install::profile::{PROFILES, Profile as Named};
use meltemi_install::yaml;
use serde_json::{Map, Value, json};

use super::{DATA_ERROR, Inputs, output};

#[derive(Debug, Clone, Subcommand)]
pub enum Profile {
    /// List the profiles
    List(List),
    /// Print what a profile, or documents over theirs, come to
    Dump(Dump),
    /// Print in what two profiles differ
    Diff(Diff),
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi profile list
  meltemi profile list -o json")]
pub struct List {
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi profile dump demo
  meltemi profile dump -f mesh.yaml --config-path values.pilot
  meltemi profile dump demo -o json")]
pub struct Dump {
    /// Name of a profile
    #[arg(value_name = "PROFILE")]
    profile: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Only what lies at this place of the spec
    #[arg(short = 'p', long, value_name = "PATH")]
    config_path: Option<String>,
    /// yaml or json
    #[arg(short, long, default_value = "yaml", value_parser = ["yaml", "json"])]
    output: String,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi profile diff default demo

Exit codes: 0 they are the same; 1 they differ; 65 a name is none")]
pub struct Diff {
    /// A profile
    #[arg(value_name = "FIRST")]
    first: String,
    /// The profile that it is compared with
    #[arg(value_name = "SECOND")]
    second: String,
}

pub fn run(command: &Profile) -> anyhow::Result<ExitCode> {
    match command {
        Profile::List(arguments) => list(arguments),
        Profile::Dump(arguments) => dump(arguments),
        Profile::Diff(arguments) => diff(arguments),
    }
}

fn list(arguments: &List) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let profiles: Vec<_> = PROFILES.iter().map(|it| json!({"name": it.name, "summary": it.summary})).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&profiles)?)?;
    } else {
        let rows: Vec<_> = PROFILES.iter().map(|it| vec![it.name.to_owned(), it.summary.to_owned()]).collect();
        output::table(&mut out, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn dump(arguments: &Dump) -> anyhow::Result<ExitCode> {
    let mut inputs = arguments.inputs.clone();
    if let Some(profile) = &arguments.profile {
        inputs.settings.insert(0, format!("profile={profile}"));
    }
    let operator = match inputs.operator()? {
        Ok((_, operator)) => operator,
        Err(code) => return Ok(code),
    };
    let spec = json!({"components": operator.components, "values": operator.values});
    let shown = match &arguments.config_path {
        None => {
            let metadata = json!({"namespace": operator.namespace});
            let version = meltemi_install::operator::API_VERSION;
            json!({"apiVersion": version, "kind": "IstioOperator", "metadata": metadata, "spec": spec})
        }
        Some(path) => match find(&spec, path) {
            Some(value) => value.clone(),
            None => {
                eprintln!("error: --config-path {path}: nothing there");
                return Ok(ExitCode::from(DATA_ERROR));
            }
        },
    };
    let mut out = std::io::stdout().lock();
    match &*arguments.output {
        "json" => writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?,
        _ => out.write_all(yaml::write(&shown).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn diff(arguments: &Diff) -> anyhow::Result<ExitCode> {
    let spec = |name: &str| -> anyhow::Result<Option<Value>> {
        let Some(profile) = Named::named(name) else { return Ok(None) };
        profile.spec().map(Some).map_err(|error| anyhow!(error))
    };
    let (Some(first), Some(second)) = (spec(&arguments.first)?, spec(&arguments.second)?) else {
        let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
        eprintln!("error: a profile is one of {}", names.join(", "));
        return Ok(ExitCode::from(DATA_ERROR));
    };
    let mut lines = Vec::new();
    differences("", &first, &second, &mut lines);
    let mut out = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(if lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `-` for what only the first says, `+` for what only the second does.
fn differences(at: &str, first: &Value, second: &Value, lines: &mut Vec<String>) {
    let (Some(before), Some(after)) = (members(first, second), members(second, first)) else {
        if first != second {
            for (sign, value) in [('-', first), ('+', second)].into_iter().filter(|(_, value)| !value.is_null()) {
                lines.push(format!("{sign} {at}: {value}"));
            }
        }
        return;
    };
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let side = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        differences(&at, &side(&before), &side(&after), lines);
    }
}

/// The members of a map; of nothing, beside a map, there are none.
fn members<'a>(value: &'a Value, other: &Value) -> Option<Cow<'a, Map<String, Value>>> {
    match (value, other) {
        (Value::Object(members), Value::Object(_) | Value::Null) => Some(Cow::Borrowed(members)),
        (Value::Null, Value::Object(_)) => Some(Cow::default()),
        _ => None,
    }
}
