#!/usr/bin/env bash
# The whole mesh in a real Kubernetes, from install to nothing left: one node, real pods, each step checked.
#
#   scripts/kubernetes/mesh.sh          needs root, and what scripts/install-test-deps.sh installs
#
#   MODE      init or cni: who captures the traffic of pods [default: init]
#   IMAGE     an image that scripts/image.sh made; without it one is made around BINARY
#   BINARY    the program [default: the image's, else made by cargo build]
#   KEEP      1 leaves the cluster up, for a look: KUBE_NS=k8s-mesh scripts/kubernetes/cluster ctl get pods -A
set -euo pipefail
cd "$(dirname "$0")/../.."

export KUBE_NS=${KUBE_NS:-k8s-mesh}
MODE=${MODE:-init}
clients=()
limit=60
. scripts/kubernetes/common.sh

# A file of the image's only layer.
of_image() {
  local layer
  layer=$(tar xOf "$IMAGE" manifest.json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["Layers"][0])')
  tar xOf "$IMAGE" "$layer" | tar xzO "$1"
}

if [ -n "${IMAGE:-}" ] && [ -z "${BINARY:-}" ]; then
  of_image meltemi >"$work/of-image"
  BINARY=$work/of-image
fi
program

step "a cluster, with names and addresses of Services"
cluster_of_one
services
if [ -n "${IMAGE:-}" ]; then
  "$cluster" load "$IMAGE"
else
  program_image
fi

step "install, mode $MODE"
settings=(--set profile=demo --set values.global.imagePullPolicy=IfNotPresent)
if [ "$MODE" = cni ]; then
  # Where this cluster's container runtime has them.
  state=$(dirname "$(inside printenv KUBECONFIG)")
  settings+=(--set components.cni.enabled=true --set "values.cni.cniConfDir=$state/cni" --set "values.cni.cniBinDir=${KUBE_CNI_BIN:-/usr/lib/cni}")
fi
inside "$work/meltemi" install "${settings[@]}" -y

