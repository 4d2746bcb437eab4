{{/* libpq reads the password from PGPASSWORD: it stands in no address, no argument and no log, and needs no escaping. */}}
{{- define "holdfast.database" -}}
{{- with .Values.tracking.database -}}
postgresql+psycopg://{{ .user }}@{{ required "tracking.database.host is empty: name the PostgreSQL server" .host }}:{{ .port }}/{{ .name }}
{{- end -}}
{{- end }}

{{- define "holdfast.databaseEnv" -}}
- name: HOME
  value: /tmp
- name: MLFLOW_DISABLE_TELEMETRY
  value: "true"
- name: PGSSLMODE
  value: {{ .Values.tracking.database.sslmode }}
{{- if .Values.tracking.database.ca }}
- name: PGSSLROOTCERT
  value: /etc/database/ca.pem
{{- end }}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.tracking.database.secret.name }}, key: {{ .Values.tracking.database.secret.key }}}}
{{- end }}

{{- define "holdfast.databaseMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.tracking.database.ca }}
- {name: ca, mountPath: /etc/database, readOnly: true}
{{- end }}
{{- end }}

{{- define "holdfast.databaseVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- with .Values.tracking.database.ca }}
- name: ca
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* MLflow refuses every Host it is not told of, with its port and without: https://mlflow.org/docs/latest/self-hosting/security/network/ */}}
{{- define "holdfast.allowedHosts" -}}
{{- $name := "holdfast-mlflow" -}}
{{- $in := printf "%s.%s" $name .Release.Namespace -}}
{{- $hosts := list "localhost" "127.0.0.1" $name $in (printf "%s.svc" $in) (printf "%s.svc.cluster.local" $in) -}}
{{- $all := list -}}
{{- range $hosts }}{{ $all = concat $all (list . (printf "%s:*" .)) }}{{ end -}}
{{- join "," (concat $all .Values.tracking.allowedHosts) -}}
{{- end }}
