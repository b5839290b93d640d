//! `meltemi manifest`: what an installation comes to, without a cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use meltemi_install::chart::Chart;
use meltemi_install::component::{Component, instances};
use meltemi_install::object::manifest;
use meltemi_install::render::{Part, render};
use meltemi_install::translate::translate;

use super::{DATA_ERROR, Inputs, contents, output};

#[derive(Debug, Clone, Subcommand)]
pub enum Manifest {
    /// Print the objects
    Generate(Generate),
    /// Write values for Helm, and the commands that take them
    Translate(Translate),
    /// Write the charts
    Charts(Charts),
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi manifest generate --set profile=demo | kubectl apply --server-side -f -
  meltemi manifest generate -f mesh.yaml --component Pilot -o json

Exit codes: 0 done; 1 it failed; 2 wrong usage; 65 a document is wrong")]
pub struct Generate {
    #[command(flatten)]
    inputs: Inputs,
    /// Only these components: Base, Pilot, Cni, IngressGateways, EgressGateways
    #[arg(long, value_name = "NAME", value_parser = component)]
    component: Vec<Component>,
    /// yaml or json
    #[arg(short, long, default_value = "yaml", value_parser = ["yaml", "json"])]
    output: String,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi manifest translate -f mesh.yaml -o ./helm

Exit codes: 0 done; 1 it failed; 2 wrong usage; 65 a document is wrong")]
pub struct Translate {
    #[command(flatten)]
    inputs: Inputs,
    /// Folder for the values
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi manifest charts -d ./charts && helm install istiod ./charts/istiod -n istio-system

Exit codes: 0 done; 1 it failed; 2 wrong usage")]
pub struct Charts {
    /// Folder that the charts are written to
    #[arg(short = 'd', long, value_name = "DIR")]
    directory: PathBuf,
}

pub fn run(command: &Manifest) -> anyhow::Result<ExitCode> {
    match command {
        Manifest::Generate(arguments) => generate(arguments),
        Manifest::Translate(arguments) => write_values(arguments),
        Manifest::Charts(arguments) => charts(&arguments.directory),
    }
}

fn component(text: &str) -> Result<Component, String> {
    let names = Component::ALL.map(Component::label);
    let found = Component::ALL.into_iter().find(|component| component.label().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("one of {}", names.join(", ")))
}

fn generate(arguments: &Generate) -> anyhow::Result<ExitCode> {
    let operator = match arguments.inputs.operator()? {
        Ok((_, operator)) => operator,
        Err(code) => return Ok(code),
    };
    let mut rendered = match render(&operator, &contents()) {
        Ok(rendered) => rendered,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(DATA_ERROR));
        }
    };
    rendered.notices.iter().for_each(output::warn);
    let wanted = |part: &Part| arguments.component.is_empty() || arguments.component.contains(&part.component);
    rendered.parts.retain(wanted);
    let objects = rendered.objects();
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let values: Vec<_> = objects.iter().map(|object| object.value()).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&values)?)?;
    } else {
        out.write_all(manifest(&objects).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_values(arguments: &Translate) -> anyhow::Result<ExitCode> {
    let operator = match arguments.inputs.operator()? {
        Ok((_, operator)) => operator,
        Err(code) => return Ok(code),
    };
    let mut out = std::io::stdout().lock();
    for instance in instances(&operator) {
        let translated = translate(&instance)?;
        translated.notices.iter().for_each(output::warn);
        let file = arguments.output.join(format!("{}.yaml", translated.release));
        write(&file, &meltemi_install::yaml::write(&translated.values))?;
        writeln!(
            out,
            "helm upgrade --install {} ./charts/{} --namespace {} --create-namespace -f {}",
            translated.release,
            translated.chart.name(),
            instance.namespace,
            file.display()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn charts(directory: &Path) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for chart in Chart::ALL {
        for (name, text) in chart.files(&contents()) {
            write(&directory.join(chart.name()).join(name), &text)?;
        }
        writeln!(out, "{}", directory.join(chart.name()).display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::write(file, text).with_context(|| file.display().to_string())
}
