{{/* The trainer's pods: the one that is the trainer, and on other nodes those that compute with it. */}}

{{/* Nothing where one process trains: the image's own. On one node no other reaches the store in which they meet. */}}
{{- define "rlhf.trainer.command" -}}
{{- $ranks := list "--nproc-per-node" (toString (int .Values.trainer.ranks)) "-m" "services.trainer" }}
{{- if gt (int .Values.trainer.nodes) 1 }}
{{- /* The variables are those of the LeaderWorkerSet's controller. Rank 0 is on node 0, the leader. */}}
{{- $nodes := list "--nnodes" (toString (int .Values.trainer.nodes)) "--node-rank" "$(LWS_WORKER_INDEX)" "--master-addr" "$(LWS_LEADER_ADDRESS)" "--master-port" "29500" }}
{{- concat (list "python" "-m" "torch.distributed.run") $nodes $ranks | toYaml }}
{{- else if gt (int .Values.trainer.ranks) 1 }}
{{- concat (list "python" "-m" "rlhf_online.training.distributed.launch") $ranks | toYaml }}
{{- end }}
{{- end }}

{{/* How many train together, for `doctor` in the pod: variables, a list; none where it is one. */}}
{{- define "rlhf.trainer.ranks" -}}
{{- range $name := list "ranks" "nodes" }}
{{- $number := int (get $.Values.trainer $name) }}
{{- if gt $number 1 }}
- name: {{ printf "RLHF_%s" (upper $name) }}
  value: {{ $number | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Metadata and spec of a pod. A worker keeps nothing, has no port, and neither secret nor token. (root, worker) */}}
{{- define "rlhf.trainer.template" -}}
{{- $worker := .worker }}
{{- with .root }}
{{- $trainer := .Values.trainer }}
{{- $name := include "rlhf.fullname" . }}
{{- $account := dict "name" (include "rlhf.account" (dict "root" . "component" "trainer" "pod" $trainer)) }}
{{- $pod := merge (dict "serviceAccount" $account) $trainer }}
{{- $component := dict "root" . "component" (ternary "trainer-worker" "trainer" $worker) "pod" $pod "settings" (include "rlhf.settings.trainer" .) "token" (not $worker) }}
metadata:
  {{- include "rlhf.pod.metadata" $component | nindent 2 }}
spec:
  {{- include "rlhf.pod" $component | nindent 2 }}
  terminationGracePeriodSeconds: 120
  containers:
    - name: trainer
      {{- $from := concat (include "rlhf.versions.envFrom" . | fromYamlArray) $trainer.extraEnvFrom }}
      {{- include "rlhf.container" (dict "root" . "container" (merge (dict "extraEnvFrom" $from) $trainer)) | nindent 6 }}
      {{- with include "rlhf.trainer.command" . | fromYamlArray }}
      command: {{ toJson . }}
      {{- end }}
      args: ["--config", "/etc/rlhf-online/trainer.toml"]
      {{- $token := include "rlhf.env.secret" (dict "name" "RLHF_OPERATOR_TOKEN" "secret" .Values.auth.existingSecret "key" "operator.token") | fromJson }}
      {{- $secrets := concat (list $token) (include "rlhf.keystore.env" . | fromYamlArray) }}
      {{- $ours := concat $secrets (include "rlhf.trainer.ranks" . | fromYamlArray) }}
      {{- with include "rlhf.env" (dict "ours" (ternary list $ours $worker) "more" $trainer.extraEnv) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- if not $worker }}
      ports:
        - name: metrics
          containerPort: 8004
      # The port opens once it holds the Lease, for which it may have to wait. A trainer that stands still is an
      # alert and no reason to kill it: it would begin the same step again.
      startupProbe:
        httpGet: { path: /metrics, port: metrics }
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 720
      livenessProbe:
        httpGet: { path: /metrics, port: metrics }
        periodSeconds: 20
        timeoutSeconds: 15
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /metrics, port: metrics }
        periodSeconds: 10
        timeoutSeconds: 10
      {{- end }}
      volumeMounts:
        - name: settings
          mountPath: /etc/rlhf-online
          readOnly: true
        - name: state
          mountPath: /var/lib/rlhf-online
        - name: shm
          mountPath: /dev/shm
        {{- include "rlhf.tmp.mounts" . | nindent 8 }}
        {{- with include "rlhf.models.mounts" . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with ternary "" (print (include "rlhf.kafka.mounts" .) "\n" (include "rlhf.tls.ca.mounts" .)) $worker | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $trainer.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: settings
      configMap:
        name: "{{ $name }}-trainer"
    - name: shm
      emptyDir:
        medium: Memory
        sizeLimit: {{ $trainer.sharedMemory | quote }}
    {{- if or $worker (not $trainer.disk.enabled) }}
    - name: state
      emptyDir: {}
    {{- else if gt (int $trainer.nodes) 1 }}
    - name: state
      persistentVolumeClaim:
        claimName: "state-{{ $name }}-trainer-0"
    {{- end }}
    {{- include "rlhf.tmp.volumes" . | nindent 4 }}
    {{- with include "rlhf.models.volumes" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with ternary "" (print (include "rlhf.kafka.volumes" .) "\n" (include "rlhf.tls.ca.volumes" .)) $worker | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $trainer.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
