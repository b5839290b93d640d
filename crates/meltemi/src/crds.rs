//! `meltemi x crds`: the definitions that a cluster needs before it takes Istio's documents and ours.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

/// sysexits' EX_USAGE: the command was used wrongly.
const USAGE: u8 = 64;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi x crds | kubectl apply --server-side -f -
  meltemi x crds virtualservices               # one of them, by plural, kind or full name
  meltemi x crds -o json                       # as one List

Exit codes: 0 printed; 64 there is no definition of that name")]
pub struct Arguments {
    /// Only this one: plural, kind or full name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// yaml or json
    #[arg(short, long, default_value = "yaml", value_parser = ["yaml", "json"])]
    output: String,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let all = meltemi_config::crd::custom_resource_definitions();
    let chosen: Vec<_> =
        all.iter().filter(|one| arguments.name.as_deref().is_none_or(|name| is_named(one, name))).collect();
    if chosen.is_empty() {
        let names: Vec<_> = all.iter().filter_map(|one| one["metadata"]["name"].as_str()).collect();
        eprintln!(
            "error: no definition {:?}; there are {}",
            arguments.name.as_deref().unwrap_or_default(),
            names.join(", ")
        );
        return Ok(ExitCode::from(USAGE));
    }
    let text = if arguments.output == "json" { json_list(&chosen)? } else { yaml_stream(&chosen)? };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn is_named(definition: &Value, name: &str) -> bool {
    let names = &definition["spec"]["names"];
    [&names["plural"], &names["kind"], &names["singular"], &definition["metadata"]["name"]]
        .into_iter()
        .filter_map(Value::as_str)
        .any(|known| known.eq_ignore_ascii_case(name))
}

fn json_list(definitions: &[&Value]) -> anyhow::Result<String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": definitions});
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

fn yaml_stream(definitions: &[&Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in definitions {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(definition)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
