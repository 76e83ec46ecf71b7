# shellcheck shell=bash disable=SC2034 # what it leaves is used by those that source it
# Sourced first by every batch script, with the script's arguments. It removes [--site NAME] from
# them and sets up what the job's commands need. It sets these variables:
#
#   jobs            this folder
#   launcher        mpirun (default), srun or ibrun, with launcher_options (a list, default empty)
#   local_disk      a folder on the node's own disk, for `--stage site` (default $TMPDIR, else /tmp)
#   grace_seconds   from the warning signal until the job is requeued without a checkpoint (default 150)
#   requeues        how often a job may start again (default 20)
#
# Then it sources the site's file, jobs/sites/NAME.sh or any other path, which may change all of them.

say() { printf '%s: %s\n' "$SLURM_JOB_NAME" "$*"; }

die() {
    say "$*" >&2
    exit 2
}

jobs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
launcher=mpirun
launcher_options=()
local_disk=${TMPDIR:-/tmp}
grace_seconds=150 # less than the 180 s that train.sbatch and sweep.sbatch ask to be warned before the end
requeues=20       # a job that is warned too early to get anywhere must not come back for ever

# The node's cores shared out among its ranks: else each would start a thread per core. sbatch's own
# word on cores per rank is not needed, as the jobs take whole nodes.
threads=$((SLURM_CPUS_ON_NODE / ${SLURM_NTASKS_PER_NODE:-1}))
export OMP_NUM_THREADS=$((threads > 1 ? threads : 1))
# HDF5 locks what it opens, and fails where a network file system has no locks. Shards need none: they
# are written under another name and never change once they have theirs.
export HDF5_USE_FILE_LOCKING=FALSE
# Horovod waits for ever for a rank that is stuck (its default, 0); ten minutes are longer than any
# checkpoint and cheaper than a night. Its cycle time (1 ms) stays; its fusion is the recipe's fusion_mib.
export HOROVOD_STALL_SHUTDOWN_TIME_SECONDS=600
# Where sbatch was told not to export the environment, srun would not either, and mpirun uses it.
export SLURM_EXPORT_ENV=ALL

if [[ ${1:-} == --site ]]; then
    [[ $# -ge 2 ]] || die "--site: needs a name or a file"
    site=$2
    [[ $site == */* ]] || site=$jobs/sites/$site.sh
    [[ -f $site ]] || die "--site $2: must be a file, or one of $(cd "$jobs/sites" && echo *.sh)"
    # shellcheck source=/dev/null
    source "$site"
    shift 2
fi

# An environment that was active when the job was submitted, or that the site's file activates, stays.
if ! command -v hpcddl >/dev/null && [[ -f $jobs/../.venv/bin/activate ]]; then
    # shellcheck source=/dev/null
    source "$jobs/../.venv/bin/activate"
fi
command -v hpcddl >/dev/null || die "no hpcddl on PATH: run make setup, or activate its environment in the site's file"
