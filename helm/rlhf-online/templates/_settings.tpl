{{/* The services' settings files, TOML. What must agree between services is said in one place and handed on here. */}}

{{- define "rlhf.state" -}}/var/lib/rlhf-online/state{{- end }}
{{- define "rlhf.socket" -}}/run/rlhf-online/engine/engine.sock{{- end }}

{{/* Where chat's certificate is, who vouches for it, and by what name and address others in the cluster reach it. */}}
{{- define "rlhf.tls" -}}/var/run/secrets/rlhf-online/tls{{- end }}
{{- define "rlhf.tls.ca" -}}/var/run/rlhf-online/chat-ca{{- end }}
{{- define "rlhf.chat.host" -}}{{ include "rlhf.fullname" . }}-chat.{{ .Release.Namespace }}.svc{{- end }}
{{- define "rlhf.chat.scheme" -}}{{ ternary "https" "http" (ne .Values.chat.tls.existingSecret "") }}{{- end }}
{{- define "rlhf.chat.url" -}}{{ include "rlhf.chat.scheme" . }}://{{ include "rlhf.chat.host" . }}:8000{{- end }}

{{/* A map as TOML: JSON's scalars are TOML's, and print 1048576 as it is. (map, table) */}}
{{- define "rlhf.toml" -}}
{{- $table := default "" .table }}
{{- range $name, $value := .map }}
{{- if not (kindIs "map" $value) }}
{{ include "rlhf.toml.key" $name }} = {{ include "rlhf.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $name, $value := .map }}
{{- if kindIs "map" $value }}
{{- $inner := printf "%s%s%s" $table (ternary "." "" (ne $table "")) (include "rlhf.toml.key" $name) }}

[{{ $inner }}]
{{- include "rlhf.toml" (dict "map" $value "table" $inner) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "rlhf.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{- define "rlhf.toml.value" -}}
{{- if kindIs "map" . -}}
{ {{- range $index, $name := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ include "rlhf.toml.key" $name }} = {{ include "rlhf.toml.value" (index $ $name) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $index, $each := . }}{{ if $index }}, {{ end }}{{ include "rlhf.toml.value" $each }}{{ end }}]
{{- else -}}
{{ toJson . }}
{{- end }}
{{- end }}

{{/* Kafka as the services see it: brokers, the table `log.kafka`, and the Secrets that are mounted for it. */}}
{{- define "rlhf.kafka" -}}
{{- $given := .Values.kafka }}
{{- $brokers := $given.brokers }}
{{- $table := deepCopy $given.settings }}
{{- $secrets := dict }}
{{- $password := $given.passwordSecret }}
{{- $ca := $given.caSecret }}
{{- if .Values.strimzi.enabled }}
{{- $name := printf "%s-kafka" (include "rlhf.fullname" .) }}
{{- $brokers = list (printf "%s-kafka-bootstrap:9093" $name) }}
{{- $replicas := min 3 (int .Values.strimzi.replicas) }}
{{- $table = mergeOverwrite (dict "replication" $replicas "min_insync" (max 1 (sub $replicas 1))) $table (dict "tls" true "mechanism" "SCRAM-SHA-512" "username" (printf "%s-user" $name)) }}
{{- $password = dict "name" (printf "%s-user" $name) "key" "password" }}
{{- $ca = dict "name" (printf "%s-cluster-ca-cert" $name) "key" "ca.crt" }}
{{- end }}
{{- $folder := "/var/run/secrets/rlhf-online/kafka-" }}
{{- if $password.name }}
{{- $_ := set $secrets "password" (dict "name" $password.name "items" (list (dict "key" $password.key "path" "password"))) }}
{{- $_ := set $table "password_file" (printf "%spassword/password" $folder) }}
{{- end }}
{{- if $ca.name }}
{{- $_ := set $secrets "ca" (dict "name" $ca.name "items" (list (dict "key" $ca.key "path" "ca.crt"))) }}
{{- $_ := set $table "ca_file" (printf "%sca/ca.crt" $folder) }}
{{- end }}
{{- if $given.certSecret }}
{{- $items := list (dict "key" "tls.crt" "path" "tls.crt") (dict "key" "tls.key" "path" "tls.key") }}
{{- $_ := set $secrets "cert" (dict "name" $given.certSecret "items" $items) }}
{{- $_ := set $table "cert_file" (printf "%scert/tls.crt" $folder) }}
{{- $_ := set $table "key_file" (printf "%scert/tls.key" $folder) }}
{{- end }}
{{- dict "brokers" $brokers "settings" $table "secrets" $secrets | toYaml }}
{{- end }}

{{/* The table `log` of every service. */}}
{{- define "rlhf.log" -}}
{{- $kafka := include "rlhf.kafka" . | fromYaml }}
{{- dict "url" (printf "kafka://%s" (join "," $kafka.brokers)) "topic_prefix" .Values.kafka.topicPrefix "kafka" $kafka.settings | toYaml }}
{{- end }}

{{- define "rlhf.versions" -}}
{{- if .Values.versions.url }}
{{- dict "url" .Values.versions.url "cache_gib" .Values.versions.cacheGib | toYaml }}
{{- else }}
{{- dict "url" "file:/var/lib/rlhf-online-versions/versions" | toYaml }}
{{- end }}
{{- end }}

{{/* What every service's file has. */}}
{{- define "rlhf.settings.common" -}}
{{- $common := dict "state_dir" (include "rlhf.state" .) "log_level" .Values.logLevel "log_format" .Values.logFormat }}
{{- with .Values.tracing.endpoint }}
{{- $_ := set $common "tracing" (dict "endpoint" .) }}
{{- end }}
{{- set $common "versions" (include "rlhf.versions" . | fromYaml) | toYaml }}
{{- end }}

{{/* What chat and trainer have besides: where people's content keys are. */}}
{{- define "rlhf.settings.keystore" -}}
{{- with .Values.keystore.url }}
{{- dict "keystore" (dict "url" .) | toYaml }}
{{- else }}
{{- dict | toYaml }}
{{- end }}
{{- end }}

{{/* The engine's settings, with room for the adapters that the trainer makes. */}}
{{- define "rlhf.engine" -}}
{{- $settings := deepCopy .Values.engine.settings }}
{{- with .Values.engine.extraArgs }}
{{- $_ := set $settings "extra_args" (concat (default list $settings.extra_args) .) }}
{{- end }}
{{- if eq .Values.tuning "lora" }}
{{- $rank := dig "policy" "lora_rank" 8 .Values.trainer.settings | int }}
{{- $_ := set $settings "max_lora_rank" (default (max 16 $rank) $settings.max_lora_rank) }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{- define "rlhf.settings.engine" -}}
{{- $own := dict "model" .Values.model.path "tuning" .Values.tuning "device" .Values.device "socket" (include "rlhf.socket" .) }}
{{- include "rlhf.toml" (dict "map" (mergeOverwrite (include "rlhf.engine" . | fromYaml) $own)) | trim }}
{{- end }}

{{/* How long an answer may take: so long does a pod that ends go on. */}}
{{- define "rlhf.drain" -}}
{{- dig "limits" "answer_timeout_s" 600 .Values.chat.settings | ceil | int }}
{{- end }}

{{- define "rlhf.settings.chat" -}}
{{- $common := include "rlhf.settings.common" . | fromYaml }}
{{- $engine := pick (include "rlhf.engine" . | fromYaml) "tool_call_parser" "max_model_len" "max_lora_rank" }}
{{- $_ := set $engine "max_num_seqs" (default (ternary 64 256 (eq .Values.device "cpu")) .Values.engine.settings.max_num_seqs) }}
{{- $engine = merge (dict "mode" "external" "url" (printf "unix:%s" (include "rlhf.socket" .)) "model" .Values.model.path "tuning" .Values.tuning) $engine }}
{{- $own := dict "engine" $engine "http_port" 8000 "grpc_port" 8001 "objectives" .Values.objectives }}
{{- $_ := set $own "keys_file" "/var/run/secrets/rlhf-online/keys/keys.json" }}
{{- $_ := set $own "drain_s" (include "rlhf.drain" . | int) }}
{{- $_ := set $own "log" (mergeOverwrite (deepCopy .Values.chat.log) (include "rlhf.log" . | fromYaml)) }}
{{- if .Values.chat.tls.existingSecret }}
{{- $folder := include "rlhf.tls" . }}
{{- $_ := set $own "tls" (dict "cert_file" (printf "%s/tls.crt" $folder) "key_file" (printf "%s/tls.key" $folder)) }}
{{- end }}
{{- $defaults := dict "host" "0.0.0.0" }}
{{- $exact := and (eq .Values.device "cpu") (has (default "auto" .Values.engine.settings.dtype) (list "auto" "float32")) }}
{{- if $exact }}
{{- $_ := set $defaults "swap" (dict "probe_tolerance" 0.001) }}
{{- end }}
{{- $settings := mergeOverwrite $defaults (deepCopy .Values.chat.settings) (include "rlhf.settings.keystore" . | fromYaml) $common $own }}
{{- $_ := set $settings "allowed_hosts" (concat .Values.hosts (default list $settings.allowed_hosts) | uniq) }}
{{- include "rlhf.toml" (dict "map" $settings) | trim }}
{{- end }}

{{- define "rlhf.settings.reward" -}}
{{- $common := include "rlhf.settings.common" . | fromYaml }}
{{- $trunk := dig "reward" "trunk" "" .Values.trainer.settings }}
{{- $own := dict "grpc_port" 8002 "metrics_port" 8003 "model" (default .Values.model.path $trunk) "device" .Values.device }}
{{- include "rlhf.toml" (dict "map" (mergeOverwrite (dict "host" "0.0.0.0") (deepCopy .Values.reward.settings) $common $own)) | trim }}
{{- end }}

{{- define "rlhf.settings.trainer" -}}
{{- $common := include "rlhf.settings.common" . | fromYaml }}
{{- $name := include "rlhf.fullname" . }}
{{- $own := dict "metrics_port" 8004 "model" .Values.model.path "tuning" .Values.tuning "device" .Values.device }}
{{- $_ := set $own "chat_url" (include "rlhf.chat.url" .) }}
{{- if .Values.chat.tls.caConfigMap }}
{{- $_ := set $own "chat_ca_file" (printf "%s/ca.crt" (include "rlhf.tls.ca" .)) }}
{{- end }}
{{- $_ := set $own "reward_address" (printf "%s-reward.%s.svc:8002" $name .Release.Namespace) }}
{{- $_ := set $own "log" (include "rlhf.log" . | fromYaml) }}
{{- $_ := set $own "lease" (dict "kind" "kubernetes" "name" (printf "%s-trainer" $name)) }}
{{- $_ := set $own "reward" (dict "objectives" .Values.objectives) }}
{{- include "rlhf.toml" (dict "map" (mergeOverwrite (dict "host" "0.0.0.0") (deepCopy .Values.trainer.settings) (include "rlhf.settings.keystore" . | fromYaml) $common $own)) | trim }}
{{- end }}
