{{- define "headrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of objects without a namespace, so that two releases do not share one. */}}
{{- define "headrace.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "headrace.fullname" .) -}}
{{- end -}}

{{/* What selects pods: it may never change. Takes a dict of root and component. */}}
{{- define "headrace.selector" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "headrace.labels" -}}
{{- $own := include "headrace.selector" . | fromYaml -}}
{{- $own = merge $own (dict
    "app.kubernetes.io/version" .root.Chart.AppVersion
    "app.kubernetes.io/part-of" "headrace"
    "app.kubernetes.io/managed-by" .root.Release.Service
    "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version)) -}}
{{- merge $own .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* Takes a dict of root and image. */}}
{{- define "headrace.image" -}}
{{- $base := .image.repository -}}
{{- with .root.Values.image.registry }}{{ $base = printf "%s/%s" . $base }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $base .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $base (.image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "headrace.authoritySecret" -}}
{{- .Values.certificates.authority.existingSecret | default (printf "%s-authority" (include "headrace.fullname" .)) -}}
{{- end -}}

{{- define "headrace.rayTokenSecret" -}}
{{- .Values.ray.existingTokenSecret | default (printf "%s-ray-token" (include "headrace.fullname" .)) -}}
{{- end -}}

{{- define "headrace.rayAddress" -}}
{{- .Values.ray.address | default (printf "%s-ray-head.%s.svc:%v" (include "headrace.fullname" .) .Release.Namespace .Values.ray.ports.gcs) -}}
{{- end -}}

{{/* Several replicas are behind one name, of which clients take the one that decides. */}}
{{- define "headrace.controlPlaneAddress" -}}
{{- $host := printf "%s-control-plane" (include "headrace.fullname" .) -}}
{{- if gt (int .Values.controlPlane.replicas) 1 -}}
dns:///{{ $host }}-replicas.{{ .Release.Namespace }}.svc:7460
{{- else -}}
{{ $host }}.{{ .Release.Namespace }}.svc:7460
{{- end -}}
{{- end -}}

{{- define "headrace.controlPlaneNames" -}}
{{- $host := printf "%s-control-plane" (include "headrace.fullname" .) -}}
{{- $names := list -}}
{{- range list $host (printf "%s-replicas" $host) -}}
{{- $names = concat $names (list . (printf "%s.%s" . $.Release.Namespace) (printf "%s.%s.svc" . $.Release.Namespace)) -}}
{{- end -}}
{{- append $names "localhost" | toJson -}}
{{- end -}}

{{/* Parts that have a certificate of their own, with the names of their Secrets' ends. */}}
{{- define "headrace.certificates" -}}
{{- $domain := .Values.certificates.trustDomain -}}
{{- $found := list (dict "part" "control-plane" "uri" (printf "spiffe://%s/control-plane" $domain) "dns" (include "headrace.controlPlaneNames" . | fromJsonArray)) -}}
{{- if .Values.operator.enabled -}}
{{- $found = append $found (dict "part" "operator" "uri" (printf "spiffe://%s/operator" $domain) "dns" list) -}}
{{- end -}}
{{- range list "admin" "test" -}}
{{- $found = append $found (dict "part" . "uri" (printf "spiffe://%s/%s" $domain .) "dns" list) -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "headrace.operatorScope" -}}
{{- if .Values.operator.clusterObjects -}}
{{- .Values.operator.clusterObjects -}}
{{- else -}}
{{- ternary "no" "yes" (not (empty .Values.watchNamespaces)) -}}
{{- end -}}
{{- end -}}

{{- define "headrace.operatorNodes" -}}
{{- .Values.operator.nodes | default (ternary "no" "yes" (not (empty .Values.watchNamespaces))) -}}
{{- end -}}

{{- /* What the operator has to know of the pools: on which nodes agents are, and what they tolerate. */}}
{{- define "headrace.nodePools" -}}
{{- $pools := list -}}
{{- range .Values.nodes.pools -}}
{{- $pools = append $pools (dict "nodeSelector" (default dict .nodeSelector) "tolerations" (default list .tolerations)) -}}
{{- end -}}
{{- toJson (ternary $pools list .Values.nodes.enabled) -}}
{{- end -}}

{{- define "headrace.signer" -}}
{{- printf "headrace.dev/%s.%s" .Release.Namespace (include "headrace.fullname" .) -}}
{{- end -}}

{{/* Whether the release has Ray nodes of its own. */}}
{{- define "headrace.ownRay" -}}
{{- if and .Values.nodes.enabled (not .Values.ray.address) }}yes{{ end -}}
{{- end -}}

{{/* Whether Ray asks for a token. */}}
{{- define "headrace.rayAsks" -}}
{{- if or (include "headrace.ownRay" .) .Values.ray.existingTokenSecret }}yes{{ end -}}
{{- end -}}
