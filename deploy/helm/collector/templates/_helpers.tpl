{{/* The name of all objects: that of the release, with the chart's in it. */}}
{{- define "collector.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "collector" $name) }}{{ $name = printf "%s-collector" $name }}{{ end -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "collector.selector" -}}
app.kubernetes.io/name: collector
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "collector.labels" -}}
{{ include "collector.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "collector.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}{{ include "collector.name" . }}
{{- else }}default{{ end -}}
{{- end -}}

{{- define "collector.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The port of an address such as 0.0.0.0:9464 or [::]:9464. */}}
{{- define "collector.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* The address of the External Metrics API, if it is enabled. */}}
{{- define "collector.externalMetrics" -}}
{{- if dig "external_metrics" "enabled" false .Values.config }}{{ .Values.config.external_metrics.listen }}{{ end -}}
{{- end -}}

{{/* `true` if the External Metrics API reads from Kubernetes how the API server identifies itself. */}}
{{- define "collector.readsFrontProxy" -}}
{{- if and (include "collector.externalMetrics" .) (not .Values.config.external_metrics.front_proxy_ca_path) -}}
true
{{- end -}}
{{- end -}}

{{/* `true` if the External Metrics API asks Kubernetes who may read. */}}
{{- define "collector.reviews" -}}
{{- if and (include "collector.externalMetrics" .) (or (include "collector.readsFrontProxy" .) (dig "kubernetes" "enabled" false .Values.config)) -}}
true
{{- end -}}
{{- end -}}

{{/* `true` if the collector asks the API of Kubernetes, or sends the pod's own token to somebody. */}}
{{- define "collector.needsToken" -}}
{{- $token := "/var/run/secrets/kubernetes.io/serviceaccount/" -}}
{{- if or (dig "kubernetes" "enabled" false .Values.config) (include "collector.reviews" .) (contains $token (toJson .Values.config)) -}}
true
{{- end -}}
{{- end -}}

{{/* The settings of direct scraping, by either of their names, as JSON. */}}
{{- define "collector.scrape" -}}
{{- merge dict (.Values.config.scrape | default dict) (.Values.config.epp | default dict) | toJson -}}
{{- end -}}

{{/* What of the cluster is scraped: `pools`, `endpoint_slices`, or nothing. */}}
{{- define "collector.scraped" -}}
{{- $backends := .Values.config.backend | default "prometheus" -}}
{{- if kindIs "string" $backends }}{{ $backends = splitList "," $backends }}{{ end -}}
{{- $scrape := include "collector.scrape" . | fromJson -}}
{{- $namesTargets := or $scrape.targets $scrape.target_file $scrape.dns -}}
{{- $source := dig "kubernetes" "scrape" "" .Values.config | default (ternary "off" "pools" (not (empty $namesTargets))) -}}
{{- if and (dig "kubernetes" "enabled" false .Values.config) (or (has "scrape" $backends) (has "epp" $backends)) (ne $source "off") -}}
{{ $source }}
{{- end -}}
{{- end -}}

{{/* `true` if Endpoint Pickers get the pod's own token: they ask Kubernetes whether its owner may read /metrics. */}}
{{- define "collector.readsPickers" -}}
{{- $scrape := include "collector.scrape" . | fromJson -}}
{{- $token := $scrape.picker_token_path | default $scrape.token_path | default "" -}}
{{- if or (hasPrefix "/var/run/secrets/kubernetes.io/serviceaccount/" $token) (and (eq (include "collector.scraped" .) "pools") (not $token)) -}}
true
{{- end -}}
{{- end -}}

{{/* What the collector watches with `kubernetes.enabled`. A test compares it with the program. */}}
{{- define "collector.watched" -}}
{{- $scraped := include "collector.scraped" . -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [deployments, replicasets, statefulsets]
  verbs: [list, watch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list, watch]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [list, watch]
- apiGroups: [llmd.ai]
  resources: [variantautoscalings]
  verbs: [list, watch]
- apiGroups: [serving.kserve.io]
  resources: [llminferenceservices]
  verbs: [list, watch]
{{- if $scraped }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}
{{- if eq $scraped "pools" }}
- apiGroups: [inference.networking.k8s.io, inference.networking.x-k8s.io]
  resources: [inferencepools]
  verbs: [list, watch]
{{- end }}
{{- end -}}

{{/* A probe of a path of the HTTP API; of the port alone where clients need a certificate, which the kubelet has not. */}}
{{- define "collector.probe" -}}
{{- $server := .Values.config.server -}}
{{- if $server.tls_client_ca_path -}}
tcpSocket: { port: http }
{{- else -}}
httpGet: { path: {{ .path }}, port: http{{ if $server.tls_cert_path }}, scheme: HTTPS{{ end }} }
{{- end -}}
{{- end -}}

{{/* A duration such as 1m30s or 1.5h in seconds, rounded up. */}}
{{- define "collector.seconds" -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|h|m|s)" . -1 -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $total = addf $total (mulf $number (get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) $unit)) -}}
{{- end -}}
{{- ceil $total | int -}}
{{- end -}}

{{/* What cannot work, said before it is installed. */}}
{{- define "collector.refuse" -}}
{{- $config := .Values.config -}}
{{- if eq .Values.image.tag "latest" -}}
{{- fail "image.tag: name a version instead of latest: two replicas could run two versions" -}}
{{- end -}}
{{- if .Values.apiService.enabled -}}
{{- if not (include "collector.externalMetrics" .) -}}
{{- fail "apiService.enabled needs config.external_metrics.enabled, which opens the port that Kubernetes asks" -}}
{{- end -}}
{{- if dig "keda" "listen" "" $config -}}
{{- fail "apiService.enabled and config.keda.listen exclude each other: KEDA owns v1beta1.external.metrics.k8s.io, and its HPAs stop when another server takes it. Switch one of them off" -}}
{{- end -}}
{{- if not (or .Values.apiService.caBundle .Values.apiService.annotations) -}}
{{- fail "apiService.enabled needs apiService.caBundle, or annotations by which it is injected" -}}
{{- end -}}
{{- $owner := dig "spec" "service" (dict) (lookup "apiregistration.k8s.io/v1" "APIService" "" "v1beta1.external.metrics.k8s.io" | default dict) -}}
{{- if and $owner (ne (printf "%s/%s" $owner.namespace $owner.name) (printf "%s/%s-external-metrics" .Release.Namespace (include "collector.name" .))) -}}
{{- fail (printf "apiService.enabled: v1beta1.external.metrics.k8s.io belongs to the Service %s in %s (KEDA?), whose HPAs would stop. Remove that first, or leave apiService.enabled off" $owner.name $owner.namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
