# shellcheck shell=bash disable=SC2034
# Jean Zay at IDRIS, France: nodes of 8 V100 (32 GB) in the partition gpu_p2; Slurm.
# Untested: written from www.idris.fr, "GPU partitions". Before: export SBATCH_ACCOUNT=...@v100
#
# Physical cores only: IDRIS counts hardware threads, two to a core.
#SBATCH-TRAIN --partition=gpu_p2 --ntasks-per-node=8 --gres=gpu:8 --hint=nomultithread
# The default there is ten minutes. Longer than 20 hours needs --qos=qos_gpu-t4.
#SBATCH-TRAIN --time=20:00:00
# Packing and reports are free of charge there.
#SBATCH-PREP --partition=prepost
#SBATCH-REPORT --partition=prepost

# No local disk on the nodes is documented ($JOBSCRATCH is the parallel file system): do not use --stage.
launcher=srun
