{{/* What every pod and every container has. */}}

{{/* The part of a pod's spec that its values decide: (root, component, pod, track, token) */}}
{{- define "rlhf.pod" -}}
serviceAccountName: {{ include "rlhf.account" . | quote }}
automountServiceAccountToken: {{ default false .token }}
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with .pod.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "rlhf.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .pod.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* A pod's labels and annotations; a change of its settings makes new pods: (root, component, pod, track, settings) */}}
{{- define "rlhf.pod.metadata" -}}
labels:
  {{- /* Not the chart's version, of which a new one need not make new pods. */}}
  {{- merge (include "rlhf.selector" . | fromYaml) (default dict .pod.podLabels) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- $annotations := merge (dict) (default dict .pod.podAnnotations) (dict "kubectl.kubernetes.io/default-container" .component) }}
{{- with .settings }}
{{- $_ := set $annotations "checksum/settings" (include "rlhf.settings.lasting" . | sha256sum) }}
{{- end }}
annotations:
  {{- toYaml $annotations | nindent 2 }}
{{- end }}

{{/* What of settings holds until a service ends: log levels are read again when the file has changed. (text) */}}
{{- define "rlhf.settings.lasting" -}}
{{- $text := regexReplaceAll "(?m)^log_level = .*$|^\\[log_levels\\]\n(.+\n?)*" . "" }}
{{- regexReplaceAll "\n+" $text "\n" | trim }}
{{- end }}

{{/* A pod of the release's own that comes and goes: where chat's may run, and not as they are spread. (values) */}}
{{- define "rlhf.pod.errand" -}}
{{- merge (dict "serviceAccount" (dict "name" "default")) (pick .chat "nodeSelector" "tolerations" "podLabels" "priorityClassName") | toYaml }}
{{- end }}

{{/* The part of a container that its values decide: (root, container, device) */}}
{{- define "rlhf.container" -}}
image: {{ include "rlhf.image" (dict "root" .root "image" .container.image "device" .device) | quote }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
{{- with .container.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .container.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Variables, each name once (the API server refuses two): the values' own replace ours. (ours, more) */}}
{{- define "rlhf.env" -}}
{{- $all := list }}
{{- $seen := dict }}
{{- range reverse (concat .ours .more) }}
{{- if not (hasKey $seen .name) }}
{{- $_ := set $seen .name true }}
{{- $all = prepend $all . }}
{{- end }}
{{- end }}
{{- with $all }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A variable from a Secret: (name, secret, key) */}}
{{- define "rlhf.env.secret" -}}
{{ dict "name" .name "valueFrom" (dict "secretKeyRef" (dict "name" .secret "key" .key)) | toJson }}
{{- end }}

{{/* What wraps people's content keys: variables, a list. */}}
{{- define "rlhf.keystore.env" -}}
{{- $found := list }}
{{- with .Values.keystore.existingSecret }}
{{- $found = append $found (include "rlhf.env.secret" (dict "name" "RLHF_KEYSTORE_KEK" "secret" . "key" "kek") | fromJson) }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* Where versions are: the bucket's credentials, or the shared volume. */}}
{{- define "rlhf.versions.envFrom" -}}
{{- with .Values.versions.existingSecret }}
- secretRef:
    name: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Mounts of a container that loads models: the model, and the versions where they are a volume: (root's values, reads) */}}
{{- define "rlhf.models.mounts" -}}
{{- if .Values.model.volume }}
- name: models
  mountPath: /models
  readOnly: true
{{- end }}
{{- if not .Values.versions.url }}
- name: versions
  mountPath: /var/lib/rlhf-online-versions
  {{- if .reads }}
  readOnly: true
  {{- end }}
{{- end }}
{{- end }}

{{- define "rlhf.models.volumes" -}}
{{- with .Values.model.volume }}
- name: models
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .Values.versions.url }}
- name: versions
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-versions" (include "rlhf.fullname" .)) .Values.versions.disk.existingClaim | quote }}
{{- end }}
{{- end }}

{{/* Mounts of a container that speaks with Kafka. */}}
{{- define "rlhf.kafka.mounts" -}}
{{- $kafka := include "rlhf.kafka" . | fromYaml }}
{{- range $name := list "password" "ca" "cert" }}
{{- if index $kafka.secrets $name }}
- name: kafka-{{ $name }}
  mountPath: /var/run/secrets/rlhf-online/kafka-{{ $name }}
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{- define "rlhf.kafka.volumes" -}}
{{- $kafka := include "rlhf.kafka" . | fromYaml }}
{{- range $name := list "password" "ca" "cert" }}
{{- with index $kafka.secrets $name }}
- name: kafka-{{ $name }}
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      {{- toYaml .items | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Who vouches for chat's certificate, in a pod that asks chat. */}}
{{- define "rlhf.tls.ca.mounts" -}}
{{- if .Values.chat.tls.caConfigMap }}
- name: chat-ca
  mountPath: {{ include "rlhf.tls.ca" . }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "rlhf.tls.ca.volumes" -}}
{{- with .Values.chat.tls.caConfigMap }}
- name: chat-ca
  configMap:
    name: {{ . | quote }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end }}

{{/* A folder that can be written where the root cannot. */}}
{{- define "rlhf.tmp.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "rlhf.tmp.volumes" -}}
- name: tmp
  emptyDir: {}
{{- end }}
