{{/* Names and labels. A selector carries release and component: no two workloads answer for each other. */}}

{{- define "rlhf.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "rlhf.fullname" -}}
{{- $name := include "rlhf.name" . }}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $release .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels that never change: selectors, and what Kubernetes does not let change. (root, component) */}}
{{- define "rlhf.selector" -}}
app.kubernetes.io/name: {{ include "rlhf.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- with .track }}
rlhf-online/track: {{ . }}
{{- end }}
{{- end }}

{{/* Each once: what selectors and Helm go by, then what is given, then the rest. (root, component, labels) */}}
{{- define "rlhf.labels" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $fixed := set (include "rlhf.selector" . | fromYaml) "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $rest := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/part-of" "rlhf-online" "helm.sh/chart" $chart }}
{{- merge $fixed (default dict .labels) .root.Values.commonLabels $rest | toYaml }}
{{- end }}

{{/* metadata of an object: (root, component, name, labels, annotations) */}}
{{- define "rlhf.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "rlhf.labels" . | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The account of a component: (root, component, pod) */}}
{{- define "rlhf.account" -}}
{{- default (printf "%s-%s" (include "rlhf.fullname" .root) .component) .pod.serviceAccount.name }}
{{- end }}

{{/* The engine's image is built for one kind of device, which its tag ends in: (root, image, device) */}}
{{- define "rlhf.image" -}}
{{- $images := .root.Values.images }}
{{- $all := printf "%s%s" (default .root.Chart.AppVersion $images.tag) (ternary (printf "-%s" .device) "" (not (empty .device))) }}
{{- $tag := default $all .image.tag }}
{{- with $images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{/* Annotations of what makes the topics: before all else, or after it where Kafka is made by this release itself. */}}
{{- define "rlhf.topics.hook" -}}
{{- $phase := ternary "post-install,post-upgrade" "pre-install,pre-upgrade" .Values.strimzi.enabled -}}
helm.sh/hook: {{ $phase }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* An engine loads for minutes, and a spool is shipped by a pod that lives: down is slow, one pod at a time. */}}
{{- define "rlhf.scaling.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - { type: Pods, value: 4, periodSeconds: 60 }
scaleDown:
  stabilizationWindowSeconds: 600
  policies:
    - { type: Pods, value: 1, periodSeconds: 300 }
{{- end }}
