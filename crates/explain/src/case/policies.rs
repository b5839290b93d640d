//! Cases of policies: a folder with documents of one policy kind, and the filters or the ambient policy that come of them.
//!
//! The format is that of Istio's tests of its authorization builders turned to files (`case.yaml`, `input.yaml`, `expected*.yaml`).
//! Results are compared as messages, so that neither the order of fields nor that of a map counts, and then tried: what we make
//! of the input must decide generated requests as an evaluation of what is expected does.

use std::path::Path;
use std::sync::Arc;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Object, Spec, Str, parse_part, split_documents};
use meltemi_model::labels::labels_of;
use meltemi_model::{Config, ConfigRef, ObjectKey, Snapshot, Update, Workload};
use meltemi_proto::envoy::config::listener::v3::Filter;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use meltemi_proto::istio::security::Authorization as WorkloadAuthorization;
use meltemi_proto::json::{self as proto_json, Secrets};
use meltemi_proto::prost::{Message, Name};
use meltemi_translate::ambient;
use meltemi_translate::authorization::{Authorization, Authorizer};
use serde_json::{Value, json};

use super::read::{CaseError, text_of};
use crate::trial::{self, Disagreement, Engine, Filters, Report, of_policies};

/// The one service of every case.
const SERVICE: (&str, &str) = ("foo", "my-custom-ext-authz.foo.svc.cluster.local");

/// The workload of every case.
const NAMESPACE: &str = "foo";
const LABELS: [(&str, &str); 2] = [("app", "httpbin"), ("version", "v1")];

/// How far a difference of two messages is told.
const MAX_DIFFERENCES: usize = 20;

/// What became of a case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    /// How what comes of the policies differs from what is expected, one difference a line.
    pub problems: Vec<String>,
    /// What generated requests showed; nothing where there is nothing to evaluate.
    pub trial: Option<Report>,
}

impl Judgement {
    fn failed(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()], trial: None }
    }

    pub fn passed(&self) -> bool {
        self.problems.is_empty() && self.disagreement().is_none()
    }

    pub fn disagreement(&self) -> Option<&Disagreement> {
        self.trial.as_ref()?.disagreement.as_ref()
    }

    pub fn json(&self) -> Value {
        json!({
            "pass": self.passed(),
            "problems": self.problems,
            "trial": self.trial.as_ref().map(Report::json),
        })
    }
}

/// Plays the case in `folder`. Requests of chance follow from `seed`.
pub fn play_policies(folder: &Path, seed: u64) -> Result<Judgement, CaseError> {
    judge(folder, Some(seed))
}

/// How what comes of the policies of the case in `folder` differs from what is expected, without a request.
pub fn compare_policies(folder: &Path) -> Result<Vec<String>, CaseError> {
    Ok(judge(folder, None)?.problems)
}

fn judge(folder: &Path, seed: Option<u64>) -> Result<Judgement, CaseError> {
    let case = PolicyCase::read(folder)?;
    match case.document["filter_kind"].as_str() {
        Some("http") => case.filters(
            seed,
            |authorization, custom| {
                let list = if custom { authorization.external_http() } else { authorization.local_http() };
                list.iter().map(json_of).collect()
            },
            json_as::<HttpFilter>,
        ),
        Some("tcp") => case.filters(
            seed,
            |authorization, custom| {
                let list = if custom { authorization.external_tcp() } else { authorization.local_tcp() };
                list.iter().map(json_of).collect()
            },
            json_as::<Filter>,
        ),
        Some(other) => Err(case.wrong(format!("filter_kind: {other:?} is not one of http, tcp"))),
        None => case.ambient(seed),
    }
}

struct PolicyCase<'a> {
    folder: &'a Path,
    document: Value,
    objects: Vec<Object>,
}

impl<'a> PolicyCase<'a> {
    fn read(folder: &'a Path) -> Result<Self, CaseError> {
        let mut case = Self { folder, document: Value::Null, objects: Vec::new() };
        case.document = serde_saphyr::from_str(&case.text("case.yaml")?).map_err(|error| case.wrong(error))?;
        let input = case.document["input"].as_str().unwrap_or("input.yaml").to_owned();
        for (line, part) in split_documents(&case.text(&input)?) {
            for document in parse_part(&input, line, part) {
                match (document.object, document.problems.first()) {
                    (Some(object), _) => case.objects.push(in_written_namespace(object, part)),
                    (None, Some(problem)) => return Err(case.wrong(problem)),
                    (None, None) => {}
                }
            }
        }
        Ok(case)
    }

