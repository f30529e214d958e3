{{/* The release's name, with "layercast" in it, and short enough for any suffix used here. */}}
{{- define "layercast.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "layercast.operator" -}}
{{- include "layercast.fullname" . }}-operator
{{- end -}}

{{/* What selects the operator's pods: never changes in the life of a release. */}}
{{- define "layercast.selector" -}}
app.kubernetes.io/name: layercast-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "layercast.labels" -}}
{{ include "layercast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/part-of: layercast
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "layercast.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "layercast.operator" .) -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "layercast.rootSecret" -}}
{{- .Values.rootSecret.existingSecret | default (printf "%s-root" (include "layercast.fullname" .)) -}}
{{- end -}}

{{- define "layercast.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* The operator's config file; operator/src/layercast_operator/wiring/config.py reads it. */}}
{{- define "layercast.config" -}}
{{- with .Values.leaderElection -}}
{{- if not (and (lt (float64 .periodSeconds) (float64 .renewSeconds)) (lt (float64 .renewSeconds) (float64 .leaseSeconds))) -}}
{{- fail "leaderElection needs periodSeconds < renewSeconds < leaseSeconds: a holder must give up before others may take over" -}}
{{- end -}}
{{- end -}}
platforms:
  {{- toYaml .Values.platforms | nindent 2 }}
namespaces: {{ toJson .Values.watchNamespaces }}
rootSecretFile: /var/run/secrets/layercast-root/secret
leaderElection: {{ toJson .Values.leaderElection }}
http: {port: 8080}
workers: {{ .Values.operator.workers }}
resyncSeconds: {{ .Values.operator.resyncSeconds }}
callTimeoutSeconds: {{ .Values.operator.callTimeoutSeconds }}
logLevel: {{ .Values.operator.logLevel }}
{{- end -}}

{{/* The operator's ServiceAccount as the subject of a binding. */}}
{{- define "layercast.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "layercast.serviceAccount" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}
