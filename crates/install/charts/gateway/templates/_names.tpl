{{- define "name" }}{{ .Values.name | default .Release.Name }}{{ end }}

{{- define "account" }}{{ .Values.serviceAccount.name | default (.Values.name | default .Release.Name) }}{{ end }}

{{- define "podlabels" }}
{{- if .Values.labels }}
{{- toYaml .Values.labels | nindent 8 }}
{{- else }}
        app: {{ template "name" . }}
        istio: {{ trimPrefix "istio-" (.Values.name | default .Release.Name) }}
{{- end }}
{{- end }}

{{- define "labels" }}
{{- if .Values.labels }}
{{- toYaml .Values.labels | nindent 4 }}
{{- else }}
    app: {{ template "name" . }}
    istio: {{ trimPrefix "istio-" (.Values.name | default .Release.Name) }}
{{- end }}
    istio.io/rev: {{ .Values.revision | default "default" | quote }}
    install.operator.istio.io/owning-resource: {{ .Values.ownerName | default "unknown" | quote }}
    operator.istio.io/component: {{ .Values.component }}
    release: {{ .Release.Name | quote }}
    app.kubernetes.io/name: {{ template "name" . }}
    app.kubernetes.io/instance: {{ .Release.Name | quote }}
    app.kubernetes.io/part-of: istio
{{- end }}
