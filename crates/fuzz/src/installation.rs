//! What an operator writes to install a mesh, and the templates by which pods are injected.

use crate::Nothing;
use meltemi_install::operator::{Operator, Request, Source, is_label};
use meltemi_webhook::admission::AdmissionReview;
use meltemi_webhook::inject::{Injector, InjectorConfig, Outcome, Platform, Settings, values};

/// An IstioOperator document, with settings before it (`PATH=VALUE`, a line each, up to an empty line): what is taken has names that
/// may be parts of others.
pub fn istio_operator(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (settings, document) = text.split_once("\n\n").unwrap_or(("", text));
    let documents = vec![Source { name: "fuzz.yaml".to_owned(), text: document.to_owned() }];
    let settings = settings.lines().map(str::to_owned).collect();
    match Operator::resolve(&Request { documents, settings, ..Request::default() }) {
        Ok(operator) => {
            assert!(is_label(&operator.namespace), "{:?}", operator.namespace);
            assert!(operator.revision.as_deref().is_none_or(is_label), "{:?}", operator.revision);
        }
        Err(errors) => assert!(!errors.is_empty(), "a refusal has a reason"),
    }
}

/// A pod for which a template of a user's is rendered.
const POD: &[u8] = include_bytes!("../seeds/admission_review/pod.json");

/// A template: it is refused, or what it makes is merged into a pod so that the patch applies.
pub fn injection_template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let settings = Settings {
        config: InjectorConfig {
            default_templates: vec!["sidecar".to_owned()],
            templates: [("sidecar".to_owned(), text.to_owned())].into(),
            ..InjectorConfig::default()
        },
        values: values::defaults(),
        mesh: Default::default(),
        revision: String::new(),
        environment: Default::default(),
        compliance_policy: String::new(),
    };
    let Ok(injector) = Injector::new(settings) else { return };
    let review = AdmissionReview::parse(POD).expect("a seed");
    let reviewed = injector.review(&review.request, "/inject", Platform::default(), &Nothing);
    if let Ok(Outcome::Injected(patch)) = reviewed {
        let patch: json_patch::Patch = serde_json::from_value(patch).expect("a JSON patch");
        let mut object = review.request.object;
        json_patch::patch(&mut object, &patch).expect("a patch of the object that was asked about");
    }
}
