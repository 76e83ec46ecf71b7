# shellcheck shell=bash disable=SC2034
# The settings of one cluster. Copy this file to jobs/sites/NAME.sh, change what differs, and use it as
# `hpcddl submit --site NAME ...` or `sbatch jobs/train.sbatch --site NAME ...`. Unchanged it has no
# effect: each line is a default or a comment.
#
# 1. What to ask Slurm for. `hpcddl submit` puts these options on sbatch's command line, where they
#    replace those in the batch scripts. If you call sbatch yourself, give them yourself. SBATCH is for
#    all jobs, SBATCH-TRAIN for those that train (sweeps too), SBATCH-PREP for those that pack, and
#    SBATCH-REPORT for reports. Put your account into your environment (export SBATCH_ACCOUNT=...), where
#    sbatch looks by itself.
#
##SBATCH --mail-type=FAIL
##SBATCH-TRAIN --partition=gpu
#SBATCH-TRAIN --ntasks-per-node=8 --gres=gpu:8
##SBATCH-PREP --partition=cpu
##SBATCH-REPORT --partition=cpu
#
#    There is one rank per GPU. Every rank sees all GPUs of its node and takes its own. So give GPUs to
#    the node (--gres, --gpus-per-node), not to the task (--gpus-per-task), which hides the others from it.

# 2. Software: the MPI that mpi4py and Horovod were built against, and no module that loads another MPI.
# module purge
# module load openmpi/5.0 cuda/12.6
# An environment other than .venv beside jobs/:
# source ~/envs/hpcddl/bin/activate

# 3. The launcher of that MPI: mpirun, srun (with PMIx), or ibrun.
launcher=mpirun
# Options for the launcher, such as --mca and its values for mpirun, or --cpu-bind=none for srun.
launcher_options=()

# 4. A folder on the node's local disk, the same path on every node; `--stage site` copies the data there.
local_disk=${TMPDIR:-/tmp}

# 5. Networks. Open MPI finds InfiniBand through UCX by itself. If that crashes or hangs, TCP is enough
#    for Horovod on GPUs, as NCCL sends its gradients; the weights of DPSGD and local SGD go through MPI.
# export OMPI_MCA_pml=ucx UCX_NET_DEVICES=mlx5_0:1
# export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,sm,tcp
#    Without InfiniBand, name the interface that connects the nodes if there are several: with a wrong
#    one (docker0, virbr0) the job hangs at the first message.
# export OMPI_MCA_btl_tcp_if_include=eth0 NCCL_SOCKET_IFNAME=eth0

# 6. Time from the warning until the job is requeued without a checkpoint; `--signal` must be earlier.
# grace_seconds=150
# How often a job may start again, for partitions with short time limits.
# requeues=20
