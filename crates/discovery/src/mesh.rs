//! The MeshConfig file.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use meltemi_config::mesh::MeshConfig;
use meltemi_model::Shared;

/// The mesh configuration in a file; Istio's defaults without one.
pub(crate) fn load(path: Option<&Path>) -> Result<Shared<MeshConfig>> {
    let Some(path) = path else { return Ok(Shared::new(MeshConfig::default())) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    match meltemi_config::parse_mesh_config(&path.display().to_string(), &text) {
        Ok(settings) => {
            for warning in &settings.warnings {
                tracing::warn!("{warning}");
            }
            Ok(Shared::new(settings.value))
        }
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            bail!("{}", lines.join("\n"))
        }
    }
}