    fn wrong(&self, reason: impl std::fmt::Display) -> CaseError {
        CaseError::new(&self.folder.display().to_string(), reason)
    }

    fn text(&self, file: &str) -> Result<String, CaseError> {
        let path = self.folder.join(file);
        std::fs::read_to_string(&path).map_err(|error| CaseError::new(&path.display().to_string(), error))
    }

    fn filters(
        &self,
        seed: Option<u64>,
        made: impl Fn(&Authorization, bool) -> Vec<Value>,
        read: impl Fn(&str) -> Result<Value, String>,
    ) -> Result<Judgement, CaseError> {
        let custom = match self.document["action_set"].as_str() {
            Some("custom") => true,
            Some("local") => false,
            other => return Err(self.wrong(format!("action_set: {other:?} is not one of custom, local"))),
        };
        let authorization = self.authorization()?;
        let found = made(&authorization, custom);
        let mut expected = Vec::new();
        for file in self.document["expected"].as_array().into_iter().flatten().map(text_of) {
            expected.push(read(&self.text(&file)?).map_err(|error| self.wrong(format!("{file}: {error}")))?);
        }
        if expected.len() != found.len() {
            return Ok(Judgement::failed(format!("expected {} filters, got {}", expected.len(), found.len())));
        }
        let is_http = self.document["filter_kind"] == "http";
        // A matcher that our proxy does not know must not pass for one that it evaluates.
        let mut problems: Vec<String> = Engine::of(&expected, is_http).err().into_iter().collect();
        for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
            compare(&format!("filters[{index}]"), expected, found, &mut problems);
        }
        let filters = Filters {
            expected: &expected,
            found: &found,
            is_http,
            mentions: of_policies(&authorization.policies),
            trust_domains: authorization.trust_domains.iter().map(ToString::to_string).collect(),
        };
        // Without a filter there is nothing to try.
        let trial = seed.filter(|_| !expected.is_empty()).map(|seed| filters.tried(seed)).transpose();
        let trial = trial.unwrap_or_else(|reason| {
            problems.push(format!("no request was tried: {reason}"));
            None
        });
        Ok(Judgement { problems, trial })
    }

    /// The policies that select the case's workload, and all that they need.
    fn authorization(&self) -> Result<Authorization, CaseError> {
        let mesh: MeshConfig = match &self.document["mesh_config"] {
            Value::Null => MeshConfig::default(),
            config => serde_json::from_value(config.clone()).map_err(|error| self.wrong(error))?,
        };
        let update = Update { authorization_policies: self.policies(), ..Update::default() };
        let snapshot = Snapshot::default().next(&update).0;
        let policies = snapshot.authorization_policies(&Workload::new(NAMESPACE, &labels_of(LABELS)));
        let mut names: Vec<Str> =
            policies.iter().filter_map(|policy| Some(policy.spec.provider.as_ref()?.name.clone())).collect();
        names.sort();
        names.dedup();
        let domain = |value: &Value| value.as_str().map(Str::from);
        let aliases = self.document["trust_domain_aliases"].as_array().into_iter().flatten();
        Ok(Authorization {
            policies,
            trust_domains: domain(&self.document["trust_domain"])
                .into_iter()
                .chain(aliases.filter_map(domain))
                .collect(),
            authorizers: names.iter().filter_map(|name| Authorizer::resolve(&mesh, name, find_service)).collect(),
            several_authorizers: self.document["several_authorizers"] == true,
        })
    }

    fn policies(&self) -> Vec<(ObjectKey, Option<ConfigRef<meltemi_config::security::AuthorizationPolicy>>)> {
        let policy = |object: &Object| match &object.spec {
            Spec::AuthorizationPolicy(spec) => {
                let config = Config::shared(&object.meta, spec);
                Some((config.key(), Some(config)))
            }
            _ => None,
        };
        self.objects.iter().filter_map(policy).collect()
    }

    fn ambient(&self, seed: Option<u64>) -> Result<Judgement, CaseError> {
        let root = self.document["root_namespace"].as_str().unwrap_or("istio-system");
        let policies: Vec<_> = self.policies().into_iter().filter_map(|(_, policy)| policy).take(1).collect();
        let found = match self.document["kind"].as_str() {
            Some("AuthorizationPolicy") => {
                policies.first().and_then(|policy| ambient::of_authorization_policy(policy, root))
            }
            Some("PeerAuthentication") => self.peer_authentication(root),
            other => {
                return Err(
                    self.wrong(format!("kind: {other:?} is not one of AuthorizationPolicy, PeerAuthentication"))
                );
            }
        };
        let nothing = self.document["expect_none"] == true;
        let Some(found) = found else {
            return Ok(if nothing { Judgement::default() } else { Judgement::failed("expected a policy, got none") });
        };
        if nothing {
            return Ok(Judgement::failed(format!("expected no policy, got {}", json_of(&found))));
        }
        let file = self.document["expected"].as_str().unwrap_or("expected.yaml");
        let expected = proto_json::from_text::<WorkloadAuthorization>(&self.text(file)?);
        let expected = expected.map_err(|error| self.wrong(error))?;
        let mut problems = Vec::new();
        compare("policy", &json_of(&expected), &json_of(&found), &mut problems);
        let trial = seed.map(|seed| trial::ambient(&expected, &found, of_policies(&policies), seed));
        Ok(Judgement { problems, trial })
    }

    /// Of several, the oldest of the mesh, the oldest of the namespace, and the workload's; alone, it is the workload's.
    fn peer_authentication(&self, root: &str) -> Option<WorkloadAuthorization> {
        let mut policies: Vec<_> = self
            .objects
            .iter()
            .filter_map(|object| match &object.spec {
                Spec::PeerAuthentication(spec) => Some(Config::shared(&object.meta, spec)),
                _ => None,
            })
            .collect();
        if let [only] = policies.as_slice() {
            return ambient::of_peer_authentication(only, None, None, root);
        }
        policies.sort_by(|a, b| a.by_age(b));
        let mesh = policies.iter().find(|policy| *policy.namespace == *root);
        let mut below = policies.iter().filter(|policy| *policy.namespace != *root);
        let namespace = below.clone().find(|policy| policy.spec.selector.is_none());
        let workload = below.find(|policy| policy.spec.selector.is_some()).or(namespace)?;
        ambient::of_peer_authentication(workload, namespace, mesh, root)
    }
}

