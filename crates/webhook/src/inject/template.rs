//! Injection templates: Go templates, with the functions that Istio gives them.
//!
//! The engine knows no methods, as generated Go types have them (`.ProxyConfig.GetTracing`, `.InterceptionMode.String`);
//! templates of users that call them are read as if they named the field.

mod functions;
mod getters;
mod sprig;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use gotmpl::Value;

pub use sprig::functions as sprig_functions;
pub use view::{of_shape, plain, structure};

/// Bound of what a template may make of one pod.
const MAX_OUTPUT: usize = 1 << 20;
/// Bound of the rounds of all `range`s in one rendering.
const MAX_ROUNDS: u64 = 100_000;

/// Variables of the process that templates may read (`env`).
pub type Environment = Arc<BTreeMap<String, String>>;

pub struct Template(gotmpl::Template);

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.0.name()).finish()
    }
}

impl Template {
    /// # Errors
    /// When the text is no Go template, or calls a function that does not exist.
    pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Self, String> {
        let template = gotmpl::Template::new(name)
            .funcs(sprig::functions())
            .funcs(functions::functions(environment))
            .max_range_iters(MAX_ROUNDS);
        template.parse(&getters::as_fields(text)).map(Self).map_err(|error| error.to_string())
    }

    /// # Errors
    /// When a function refuses its arguments, or the text grows beyond 1 MiB.
    pub fn render(&self, data: &Value) -> Result<String, String> {
        let mut out = Bounded(String::new());
        match self.0.execute_fmt(&mut out, data) {
            Ok(()) => Ok(out.0),
            Err(_) if out.is_full() => Err(format!("makes more than {MAX_OUTPUT} bytes")),
            Err(error) => Err(error.to_string()),
        }
    }
}

struct Bounded(String);

impl Bounded {
    fn is_full(&self) -> bool {
        self.0.len() > MAX_OUTPUT
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if self.is_full() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
