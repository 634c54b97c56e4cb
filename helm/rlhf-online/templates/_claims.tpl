{{/* The spec of a claim, of a disk. */}}
{{- define "rlhf.claim" -}}
accessModes: [{{ .accessMode }}]
{{- with .storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size | quote }}
{{- end }}

{{/* The volume of a pod of a StatefulSet. Kubernetes lets none of it change: labels are those that never do. */}}
{{- define "rlhf.claims" -}}
{{- if .disk.enabled }}
volumeClaimTemplates:
  - metadata:
      name: state
      labels:
        {{- include "rlhf.selector" . | nindent 8 }}
    spec:
      {{- include "rlhf.claim" .disk | nindent 6 }}
# What is not in Kafka yet waits for the pod to come back.
persistentVolumeClaimRetentionPolicy:
  whenDeleted: Retain
  whenScaled: Retain
{{- end }}
{{- end }}
