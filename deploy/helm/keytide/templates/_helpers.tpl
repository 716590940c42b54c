{{- define "keytide.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "keytide.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keytide.labels" -}}
{{ include "keytide.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The sizes that values.yaml describes. There is no limit of CPU: a throttled job falls behind its topics. */}}
{{- define "keytide.resources" -}}
{{- $sizes := dict
  "small" (dict "cpu" "100m" "request" "256Mi" "limit" "1Gi")
  "medium" (dict "cpu" "1" "request" "4Gi" "limit" "8Gi")
  "large" (dict "cpu" "4" "request" "26Gi" "limit" "32Gi") -}}
{{- if .Values.resources -}}
{{ toYaml .Values.resources }}
{{- else -}}
{{- $size := get $sizes .Values.size -}}
requests:
  cpu: {{ $size.cpu | quote }}
  memory: {{ $size.request }}
limits:
  memory: {{ $size.limit }}
{{- end -}}
{{- end -}}

{{/* What the job and the check before it have in common. */}}
{{- define "keytide.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
env:
  - name: KEYTIDE_HTTP__LISTEN
    value: "0.0.0.0:{{ .Values.http.port }}"
  - name: KEYTIDE_HTTP__TOKEN
    value: file:/etc/keytide/secrets/http-token
  {{- if .Values.cluster.enabled }}
  - name: POD_IP
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  - name: KEYTIDE_CLUSTER__LISTEN
    value: "0.0.0.0:{{ .Values.cluster.port }}"
  - name: KEYTIDE_CLUSTER__ADVERTISE
    value: "$(POD_IP):{{ .Values.cluster.port }}"
  - name: KEYTIDE_CLUSTER__PROCESSES
    value: {{ .Values.cluster.processes | quote }}
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- include "keytide.resources" . | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
volumeMounts:
  - name: config
    mountPath: /etc/keytide/keytide.toml
    subPath: keytide.toml
    readOnly: true
  - name: secrets
    mountPath: /etc/keytide/secrets
    readOnly: true
  - name: state
    mountPath: /var/lib/keytide
  - name: tmp
    mountPath: /tmp
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
