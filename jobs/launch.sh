# shellcheck shell=bash disable=SC2154 # launcher and others come from job.sh
# Sourced after job.sh: starts the ranks, passes the warning signal on to them, and requeues the job.

warned=''
trap 'warned=1' USR2 # until there are ranks to pass it on to: else it would end this script

launch_words() { # the launcher's words, into the list `launch`
    case $launcher in
        mpirun)
            # As many ranks on each node as Slurm was asked for; --oversubscribe would put all on one.
            # No binding: Open MPI's default is a core per rank, which its loader and Horovod's
            # thread would share with it (Horovod, "Horovod with MPI").
            launch=(mpirun -np "$SLURM_NTASKS" --map-by "ppr:$SLURM_NTASKS_PER_NODE:node" --bind-to none)
            ;;
        srun)
            # pmix: with another interface N ranks become N worlds of one. --cpus-per-task: srun does
            # not take sbatch's since Slurm 22.05. Without the last option a failed rank leaves the others.
            launch=(srun --mpi=pmix --ntasks="$SLURM_NTASKS" --ntasks-per-node="$SLURM_NTASKS_PER_NODE"
                --cpus-per-task="$OMP_NUM_THREADS" --kill-on-bad-exit=1)
            ;;
        ibrun) launch=(ibrun) ;; # takes all from Slurm's variables
        *) die "launcher=$launcher: must be mpirun, srun or ibrun" ;;
    esac
    launch+=("${launcher_options[@]}")
}

words_with_local_disk() { # WORDS...: into the list `words`, with --stage site naming the site's disk
    words=("$@")
    local i
    for ((i = 1; i < $#; i++)); do
        if [[ ${words[i - 1]} == --stage && ${words[i]} == site ]]; then words[i]=$local_disk; fi
        if [[ ${words[i]} == --stage=site ]]; then words[i]=--stage=$local_disk; fi
    done
}

requeue() { # WHY: this job once more, if it may; does not return
    local id=$SLURM_JOB_ID count=${SLURM_RESTART_COUNT:-0}
    # A task of an array by the array's name: its own number may come to stand for the whole array.
    [[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    if ((count >= requeues)); then
        say "$1; restarted $count times already, so not again. To go on: submit it again"
        exit 75
    fi
    say "$1; requeued, restart $((count + 1)) of at most $requeues"
    local try
    for try in 1 2 3; do
        if scontrol requeue "$id"; then exit 75; fi
        ((try == 3)) || sleep 10 # the controller of a full cluster does not always answer in time
    done
    say "Slurm does not requeue it; to go on: submit it again"
    exit 75
}

# Runs the ranks until they end. RUN is the run's folder; COMMAND and its words start one rank.
#
# Exit status 0 only with RUN/summary.json, which is written last: mpirun may exit 0 after a lost node.
# 75, or an end without a verdict after Slurm's warning, starts the job again; it goes on from the
# newest checkpoint.
run_ranks() { # RUN COMMAND WORDS...
    local run=$1 command status interrupted deadline=''
    # By its path: Open MPI puts its own folder first on the PATH of ranks on other nodes.
    command=$(command -v "$2")
    shift 2
    launch_words
    if [[ $warned ]]; then requeue "warned before the ranks were started"; fi
    "${launch[@]}" "$command" "$@" &
    local ranks=$!
    # Only the launcher is signalled: it passes the signal on to all ranks.
    trap 'interrupted=1; warned=1; kill -USR2 $ranks' USR2
    while :; do
        interrupted='' status=0
        wait $ranks || status=$?
        [[ $interrupted ]] || break
        say "warned by Slurm: the ranks are told to stop with a checkpoint"
        if [[ -z $deadline ]]; then
            # Ranks that do not get to one in time lose what came after the last.
            (sleep "$grace_seconds" && requeue "no checkpoint within $grace_seconds s of the warning") &
            deadline=$!
        fi
    done
    trap '' USR2
    [[ -z $deadline ]] || kill $deadline 2>/dev/null || true
    if [[ $status == 75 ]]; then requeue "stopped with a checkpoint"; fi
    # A rank that is warned before it listens dies of the signal; 1 and 2 are errors, warned or not.
    if [[ $warned && $status -gt 2 ]]; then requeue "ended with status $status when it was warned"; fi
    if [[ $status == 0 && ! -f $run/summary.json ]]; then
        if [[ $warned ]]; then requeue "ended before its end when it was warned"; fi
        say "the launcher reports success, but there is no $run/summary.json: the run has not ended" >&2
        exit 1
    fi
    exit "$status"
}