step "a namespace with injection, and the sample in it"
for file in samples/shop/*.yaml; do sed "s#meltemi:latest#$image#" "$file" >"$work/$(basename "$file")"; done
for file in "$work"/*.yaml; do ctl apply -f "$file"; done
for deployment in $(ctl -n shop get deployments -o name); do ctl -n shop rollout status "$deployment" --timeout=120s; done
containers=$(ctl -n shop get pods -o jsonpath='{range .items[*]}{.spec.initContainers[*].name}{"\n"}{end}' | sort | uniq -c)
grep -q istio-proxy <<<"$containers" || die "no proxies in the pods: $containers"
[ "$MODE" = init ] || ! grep -q istio-init <<<"$containers" || die "pods capture by themselves: $containers"

step "requests come through the gateway, in mutual TLS"
gateway=$(ctl -n istio-system get pods -l app=istio-ingressgateway -o jsonpath='{.items[0].status.podIP}')
eventually "a request through the gateway" inside curl -sf -m 5 "http://$gateway:8080/"
answer=$(inside curl -sf -m 5 "http://$gateway:8080/")
grep -q '"mutualTls": true' <<<"$answer" || die "no mutual TLS: $answer"
grep -q 'sa/istio-ingressgateway-service-account' <<<"$answer" || die "not from the gateway: $answer"
pod=$(ctl -n shop get pods -l app=frontend -o jsonpath='{.items[0].metadata.name}')
address=$(ctl -n shop get pod "$pod" -o jsonpath='{.status.podIP}')
! inside curl -s -m 3 "http://$address:8080/" >/dev/null || die "plain text was served in STRICT"

step "kubectl exec, logs and port-forward"
ctl -n shop exec "$pod" -c frontend -- /meltemi --version
[ -n "$(ctl -n shop logs "$pod" -c istio-proxy)" ] || die "the proxy logs nothing"
background kubectl -n shop port-forward "$pod" 18080:8080
eventually "a forwarded port" inside curl -sf -m 2 http://127.0.0.1:18080/

step "restarts under load lose no request"
for client in 1 2 3 4; do
  setsid "$cluster" exec-netns bash -c "while :; do curl -s -o /dev/null -m 10 -w '%{http_code}\n' http://$gateway:8080/; done" >"$work/codes$client" &
  started+=("$!")
  clients+=("$!")
done
for deployment in frontend-v1 catalog-v1 stock-v1; do ctl -n shop rollout restart "deployment/$deployment"; done
for deployment in frontend-v1 catalog-v1 stock-v1; do ctl -n shop rollout status "deployment/$deployment" --timeout=180s; done
sleep 2
for client in "${clients[@]}"; do kill -- "-$client"; done
cat "$work"/codes* | sort | uniq -c
! cat "$work"/codes* | grep -qv '^200$' || die "requests were lost"

# The pod of the catalog's first version, as a jsonpath says it.
catalog() { ctl -n shop get pods -l app=catalog,version=v1 -o jsonpath="{.items[0]$1}"; }
captures_nothing() { [ "$(catalog '.status.initContainerStatuses[?(@.name=="istio-validation")]..exitCode')" = 126 ]; }
is_gone() { [ -z "$(ctl "$@" -o name)" ]; }
no_plugin() { ! grep -rlq istio-cni "$state/cni"; }
answers() { inside curl -sf -m 5 "http://$gateway:8080/"; }

# Has a pod of the catalog start while the node has no plugin. An installation with these settings brings the daemon back.
start_too_early() { # settings of the installation...
  ctl -n istio-system patch daemonset istio-cni-node --type=merge -p '{"spec":{"template":{"spec":{"nodeSelector":{"away":"yes"}}}}}'
  eventually "the daemon to be gone" is_gone -n istio-system get pods -l k8s-app=istio-cni-node
  eventually "the plugin to be gone" no_plugin
  ctl -n shop scale deployment/catalog-v1 --replicas=0
  eventually "the catalog to be gone" is_gone -n shop get pods -l app=catalog,version=v1
  ctl -n shop scale deployment/catalog-v1 --replicas=1
  eventually "a pod that captures nothing" captures_nothing
  early=$(catalog .metadata.uid)
  inside "$work/meltemi" install "${settings[@]}" "$@" -y
}

if [ "$MODE" = cni ]; then
  step "a pod that came before its node's plugin is mended, deleted or labelled"
  start_too_early
  ctl -n shop rollout status deployment/catalog-v1 --timeout=180s
  [ "$(catalog .metadata.uid)" = "$early" ] || die "another pod took the place of the one to be mended"
  eventually "an answer by the mended pod" answers
  start_too_early --set values.cni.repair.repairPods=false --set values.cni.repair.deletePods=true
  replaced() { [ "$(catalog .metadata.uid)" != "$early" ]; }
  eventually "another pod for the deleted one" replaced
  ctl -n shop rollout status deployment/catalog-v1 --timeout=180s
  eventually "an answer by its successor" answers
  start_too_early --set values.cni.repair.repairPods=false --set values.cni.repair.labelPods=true
  is_labelled() { [ -n "$(ctl -n shop get pods -l cni.istio.io/uninitialized=true -o name)" ]; }
  eventually "a label" is_labelled
  ctl -n shop delete pods -l cni.istio.io/uninitialized=true
  ctl -n shop rollout status deployment/catalog-v1 --timeout=180s
fi

step "a Job ends when its application does"
ctl -n shop apply -f - <<JOB
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: once, image: "$image", imagePullPolicy: IfNotPresent, args: ["--version"]}]
JOB
ctl -n shop wait --for=condition=complete job/once --timeout=90s

step "nothing is left"
ctl delete namespace shop --timeout=120s
inside "$work/meltemi" uninstall --purge -y
gone() {
  ! ctl get crd,mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings,namespaces -o name |
    grep -E 'istio|meltemi'
}
eventually "nothing of the mesh in the cluster" gone
if [ "$MODE" = cni ]; then
  ! grep -rl istio-cni "$state/cni" || die "the plugin is still in the runtime's configuration"
  [ ! -e "${KUBE_CNI_BIN:-/usr/lib/cni}/istio-cni" ] || die "the plugin is still there"
fi
step "all of it works"
