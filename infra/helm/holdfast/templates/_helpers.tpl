{{- define "holdfast.labels" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "holdfast.trackingUri" -}}
{{- if .Values.tracking.enabled -}}
http://holdfast-mlflow.{{ .Release.Namespace }}.svc:{{ .Values.tracking.port }}
{{- else -}}
{{- required "tracking.uri is empty and tracking.enabled is false: name the MLflow server that jobs log to" .Values.tracking.uri -}}
{{- end -}}
{{- end }}

{{- define "holdfast.queue" -}}
{{- if .Values.job.queue -}}{{ .Values.job.queue }}{{- else if .Values.queues.enabled -}}{{ .Values.queues.localQueue }}{{- end -}}
{{- end }}

{{- define "holdfast.monitoring" -}}
{{- $known := and (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PrometheusRule") -}}
{{- $wanted := toString .Values.monitoring.enabled -}}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") $known) -}}yes{{- end -}}
{{- end }}

{{/* A pool's node count, or an error that names the setting. */}}
{{- define "holdfast.nodes" -}}
{{- $count := index .root.Values.nodes .name -}}
{{- if not $count }}{{ fail (printf "nodes.%s is not set: say how many nodes of pool %s there may be" .name .name) }}{{ end -}}
{{- int $count -}}
{{- end }}

{{/* The taints of a pool's nodes, which its workers tolerate. Of a GPU pool they keep every other pod off. */}}
{{- define "holdfast.taints" -}}
{{- $keys := list }}
{{- range .pool.taints }}{{ $keys = append $keys .key }}{{ end }}
{{- if and .pool.gpu (not (has "nvidia.com/gpu" $keys)) }}
{{- fail (printf "pools.%s.taints lacks nvidia.com/gpu: add {key: nvidia.com/gpu, value: present, effect: NoSchedule}, or any pod takes its nodes" .name) }}
{{- end }}
{{- toJson (.pool.taints | default list) }}
{{- end }}

{{/* Restricted pod security: https://kubernetes.io/docs/concepts/security/pod-security-standards/ */}}
{{- define "holdfast.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "holdfast.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "holdfast.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
