#!/usr/bin/env bash
# Run it on a machine with internet: it fills DIR (default wheelhouse/) with a wheel of every package in
# .venv, including the Horovod built there. On another machine, with the same Python, C library and (for
# MPI=system) MPI, install from it:
#
#   WHEELHOUSE=DIR make setup
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath -m "${1:-wheelhouse}")
python=$PWD/.venv/bin/python
choice() { sed -n "s/^$1=//p" .venv/setup/made; }

[[ -x $python && -f .venv/setup/package ]] || { echo "wheelhouse: no finished .venv here: make setup" >&2; exit 2; }
new=$out.new # renamed when it is whole
rm -rf "$new"
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT

pip_wheel() { "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$new" "$@"; }

# What is installed, not what requirements.txt would bring today.
"$python" -m pip list --disable-pip-version-check --format=freeze --exclude-editable |
    grep -vE '^(pip|horovod|torch)==' >"$new/packages"
torch=$("$python" -m pip list --disable-pip-version-check --format=freeze | grep '^torch==')
if [[ $(choice MPI) == system ]]; then
    # Uncached: pip would hand out the one it built against another MPI.
    pip_wheel --no-cache-dir --no-binary mpi4py "$(grep '^mpi4py==' "$new/packages")"
    sed -i '/^mpi4py==/d' "$new/packages"
fi
pip_wheel --requirement "$new/packages"
# Where that index is out of reach, pip's own may have the build too.
pip_wheel --retries 0 --extra-index-url "https://download.pytorch.org/whl/$(choice TORCH)" "$torch"
nccl=()
if grep -q '^operations=NCCL' .venv/horovod.built; then nccl=(--nccl); fi
PYTHON=$python bash jobs/build_horovod.sh "${nccl[@]}" --wheel "$new"

rm -rf "$out"
mv "$new" "$out"
du -sh "$out"
