//! What `kube-inject` is told of an installation, judged as `install` judges it: fields that nobody reads are said.
//!
//! Owns: how values and an IstioOperator without its head become what `install` takes, and whose names paths have.

use anyhow::Context;
use meltemi_install::operator::{API_VERSION, Given, Notice, Request, Source};
use meltemi_webhook::inject::values;
use serde_json::{Value, json};

use super::{Arguments, read};

/// Where an IstioOperator has what a file of values has.
const VALUES: &str = "spec.values.";

/// Warnings and errors. With `--strict` there are no warnings.
pub(super) fn judge(arguments: &Arguments) -> anyhow::Result<(Vec<Notice>, Vec<Notice>)> {
    let settings = Given::read(&Request { settings: arguments.set.clone(), ..Request::default() });
    let (mut warnings, mut errors) = findings(&settings);
    if let Some(path) = &arguments.operator_file {
        let name = path.display().to_string();
        let operator = values::parse(&read(path)?).with_context(|| name.clone())?;
        let (more_warnings, more_errors) = findings(&given(name, &operator["spec"]));
        warnings.extend(more_warnings);
        errors.extend(more_errors);
    }
    if let Some(path) = &arguments.values_file {
        let name = path.display().to_string();
        let values = values::parse(&read(path)?).with_context(|| name.clone())?;
        let (more_warnings, more_errors) = findings(&given(name, &json!({ "values": values })));
        warnings.extend(more_warnings.into_iter().map(of_values));
        errors.extend(more_errors.into_iter().map(of_values));
    }
    if arguments.strict {
        errors.append(&mut warnings);
    }
    Ok((warnings, errors))
}

fn given(name: String, spec: &Value) -> Given {
    let text = json!({ "apiVersion": API_VERSION, "kind": "IstioOperator", "spec": spec }).to_string();
    Given::read(&Request { documents: vec![Source { name, text }], ..Request::default() })
}

fn findings(given: &Given) -> (Vec<Notice>, Vec<Notice>) {
    let found = given.findings();
    let unread = found.notices.iter().filter(|notice| !is_for_templates(&notice.path));
    (unread.cloned().collect(), found.errors.clone())
}

/// What templates are given, users' own among them, has an effect here though an installation makes nothing of it.
fn is_for_templates(path: &str) -> bool {
    let Some(path) = path.strip_prefix(VALUES) else { return false };
    let defaults = values::defaults();
    path.split('.').try_fold(&defaults, |value, key| value.get(key)).is_some()
}

fn of_values(mut notice: Notice) -> Notice {
    if let Some(path) = notice.path.strip_prefix(VALUES) {
        notice.path = path.to_owned();
    }
    notice
}
