//! What is worth saying about an installation's documents.

use std::fmt;

use serde::Serialize;

/// A field that does not do what its author may think.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The file, or `--set`.
    pub source: String,
    /// `spec.components.citadel`; empty for the whole document.
    pub path: String,
    pub message: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Notice {
    pub(crate) fn new(path: &str, message: String) -> Self {
        Self { source: String::new(), path: path.to_owned(), message, suggestion: None }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [&*self.source, &*self.path].into_iter().filter(|part| !part.is_empty());
        for part in named {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(text) => write!(f, "; did you mean `{text}`?"),
            None => Ok(()),
        }
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is being read.
    source: String,
    pub notices: Vec<Notice>,
    pub errors: Vec<Notice>,
}

impl Findings {
    pub(crate) fn about(&mut self, source: &str) {
        source.clone_into(&mut self.source);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices.push(Notice { source: self.source.clone(), ..notice });
    }

    pub(crate) fn refuse(&mut self, path: &str, message: String) {
        self.errors.push(Notice { source: self.source.clone(), ..Notice::new(path, message) });
    }
}
