//! `meltemi verify-install`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use meltemi_install::lifecycle::{adopt, verify};
use meltemi_install::operator::Operator;
use meltemi_install::render::render;
use serde_json::json;

use super::{ClusterArguments, DATA_ERROR, Inputs, block_on, contents, output, refused};

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi verify-install
  meltemi verify-install -f mesh.yaml --revision canary -o json

Exit codes: 0 all is there, as it was made, and ready; 1 something is not; 2 wrong usage; 65 a document is wrong")]
pub struct VerifyInstall {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn run(arguments: &VerifyInstall) -> anyhow::Result<ExitCode> {
    let (mut request, operator) = match arguments.inputs.operator()? {
        Ok(both) => both,
        Err(code) => return Ok(code),
    };
    block_on(async {
        let cluster = arguments.cluster.connect().await?;
        let adoption = adopt::look(&cluster, &operator.namespace, operator.revision.as_deref()).await?;
        request.adopted.clone_from(&adoption.adopted);
        let operator = match Operator::resolve(&request) {
            Ok(operator) => operator,
            Err(errors) => return Ok(refused(&errors)),
        };
        let mut rendered = match render(&operator, &contents()) {
            Ok(rendered) => rendered,
            Err(error) => {
                eprintln!("error: {error}");
                return Ok(ExitCode::from(DATA_ERROR));
            }
        };
        adopt::note(&mut rendered, &adoption.adopted);
        let verdicts = verify::verify(&cluster, &rendered.objects()).await?;
        say(arguments, &verdicts)
    })
}

fn say(arguments: &VerifyInstall, verdicts: &[verify::Verdict]) -> anyhow::Result<ExitCode> {
    if verdicts.is_empty() {
        bail!("these documents come to no objects: there is nothing to verify");
    }
    let wrong = verdicts.iter().filter(|verdict| !verdict.problems.is_empty()).count();
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let report = json!({"ready": wrong == 0, "objects": verdicts});
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        let rows = verdicts.iter().flat_map(|verdict| {
            verdict.problems.iter().map(|problem| vec![verdict.object.to_string(), problem.clone()])
        });
        output::table(&mut out, &rows.collect::<Vec<_>>())?;
        writeln!(out, "{} objects, {wrong} wrong", verdicts.len())?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
