{{- /* The part of names that tells revisions apart. */}}
{{- define "suffix" }}{{ if .Values.revision }}-{{ .Values.revision }}{{ end }}{{ end }}

{{- define "revision" }}{{ .Values.revision | default "default" | quote }}{{ end }}

{{- define "labels" }}
    app: istiod
    istio.io/rev: {{ template "revision" . }}
    install.operator.istio.io/owning-resource: {{ .Values.ownerName | default "unknown" | quote }}
    operator.istio.io/component: Pilot
    release: {{ .Release.Name | quote }}
    app.kubernetes.io/name: istiod
    app.kubernetes.io/instance: {{ .Release.Name | quote }}
    app.kubernetes.io/part-of: istio
{{- end }}

{{- /* What of the pods does not change with settings, so that deployments keep their selector. */}}
{{- define "selector" }}
{{- if .Values.revision }}
      app: istiod
      istio.io/rev: {{ template "revision" . }}
{{- else }}
      istio: pilot
{{- end }}
{{- end }}
