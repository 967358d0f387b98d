{{/* What Pod Security calls restricted, with a read-only root besides. */}}
{{- define "headrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "headrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Metadata of a pod. Takes a dict of root, component, part (its values) and checksums. */}}
{{- define "headrace.podMetadata" -}}
labels:
  {{- include "headrace.labels" . | nindent 2 }}
  {{- with .part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) .part.podAnnotations (default dict .checksums) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod runs. Takes the same dict. */}}
{{- define "headrace.placement" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .part.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .part.topologySpreadConstraints | nindent 2 }}
{{- else if gt (int (default 1 .part.replicas)) 1 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "headrace.selector" . | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Image and its pulling. Takes a dict of root and image. */}}
{{- define "headrace.containerImage" -}}
image: {{ include "headrace.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end -}}

{{/* The sidecar that fetches an agent's certificate, which must be there before the agent starts. */}}
{{- define "headrace.certificateSidecar" -}}
- name: certificate
  {{- include "headrace.containerImage" (dict "root" . "image" .Values.operator.image) | nindent 2 }}
  restartPolicy: Always
  args:
    - operators.certificates
    - fetch
    - --folder=/run/headrace/certificate
    - --signer={{ include "headrace.signer" . }}
    - --identity=spiffe://{{ .Values.certificates.trustDomain }}/node/$(NODE_NAME)
  env:
    - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  startupProbe:
    exec: {command: [test, -f, /run/headrace/certificate/tls.crt]}
    periodSeconds: 1
    failureThreshold: 600
  securityContext:
    {{- include "headrace.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .Values.certificates.resources | nindent 4 }}
  volumeMounts:
    - {name: certificate, mountPath: /run/headrace/certificate}
    - {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{/* What a pod with rights at the API server mounts; others do not see a token. */}}
{{- define "headrace.accountVolume" -}}
- name: account
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{/* Makes the folder of a node for the user of agents and ranks: kubelets make it for root. The only container that
runs as root, with the one capability that giving a folder away takes. */}}
{{- define "headrace.folderContainer" -}}
- name: folder
  {{- include "headrace.containerImage" (dict "root" . "image" .Values.agent.image) | nindent 2 }}
  command: [chown, "{{ .Values.nodes.uid }}:{{ .Values.nodes.uid }}", {{ .Values.nodes.stateFolder }}]
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    runAsNonRoot: false
    runAsUser: 0
    capabilities: {drop: [ALL], add: [CHOWN]}
    seccompProfile: {type: RuntimeDefault}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: state, mountPath: {{ .Values.nodes.stateFolder }}}
{{- end -}}

{{/* Ray's head takes calls before it is a node of its own cluster, and who joins between the two ends with an error. */}}
{{- define "headrace.headContainer" -}}
- name: head
  {{- include "headrace.containerImage" (dict "root" . "image" .Values.agent.image) | nindent 2 }}
  command:
    - python
    - -c
    - |
      import socket, time
      head = "{{ include "headrace.fullname" . }}-ray-head.{{ .Release.Namespace }}.svc"
      for port in ({{ .Values.ray.ports.gcs }}, {{ .Values.ray.ports.nodeManager }}):
          while True:
              try:
                  socket.create_connection((head, port), timeout=5).close()
                  break
              except OSError as error:
                  print(f"waiting for Ray's head, {head}:{port}: {error}", flush=True)
                  time.sleep(2)
  securityContext:
    {{- include "headrace.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 64Mi}
{{- end -}}

{{/* Flags of every Ray node: each port is known, so that policies and firewalls can name it. */}}
{{- define "headrace.rayFlags" -}}
{{- $ports := .Values.ray.ports -}}
- --block
- --disable-usage-stats
- --temp-dir={{ .Values.nodes.stateFolder }}/ray
- --node-manager-port={{ $ports.nodeManager }}
- --object-manager-port={{ $ports.objectManager }}
- --runtime-env-agent-port={{ $ports.runtimeEnv }}
- --dashboard-agent-grpc-port={{ $ports.dashboardAgentGrpc }}
- --dashboard-agent-listen-port={{ $ports.dashboardAgentHttp }}
- --metrics-export-port={{ $ports.metrics }}
- --min-worker-port={{ $ports.workersFirst }}
- --max-worker-port={{ $ports.workersLast }}
{{- end -}}

{{- define "headrace.rayEnv" -}}
{{- if include "headrace.rayAsks" . }}
- {name: RAY_AUTH_MODE, value: token}
- {name: RAY_AUTH_TOKEN_PATH, value: /etc/headrace/ray/token}
{{- end }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: HOME, value: /tmp}
# Whatever number the user has, programs ask for its name.
- {name: USER, value: headrace}
{{- end -}}

{{/* The command line, as the identity of `helm test`. */}}
{{- define "headrace.testContainer" -}}
{{ include "headrace.containerImage" (dict "root" . "image" .Values.controlPlane.image) }}
command: [headrace]
env:
  - {name: HOME, value: /tmp}
securityContext:
  {{- include "headrace.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml .Values.test.resources | nindent 2 }}
volumeMounts:
  - {name: tls, mountPath: /etc/headrace/tls, readOnly: true}
  - {name: job, mountPath: /etc/headrace/job, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "headrace.testFlags" -}}
- --server={{ include "headrace.controlPlaneAddress" . }}
- --tls-ca=/etc/headrace/tls/ca.crt
- --tls-cert=/etc/headrace/tls/tls.crt
- --tls-key=/etc/headrace/tls/tls.key
{{- end -}}
