#!/usr/bin/env bash
# Lays out in folder $1 what `make test-deploy` needs beyond .venv. What cannot be had is told; its tests are skipped with that reason.
set -uo pipefail
deploy=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

missing() { echo "*** not here: $*" >&2; }

environment() {  # NAME REQUIREMENTS
    [ -x "$deploy/$1/bin/python" ] || "$python" -m venv "$deploy/$1"
    "$deploy/$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/$2"
}

environment tools tools.txt || missing "the linters of $here/tools.txt"
"$deploy/tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps dask-kubernetes==2026.3.0 ||
    missing "the operator's resource definitions"
environment airflow airflow.txt || missing Airflow

if command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    [ "$(id -u)" != 0 ] || apt-get -q update >/dev/null || missing "Debian's package lists"
    mkdir -p "$deploy/debian"
    for package in prometheus prometheus-node-exporter; do
        (cd "$deploy/debian" && apt-get -q download "$package" >/dev/null && dpkg -x "$package"_*.deb . && rm "$package"_*.deb) ||
            missing "$package"
    done
    if [ "$(id -u)" = 0 ]; then
        wanted=()
        for program in buildah mmdebstrap; do command -v "$program" >/dev/null || wanted+=("$program"); done
        [ ${#wanted[@]} = 0 ] || apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "${wanted[@]}" >/dev/null ||
            missing "${wanted[*]}"
        command -v kubectl >/dev/null || missing "kubectl (Debian's is too old for our kustomize files)"
    fi
fi
if [ "$(id -u)" = 0 ] && command -v mmdebstrap >/dev/null && [ ! -e "$deploy/base.tar" ]; then
    sources=/etc/apt/sources.list.d/debian.sources
    [ -e "$sources" ] || sources=/etc/apt/sources.list
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$deploy/base.tar.part" "$sources" &&
        mv "$deploy/base.tar.part" "$deploy/base.tar" || missing "a base for the image (mmdebstrap)"
fi
exit 0
