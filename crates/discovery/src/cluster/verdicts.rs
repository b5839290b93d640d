//! What is wrong with Istio's own objects, in their status: the condition `PassedAnalysis` with `validationMessages`, as
//! istiod's analysis writes them. Only of objects with which something is wrong, or was as their status has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meltemi_config::{Key, Kind, Problem, Severity, Str};
use meltemi_gateway_api::carry_on;
use meltemi_kubernetes::{KubernetesStore, StatusWriter};
use serde_json::{Value, json};

/// After a failure.
const RETRY: Duration = Duration::from_secs(10);
/// Of one object; the log has all.
const MOST_MESSAGES: usize = 20;
const CONDITION: &str = "PassedAnalysis";

/// What is to be said of objects, or has been.
type Verdicts = BTreeMap<Key, Value>;

/// What has been said, and of which object by its uid: one that is made again says nothing yet.
#[derive(Default)]
struct Written(BTreeMap<Key, (Option<Str>, Value)>);

impl Written {
    /// Whoever wrote before us may have gone before the object was repaired.
    fn found(&mut self, keys: Vec<Key>) {
        for key in keys {
            self.0.entry(key).or_default();
        }
    }

    /// Every verdict that is still to be written; where nothing is wrong any more, that nothing is.
    fn due(&self, mut wanted: Verdicts, uid: impl Fn(&Key) -> Option<Str>) -> Vec<(Key, (Option<Str>, Value))> {
        for key in self.0.keys() {
            wanted.entry(key.clone()).or_insert_with(|| verdict(&[]));
        }
        let all = wanted.into_iter().map(|(key, status)| {
            let verdict = (uid(&key), status);
            (key, verdict)
        });
        all.filter(|(key, verdict)| self.0.get(key) != Some(verdict)).collect()
    }

    fn took(&mut self, key: Key, verdict: (Option<Str>, Value)) {
        self.0.insert(key, verdict);
    }

    /// What is in order is not ours to follow.
    fn forget_repaired(&mut self) {
        self.0.retain(|_, (_, status)| *status != verdict(&[]));
    }
}

