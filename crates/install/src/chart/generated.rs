//! Templates of charts that are made from what other crates own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::merge::overlay;
use crate::yaml;

/// Text that a template prints as it is.
fn escaped(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{pad}{line}\n") };
    text.lines().map(line).collect()
}

/// `templates/crds.yaml` of the chart `base`.
pub(super) fn definitions(definitions: &[Value]) -> String {
    let enabled = "{{- if and .Values.base.enableCRDTemplates .Values.base.enableIstioConfigCRDs \
                   (ne .Values.global.resourceScope \"namespace\") }}\n";
    let mut out = enabled.to_owned();
    for definition in definitions {
        let mut definition = definition.clone();
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let labels = json!({
            "app": "istio-pilot",
            "chart": "istio",
            "operator.istio.io/component": "Base",
            "app.kubernetes.io/name": "istio-base",
            "app.kubernetes.io/part-of": "istio",
        });
        overlay(&mut definition["metadata"], &json!({ "labels": labels }));
        // Helm and Istio leave kinds alone when they uninstall: users' documents go with them.
        definition["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
        let text = escaped(&yaml::write(&definition));
        let _ = write!(out, "{{{{- if not (has {name:?} .Values.base.excludedCRDs) }}}}\n---\n{text}{{{{- end }}}}\n");
    }
    out.push_str("{{- end }}\n");
    out
}

const INJECTOR_HEAD: &str = r#"{{- if and (ne .Values.global.resourceScope "cluster") (not .Values.global.omitSidecarInjectorConfigMap) }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: istio-sidecar-injector{{ template "suffix" . }}
  namespace: {{ .Release.Namespace | quote }}
  labels:
{{- template "labels" . }}
data:
  values: |
    {{- $values := pick .Values "global" "sidecarInjectorWebhook" "revision" }}
    {{- $values = mergeOverwrite $values (dict "pilot" (pick .Values.pilot "cni" "env" "crlConfigMapName")) }}
    {{- $values = mergeOverwrite $values (dict "gateways" (pick .Values.gateways "securityContext" "seccompProfile")) }}
    {{- toPrettyJson $values | nindent 4 }}
  config: |
    policy: {{ .Values.global.proxy.autoInject }}
    defaultTemplates: {{- toYaml (.Values.sidecarInjectorWebhook.defaultTemplates | default (list "sidecar")) | nindent 6 }}
    alwaysInjectSelector: {{- toYaml .Values.sidecarInjectorWebhook.alwaysInjectSelector | nindent 6 }}
    neverInjectSelector: {{- toYaml .Values.sidecarInjectorWebhook.neverInjectSelector | nindent 6 }}
    injectedAnnotations: {{- toYaml .Values.sidecarInjectorWebhook.injectedAnnotations | nindent 6 }}
    templates:
"#;

const INJECTOR_TAIL: &str = r"      {{- with .Values.sidecarInjectorWebhook.templates }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end }}
";

/// `templates/injector.yaml` of the chart `istiod`.
pub(super) fn injector(templates: &BTreeMap<String, String>) -> String {
    let mut out = INJECTOR_HEAD.to_owned();
    for (name, text) in templates {
        let text = escaped(&indented(text, 8));
        let own = format!("      {{{{- if not (hasKey .Values.sidecarInjectorWebhook.templates {name:?}) }}}}\n");
        let _ = write!(out, "{own}      {name}: |\n{text}      {{{{- end }}}}\n");
    }
    if templates.is_empty() {
        out = out.replace(
            "    templates:\n",
            "    {{- if .Values.sidecarInjectorWebhook.templates }}\n    templates:\n    {{- end }}\n",
        );
    }
    out.push_str(INJECTOR_TAIL);
    out
}
