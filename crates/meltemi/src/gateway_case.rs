//! `meltemi x gateway-case`: what becomes of the Gateway API's objects, held against what a case expects.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use meltemi_gateway_api::case::{Surroundings, conversion_differences, status_differences};

const OBJECTS: &str = "kubernetes-objects.yaml";
const SERVICES: &str = "registry-services.yaml";
/// How many folders above a case are looked at for fixtures.
const FIXTURES_ABOVE: usize = 3;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi x gateway-case ./cases/http                     # the statuses of every object
  meltemi x gateway-case --conversion ./cases/*           # and the Istio objects that they become
  meltemi x gateway-case --fixtures ./fixtures ./my-case

A case folder has input.yaml and expected-status.yaml; expected.yaml is read for --conversion. What is there besides the
input is in the folder of fixtures: kubernetes-objects.yaml and registry-services.yaml.

Exit codes: 0 every case passed; 1 one did not, or could not be read; 2 wrong usage")]
pub struct Arguments {
    /// Folders of cases
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Compare the objects as well that input becomes
    #[arg(long)]
    conversion: bool,
    /// What is there besides the input [default: a folder "fixtures" beside the case or a little above it, where there is one]
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    crate::cases::judge(&arguments.folders, |folder| play(arguments, folder))
}

fn play(arguments: &Arguments, folder: &Path) -> anyhow::Result<Vec<String>> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let around = surroundings(arguments, folder)?;
    let input = read("input.yaml")?;
    let named = || folder.display().to_string();
    let mut all = status_differences(&around, &input, &read("expected-status.yaml")?).with_context(named)?;
    if arguments.conversion {
        all.extend(conversion_differences(&around, &input, &read("expected.yaml")?).with_context(named)?);
    }
    Ok(all)
}

/// Without fixtures a case stands alone.
fn surroundings(arguments: &Arguments, folder: &Path) -> anyhow::Result<Surroundings> {
    let fixtures = match &arguments.fixtures {
        Some(fixtures) => fixtures.clone(),
        None => {
            let whole = folder.canonicalize().with_context(|| folder.display().to_string())?;
            let above = whole.ancestors().skip(1).take(FIXTURES_ABOVE).map(|above| above.join("fixtures"));
            let Some(found) = above.into_iter().find(|path| path.join(OBJECTS).is_file()) else {
                return Ok(Surroundings::default());
            };
            found
        }
    };
    let read = |name: &str| {
        let path = fixtures.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let (objects, services) = (read(OBJECTS)?, read(SERVICES)?);
    Surroundings::parse(&objects, &services).with_context(|| fixtures.display().to_string())
}

#[cfg(test)]
mod tests;
