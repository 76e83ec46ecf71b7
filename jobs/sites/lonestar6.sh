# shellcheck shell=bash disable=SC2034
# Lonestar6 at TACC, Texas: nodes of 3 A100 and 128 cores in the queue gpu-a100; Slurm.
# Untested: written from docs.tacc.utexas.edu, "Lonestar6 User Guide". Slurm there refuses --mem and
# gives whole nodes with all their GPUs: delete the lines with --mem, --gres and --exclusive from
# jobs/train.sbatch and jobs/sweep.sbatch, and --mem from the others, in your copy.
#
#SBATCH-TRAIN --partition=gpu-a100 --ntasks-per-node=3 --time=48:00:00
#SBATCH-PREP --partition=normal
#SBATCH-REPORT --partition=vm-small

# TACC's launcher. Whether it passes a signal on to the ranks is not documented. If it does not, a job
# that reaches its time limit continues from its last regular checkpoint, so make them frequent.
launcher=ibrun
local_disk=/tmp
