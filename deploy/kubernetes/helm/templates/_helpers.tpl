{{- define "convoke.selector" -}}
app.kubernetes.io/name: convoke
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "convoke.labels" -}}
{{ include "convoke.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: convoke
{{- end }}

{{- define "convoke.settings" -}}
{{ .Values.settings | default (.Files.Get "files/convoke.toml") }}
{{- end }}

{{- /* With its content's hash in it: a changed setting is a rolling restart. */ -}}
{{- define "convoke.settingsName" -}}
{{ .Release.Name }}-settings-{{ include "convoke.settings" . | sha256sum | trunc 10 }}
{{- end }}
