#!/usr/bin/env bash
# Builds Horovod from source against the Python, PyTorch and MPI of one environment, and records
# what it was built against in $PREFIX/horovod.built, so that a later mismatch is noticed.
#
#   bash jobs/build_horovod.sh            build it, unless the installed one fits
#   bash jobs/build_horovod.sh --nccl     with GPU operations through NCCL (nvcc, NCCL and a CUDA PyTorch)
#   bash jobs/build_horovod.sh --check    build nothing; exit 1 and say why if it must be (re)built
#   bash jobs/build_horovod.sh --force    build it in any case
#   bash jobs/build_horovod.sh --wheel DIR    also put the built wheel into DIR, for a machine without
#                                             internet or compiler
#   bash jobs/build_horovod.sh --from DIR     install that wheel, if it was built for this environment
#
# PYTHON names the environment's interpreter (default: the `python` on PATH), JOBS the number of
# compilers that run at once.
# Horovod's own variables (HOROVOD_CUDA_HOME, HOROVOD_NCCL_HOME, HOROVOD_BUILD_CUDA_CC_LIST) are passed on.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(sed -n 's/^horovod==\([^ ;]*\).*/\1/p' "$root/requirements.txt")

die() {
    printf 'build_horovod: %s\n' "$*" >&2
    exit 1
}

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

action=build operations=MPI wheels=
while [[ $# -gt 0 ]]; do
    case $1 in
        --nccl) operations=NCCL ;;
        --check) action=check ;;
        --force) action=force ;;
        --wheel | --from)
            [[ -d ${2:-} ]] || die "$1 ${2:-}: must be a folder"
            action=${1#--} wheels=$2
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) die "unknown option $1 (--nccl, --check, --force, --wheel DIR, --from DIR, --help)" ;;
    esac
    shift
done

PYTHON=$(command -v "${PYTHON:-python}") || die "no ${PYTHON:-python} on PATH: activate the environment first"

# One cheap interpreter start: PyTorch's version is read from its files, for importing it takes seconds.
environment_facts() {
    "$PYTHON" -I - <<'PY'
import importlib.util, pathlib, runpy, sys, sysconfig

torch = importlib.util.find_spec("torch")
facts = runpy.run_path(str(pathlib.Path(torch.origin).with_name("version.py"))) if torch else {}
print(f"prefix={sys.prefix}")
print(f"site={sysconfig.get_path('platlib')}")
print("python={}.{}.{} {}".format(*sys.version_info[:3], sysconfig.get_config_var("SOABI")))
print(f"torch={facts.get('__version__', '')}")
print(f"cuda={facts.get('cuda') or 'none'}")
PY
}

declare -A env=()
while IFS='=' read -r key value; do env[$key]=$value; done < <(environment_facts)
[[ -n ${env[prefix]:-} ]] || die "$PYTHON does not run"
[[ -n ${env[torch]} ]] || die "PyTorch is not installed in ${env[prefix]}: install it before Horovod"
record=${env[prefix]}/horovod.built
kept=${env[prefix]}/horovod.wheel # a folder, for --wheel
export PATH="${env[prefix]}/bin:$PATH" # the environment's MPI and CMake come before the system's
mpicxx=$(command -v mpicxx) || die "no mpicxx on PATH: load an MPI module, or apt-get install libopenmpi-dev openmpi-bin"

mpi_version() { # of whichever family: Open MPI's wrapper tells, MPICH's has a program of its own
    { mpicxx --showme:version || mpichversion || mpirun --version; } 2>/dev/null | sed -n 1p
}

wanted() { # what the build depends on, one key=value a line
    printf '%s\n' "horovod=$version" "python=${env[python]}" "torch=${env[torch]}" "cuda=${env[cuda]}" \
        "mpi=$(mpi_version)" "mpicxx=$(realpath "$mpicxx")" "mpiflags=$(mpicxx -show 2>/dev/null)" \
        "operations=$operations" "prefix=${env[prefix]}"
}