/// Istio's tests give a policy without a namespace none, where we read `default`.
fn in_written_namespace(mut object: Object, text: &str) -> Object {
    let written =
        serde_saphyr::from_str::<Value>(text).is_ok_and(|document| document["metadata"]["namespace"].is_string());
    if !written {
        Arc::make_mut(&mut object.meta).namespace = "".into();
    }
    object
}

fn find_service(name: &str) -> Option<Arc<str>> {
    let (namespace, host) = name.split_once('/').unwrap_or((SERVICE.0, name));
    ((namespace, host) == SERVICE).then(|| host.into())
}

fn json_of<M: Message + Name>(message: &M) -> Value {
    proto_json::to_value(message, Secrets::Shown)
}

fn json_as<M: Message + Name + Default>(text: &str) -> Result<Value, String> {
    proto_json::from_text::<M>(text).map(|message| json_of(&message)).map_err(|error| error.to_string())
}

/// Where two messages differ, by path.
fn compare(path: &str, expected: &Value, found: &Value, problems: &mut Vec<String>) {
    match (expected, found) {
        _ if problems.len() >= MAX_DIFFERENCES => {}
        (Value::Object(wanted), Value::Object(own)) => {
            for key in wanted.keys().chain(own.keys().filter(|key| !wanted.contains_key(*key))) {
                compare(&format!("{path}.{key}"), &expected[key], &found[key], problems);
            }
        }
        (Value::Array(wanted), Value::Array(own)) if wanted.len() == own.len() => {
            for (index, (wanted, own)) in wanted.iter().zip(own).enumerate() {
                compare(&format!("{path}[{index}]"), wanted, own, problems);
            }
        }
        _ if expected == found => {}
        _ => problems.push(format!("{path}: expected {expected}, got {found}")),
    }
}
