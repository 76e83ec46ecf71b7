# shellcheck shell=bash disable=SC2034
# What a cluster has of its own. Copy this file to jobs/sites/NAME.sh, keep what differs, and use it as
# `hpcddl submit --site NAME ...` or `sbatch jobs/train.sbatch --site NAME ...`. As it stands it changes
# nothing: each line is what holds without it, or a comment.
#
# 1. What to ask Slurm for. `hpcddl submit` puts these options on sbatch's command line, where they win
#    over those in the batch scripts; by hand, give them yourself. One kind of line for all jobs, one for
#    those that train (sweeps too), one for those that pack, one for reports. Your account belongs into
#    your environment (export SBATCH_ACCOUNT=...), where sbatch looks by itself.
#
##SBATCH --mail-type=FAIL
##SBATCH-TRAIN --partition=gpu
#SBATCH-TRAIN --ntasks-per-node=8 --gres=gpu:8
##SBATCH-PREP --partition=cpu
##SBATCH-REPORT --partition=cpu
#
#    One rank per GPU, and every rank sees all GPUs of its node and takes its own: give GPUs to the node
#    (--gres, --gpus-per-node), not to the task (--gpus-per-task), which hides the others from it.

# 2. Software: the MPI that mpi4py and Horovod were built against, and nothing that brings another.
# module purge
# module load openmpi/5.0 cuda/12.6
# An environment other than .venv beside jobs/:
# source ~/envs/hpcddl/bin/activate

# 3. The launcher of that MPI: mpirun, srun (with PMIx), or ibrun.
launcher=mpirun
# Words for it, such as --mca and its values for mpirun, or --cpu-bind=none for srun.
launcher_options=()

# 4. A disk of the node's own, the same path on every node; `--stage site` copies the data there.
local_disk=${TMPDIR:-/tmp}

# 5. Networks. Open MPI finds InfiniBand through UCX by itself. Where that crashes or hangs, TCP does for
#    Horovod, whose gradients NCCL sends; the weights of DPSGD and local SGD do go through MPI.
# export OMPI_MCA_pml=ucx UCX_NET_DEVICES=mlx5_0:1
# export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,sm,tcp
#    Without InfiniBand, the interface that connects the nodes, where there are several: a wrong guess
#    (docker0, virbr0) hangs at the first message.
# export OMPI_MCA_btl_tcp_if_include=eth0 NCCL_SOCKET_IFNAME=eth0

# 6. Time from the warning until the job is requeued without a checkpoint; `--signal` must be earlier.
# grace_seconds=150
# How often a job may start again, for partitions with short time limits.
# requeues=20
