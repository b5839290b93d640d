{{- define "labels" }}
    app: istio-cni
    k8s-app: istio-cni-node
    istio.io/rev: {{ .Values.revision | default "default" | quote }}
    install.operator.istio.io/owning-resource: {{ .Values.ownerName | default "unknown" | quote }}
    operator.istio.io/component: Cni
    release: {{ .Release.Name | quote }}
    app.kubernetes.io/name: istio-cni
    app.kubernetes.io/instance: {{ .Release.Name | quote }}
    app.kubernetes.io/part-of: istio
{{- end }}
