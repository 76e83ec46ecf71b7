# shellcheck shell=bash disable=SC2034
# Puhti at CSC, Finland: 80 nodes of 4 V100 (32 GB), 40 cores, 384 GB and a local NVMe disk; Slurm.
# Untested: written from docs.csc.fi, "Creating a batch job script for Puhti" and "Available batch job
# partitions". CSC wants MPI started by srun. Before: export SBATCH_ACCOUNT=project_...
#
# The local disk must be asked for, in GB, at most 3600; its content is lost when the job ends.
#SBATCH-TRAIN --partition=gpu --ntasks-per-node=4 --gres=gpu:v100:4,nvme:500
# The partition's longest time.
#SBATCH-TRAIN --time=3-00:00:00
#SBATCH-PREP --partition=small
#SBATCH-REPORT --partition=small

launcher=srun
local_disk=${LOCAL_SCRATCH:-/tmp}
