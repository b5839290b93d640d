//! Where the injector's configuration is: in a folder, where there is one with a file `config`, as a mesh without the rights
//! to read ConfigMaps has it mounted; else in the ConfigMap.

use std::io::{ErrorKind, Read as _};
use std::path::Path;

use meltemi_config::{Object, Spec};

/// A ConfigMap holds no more.
const MAX_BYTES: u64 = 1 << 20;

/// What an injector is made of, beside the mesh configuration.
#[derive(Clone, PartialEq)]
pub(crate) enum Source {
    /// None where there is no such ConfigMap: the defaults.
    Map(Option<Object>),
    Folder {
        config: String,
        values: String,
    },
}

impl Source {
    /// The folder's files; none where it has no `config`, or where no folder is named.
    pub fn folder(folder: &Path) -> Result<Option<Self>, String> {
        if folder.as_os_str().is_empty() {
            return Ok(None);
        }
        let Some(config) = read(&folder.join("config"))? else { return Ok(None) };
        let values = folder.join("values");
        let values = read(&values)?.ok_or_else(|| format!("{}: is missing beside config", values.display()))?;
        Ok(Some(Source::Folder { config, values }))
    }

    /// The text of `config` or `values`.
    pub fn text(&self, key: &str) -> Option<String> {
        match self {
            Source::Folder { config, .. } if key == "config" => Some(config.clone()),
            Source::Folder { values, .. } => Some(values.clone()),
            Source::Map(map) => match &map.as_ref()?.spec {
                Spec::ConfigMap(map) => map.data.get(key).map(ToString::to_string),
                _ => None,
            },
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(_) if u64::try_from(text.len()).is_ok_and(|length| length > MAX_BYTES) => {
            Err(format!("{}: is longer than {MAX_BYTES} bytes", path.display()))
        }
        Ok(_) => Ok(Some(text)),
    }
}