/// Keeps verdicts in the objects' statuses for as long as it is awaited.
pub(super) async fn keep(store: &Arc<KubernetesStore>, writer: &StatusWriter) {
    let mut problems = store.watch_problems();
    let mut names = store.watch_names();
    names.mark_unchanged();
    let mut written = Written::default();
    let mut is_found = false;
    loop {
        let mut failed = false;
        if !is_found {
            match others(writer).await {
                Ok(keys) => {
                    written.found(keys);
                    is_found = true;
                }
                Err(reason) => {
                    tracing::warn!("statuses not read: {reason}");
                    failed = true;
                }
            }
        }
        let current = problems.borrow_and_update().clone();
        for (key, verdict) in written.due(verdicts(&current), |key| store.uid_of_wrong(key)) {
            match writer.write(&key, |before, now| judged(before, &verdict.1, now)).await {
                Ok(_) => written.took(key, verdict),
                Err(reason) => {
                    tracing::warn!(object = %key, "status not written: {reason}");
                    failed = true;
                }
            }
        }
        written.forget_repaired();
        tokio::select! {
            changed = problems.changed() => if changed.is_err() { std::future::pending().await },
            // Other objects are ours to judge.
            Ok(()) = names.changed() => (written, is_found) = (Written::default(), false),
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

/// The objects whose status says that something is wrong with them.
async fn others(writer: &StatusWriter) -> Result<Vec<Key>, String> {
    let mut found = Vec::new();
    for kind in Kind::all().filter(|kind| kind.is_istio()) {
        found.extend(writer.find(kind, is_judged).await?);
    }
    Ok(found)
}

fn is_judged(status: &Value) -> bool {
    let list = |field: &str| status.get(field).and_then(Value::as_array).into_iter().flatten();
    let is_wrong = |condition: &Value| condition["type"] == CONDITION && condition["status"] != "True";
    list("conditions").any(is_wrong) || list("validationMessages").next().is_some()
}

fn verdicts(problems: &[Problem]) -> Verdicts {
    let mut by_object: BTreeMap<&Key, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        if let Some(key) = problem.object.as_ref().filter(|key| key.kind.is_istio()) {
            by_object.entry(key).or_default().push(problem);
        }
    }
    by_object.into_iter().map(|(key, problems)| (key.clone(), verdict(&problems))).collect()
}

fn verdict(problems: &[&Problem]) -> Value {
    let is_wrong = problems.iter().any(|problem| problem.severity == Severity::Error);
    let mut condition = json!({ "type": CONDITION, "status": "True", "reason": "noErrorsFound" });
    if is_wrong {
        condition["status"] = "False".into();
        condition["reason"] = "errorsFound".into();
    }
    let text = |problem: &&Problem| match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    };
    let texts: Vec<String> = problems.iter().take(MOST_MESSAGES).map(text).collect();
    condition["message"] = if texts.is_empty() { "No errors found".into() } else { texts.join("; ").into() };
    let messages: Vec<Value> = problems.iter().take(MOST_MESSAGES).map(|problem| message(problem)).collect();
    json!({ "conditions": [condition], "validationMessages": messages })
}

/// The verdict in the status of an object, of which others may have written other conditions and fields.
fn judged(before: &Value, verdict: &Value, now: &str) -> Value {
    let mut after = verdict.clone();
    carry_on(&before["conditions"], &mut after["conditions"], now);
    for (field, value) in before.as_object().into_iter().flatten() {
        if after.get(field).is_none() {
            after[field] = value.clone();
        }
    }
    after
}

/// Under the codes of istioctl's analysis.
fn message(problem: &Problem) -> Value {
    let (name, code, level) = match problem.severity {
        Severity::Error => ("SchemaValidationError", "IST0106", "ERROR"),
        Severity::Warning => ("SchemaWarning", "IST0133", "WARNING"),
        Severity::Notice => ("SchemaWarning", "IST0133", "INFO"),
    };
    let documentation = format!("https://istio.io/latest/docs/reference/config/analysis/{}/", code.to_lowercase());
    json!({ "type": { "name": name, "code": code }, "level": level, "documentationUrl": documentation })
}

#[cfg(test)]
mod tests {
    use meltemi_config::Source;

    use super::*;

    fn problem(kind: Kind, severity: Severity, path: &str) -> Problem {
        let source = Source { file: "cluster".into(), line: 1 };
        let (object, path, message) = (Some(Key::new(kind, "shop", "x")), path.to_owned(), "no such field".to_owned());
        Problem { severity, source, object, path, message, suggestion: None }
    }

    #[test]
    fn istios_objects_say_what_is_wrong_with_them() {
        let problems = [
            problem(Kind::VirtualService, Severity::Error, "spec.htp"),
            problem(Kind::VirtualService, Severity::Warning, ""),
            problem(Kind::Sidecar, Severity::Warning, "spec.egress"),
            problem(Kind::Pod, Severity::Error, "spec"),
        ];
        let verdicts = verdicts(&problems);
        let keys: Vec<Kind> = verdicts.keys().map(|key| key.kind).collect();
        assert_eq!(keys, [Kind::VirtualService, Kind::Sidecar]);
        let wrong = &verdicts[&Key::new(Kind::VirtualService, "shop", "x")];
        assert_eq!(wrong["conditions"][0]["status"], "False");
        assert_eq!(wrong["conditions"][0]["message"], "spec.htp: no such field; no such field");
        let codes: Vec<&Value> =
            wrong["validationMessages"].as_array().unwrap().iter().map(|m| &m["type"]["code"]).collect();
        assert_eq!(codes, ["IST0106", "IST0133"]);
        let warned = &verdicts[&Key::new(Kind::Sidecar, "shop", "x")];
        assert_eq!(
            (&warned["conditions"][0]["status"], &warned["validationMessages"][0]["level"]),
            (&json!("True"), &json!("WARNING"))
        );
        assert_eq!(verdict(&[])["conditions"][0]["message"], "No errors found");
        assert!(is_judged(wrong) && is_judged(warned) && !is_judged(&verdict(&[])) && !is_judged(&json!({})));
    }

    #[test]
    fn an_object_that_is_made_again_is_judged_again() {
        let (key, mut written) = (Key::new(Kind::VirtualService, "shop", "x"), Written::default());
        let wanted = || verdicts(&[problem(Kind::VirtualService, Severity::Error, "spec.htp")]);
        let uid = |uid: &'static str| move |_: &Key| Some(Str::from(uid));
        for (seen, due) in [("one", 1), ("one", 0), ("two", 1), ("two", 0)] {
            let found = written.due(wanted(), uid(seen));
            assert_eq!(found.len(), due, "{seen}");
            found.into_iter().for_each(|(key, verdict)| written.took(key, verdict));
        }
        let repaired = written.due(Verdicts::new(), |_| None);
        assert_eq!(repaired, [(key.clone(), (None, verdict(&[])))]);
        written.took(key.clone(), (None, verdict(&[])));
        written.forget_repaired();
        assert!(written.due(Verdicts::new(), |_| None).is_empty());
        written.found(vec![key.clone()]);
        assert_eq!(written.due(Verdicts::new(), |_| None).len(), 1, "whoever wrote it before");
    }

    #[test]
    fn what_others_wrote_stays_beside_a_verdict() {
        let then = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": "then" });
        let before = json!({ "conditions": [then("Reconciled"), then(CONDITION)], "observedGeneration": "3" });
        let after = judged(&before, &verdict(&[]), "now");
        assert_eq!(after["observedGeneration"], "3");
        assert_eq!(after["conditions"][0], then("Reconciled"));
        assert_eq!(after["conditions"][1]["lastTransitionTime"], "then");
        assert_eq!(judged(&after, &verdict(&[]), "later"), after);
        let wrong = verdict(&[&problem(Kind::VirtualService, Severity::Error, "spec.htp")]);
        assert_eq!(judged(&after, &wrong, "later")["conditions"][1]["lastTransitionTime"], "later");
    }
}