# Size and date of the compiled library: a wheel installed over ours by hand is noticed too.
library() { stat -c 'library=%n %s %Y' "${env[site]}"/horovod/torch/*.so 2>/dev/null; }

reasons() { # why the installed Horovod does not fit, on one line; nothing when it does
    local key value recorded found=()
    [[ -f $record ]] || { echo "it has not been built here"; return; }
    while IFS='=' read -r key value; do
        recorded=$(sed -n "s/^$key=//p" "$record")
        [[ $value == "$recorded" ]] || found+=("$key was ${recorded:-unknown}, is $value")
    done < <(wanted; library || echo library=missing)
    [[ ${#found[@]} -eq 0 ]] || printf '%s; ' "${found[@]}" | sed 's/; $/\n/'
}

check_nccl() {
    [[ ${env[cuda]} != none ]] || die "--nccl: PyTorch ${env[torch]} is a CPU build"
    if [[ -d ${env[prefix]}/conda-meta ]]; then
        : "${HOROVOD_CUDA_HOME:=${env[prefix]}}" "${HOROVOD_NCCL_HOME:=${env[prefix]}}"
    fi
    : "${HOROVOD_CUDA_HOME:=${CUDA_HOME:-$(dirname "$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")}}"
    [[ -x $HOROVOD_CUDA_HOME/bin/nvcc ]] || die "--nccl: no nvcc in $HOROVOD_CUDA_HOME/bin: load a CUDA module or set HOROVOD_CUDA_HOME"
    export HOROVOD_CUDA_HOME HOROVOD_NCCL_HOME="${HOROVOD_NCCL_HOME:-/usr}" CUDA_HOME="$HOROVOD_CUDA_HOME"
    [[ -f $HOROVOD_NCCL_HOME/include/nccl.h ]] || die "--nccl: no include/nccl.h in $HOROVOD_NCCL_HOME: set HOROVOD_NCCL_HOME"
    # Shared, so that Horovod and PyTorch use one NCCL; the static library is often not packaged.
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK="${HOROVOD_NCCL_LINK:-SHARED}"
}

compilers_at_once() { # a file that includes PyTorch's headers takes about 1.5 GiB to compile
    local cores gib
    cores=$(nproc)
    gib=$(awk '/^MemAvailable/ {print int($2 / 1048576 / 1.5)}' /proc/meminfo)
    echo $((gib < 1 ? 1 : gib < cores ? gib : cores))
}

fetch_source() { # into $1, with the one change that PyTorch >= 2.1 needs
    local lists
    "$PYTHON" -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation --dest "$1" "horovod==$version"
    tar -xzf "$1"/horovod-*.tar.gz -C "$1"
    source=$1/horovod-$version
    # Horovod 0.28.1 asks for C++14, PyTorch's headers for C++17; mended in Horovod's master, never released.
    # In the sources and not by a compiler wrapper, so that nvcc and its host compiler agree.
    for lists in "$source"/{,horovod/torch/,horovod/common/ops/cuda/}CMakeLists.txt; do
        sed -i 's/^\( *set(CMAKE_[A-Z]*_STANDARD\) 1[14])/\1 17)/' "$lists"
        grep -q '^ *set(CMAKE_[A-Z]*_STANDARD 17)' "$lists" || die "$lists of Horovod $version sets no C++ standard"
    done
    # Without debug information, which nobody looks at, the build is a fifth shorter.
    sed -i 's/^string(REPLACE "-O2" "-O3"/string(REPLACE "-O2 -g" "-O3"/' "$source/CMakeLists.txt"
    if [[ $operations == MPI ]]; then
        # A CUDA PyTorch and an nvcc lying about would otherwise pull half a GPU build in, and fail.
        # shellcheck disable=SC2016 # CMake's variables, not the shell's
        sed -i 's/^string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)$/set(Pytorch_CUDA FALSE)/' "$source/cmake/Modules/FindPytorch.cmake"
    fi
}

build() {
    local work
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder is known now
    trap "rm -rf '$work'" EXIT
    if [[ $operations == NCCL ]]; then check_nccl; fi
    # make's own flags (-s, MPI=system, a jobserver) would reach Horovod's make and serialise it.
    unset MAKELEVEL MAKEOVERRIDES MFLAGS
    export MAKEFLAGS="-j${JOBS:-$(compilers_at_once)}"
    export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
    export HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1
    if [[ -x ${env[prefix]}/bin/cmake ]]; then export HOROVOD_CMAKE="${env[prefix]}/bin/cmake"; fi
    if [[ -d ${env[prefix]}/conda-meta ]]; then export CMAKE_PREFIX_PATH="${env[prefix]}:${CMAKE_PREFIX_PATH:-}"; fi
    # The MPI and PyTorch of the environment that the library lies in, before those it was built with.
    # shellcheck disable=SC2016 # the dynamic linker's variable, not the shell's
    export LDFLAGS='-Wl,-rpath,$ORIGIN/../../../..:$ORIGIN/../../torch/lib '"${LDFLAGS:-}"
    fetch_source "$work"
    # No cache: pip keys built wheels by Horovod's version alone, whatever PyTorch or MPI they belong to.
    "$PYTHON" -m pip wheel --no-build-isolation --no-deps --no-cache-dir --wheel-dir "$work/wheel" "$source"
    install_wheel "$work/wheel"
    rm -rf "$kept"
    mv "$work/wheel" "$kept"
}

install_wheel() { # of the folder $1
    # Removed by hand: pip cannot uninstall what an interrupted run left without its RECORD.
    rm -rf "$record" "${env[site]}"/horovod "${env[site]}"/horovod-*.dist-info
    "$PYTHON" -m pip install --no-index --no-deps --no-cache-dir "$1"/horovod-"$version"-*.whl
}

# What two environments must have in common to share a wheel. An MPI from a wheel lies inside of each,
# the cluster's own is one and the same.
portable() {
    wanted | grep -vE '^(prefix|mpiflags|mpicxx)='
    echo "mpicxx=$(realpath "$mpicxx" | sed "s|^$(realpath "${env[prefix]}")/||")"
}

put_wheel() { # into the folder $wheels, with what it was built for
    cp "$kept"/horovod-"$version"-*.whl "$wheels"
    portable >"$wheels/horovod.built"
}

check_wheel() { # the one in the folder $wheels
    local other
    [[ -f $wheels/horovod.built ]] || die "--from $wheels: no Horovod there; make wheelhouse puts it there"
    other=$(diff "$wheels/horovod.built" <(portable)) ||
        die "--from $wheels: its Horovod was built for another environment (<) than this one (>)"$'\n'"$other"
}

verify() { # imports, and finds one single MPI library behind Horovod and mpi4py
    "$PYTHON" -I - "$operations" <<'PY'
import sys
import mpi4py

mpi4py.rc.initialize = False
import horovod.torch as hvd
from mpi4py import MPI

assert hvd.mpi_built(), "Horovod was built without MPI"
assert sys.argv[1] != "NCCL" or hvd.nccl_built(), "Horovod was built without NCCL"
with open("/proc/self/maps") as maps:
    libraries = {line.split()[-1] for line in maps if "/libmpi.so" in line}
assert len(libraries) <= 1, f"Horovod and mpi4py use two MPI libraries: {sorted(libraries)}"
print(*libraries, MPI.Get_library_version().split(",")[0])
PY
}

why=$(reasons)
if [[ $action == check ]]; then
    if [[ -z $why ]]; then
        echo "Horovod $version fits: PyTorch ${env[torch]}, $(mpi_version), operations $operations"
        exit 0
    fi
    echo "Horovod must be built: $why"
    exit 1
fi
if [[ $action == build && -z $why ]]; then exit 0; fi
if [[ $action == wheel && -z $why && -d $kept ]]; then
    put_wheel
    exit 0
fi

if [[ $action == from ]]; then
    check_wheel
    install_wheel "$wheels"
else
    build
fi
verify
{ wanted; library; } >"$record.new"
mv "$record.new" "$record" # last: without it the build counts as not done
if [[ $action == wheel ]]; then put_wheel; fi
