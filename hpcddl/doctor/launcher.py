"""Checks of the launch: how many ranks came, on which nodes, cores and GPUs."""

from __future__ import annotations

from hpcddl.cluster.cores import cores_of_rank
from hpcddl.common.ranges import ranges
from hpcddl.doctor.facts import Job, Rank
from hpcddl.doctor.finding import Finding, counted, ok, worst


def ranks(job: Job) -> Finding:
    """Whether MPI joined all ranks that were started; if not, N ranks are N worlds of one."""
    first = job.first
    if first.promised is not None and first.promised != first.size:
        return Finding(
            "fault",
            f"{first.promised} ranks were started, but MPI joined {first.size}",
            "start with the mpirun of mpi4py's own MPI, or with srun --mpi=pmix",
        )
    if first.promised is None:
        return ok("no launcher: one rank")
    return ok(f"{first.size} started, {first.size} joined")


def nodes(job: Job) -> Finding:
    """Whether the ranks are on all nodes of the Slurm job, and equally many on each."""
    counts = [len(node) for node in job.nodes]
    if job.first.promised is None:
        return ok(job.first.host)
    if len(counts) < job.first.slurm.nodes:
        return Finding(
            "fault",
            f"all {job.first.size} ranks are on {len(counts)} of the job's "
            f"{job.first.slurm.nodes} nodes",
            "mpirun --map-by ppr:$SLURM_NTASKS_PER_NODE:node, and no --oversubscribe inside Slurm",
        )
    if len(set(counts)) > 1:
        return Finding(
            "warn",
            f"from {min(counts)} to {max(counts)} ranks on a node: all wait for the fullest",
            "mpirun --map-by ppr:N:node, or srun --ntasks-per-node=N",
        )
    return ok(f"{counted(len(counts), 'node')} x {counted(counts[0], 'rank')}")


def cores(job: Job) -> Finding:
    """Whether every rank has cores of its own, as many as the node can give."""
    return worst([_cores(node) for node in job.nodes])


def _cores(node: list[Rank]) -> Finding:
    allowed = [one.machine.cores for one in node]
    union = tuple(sorted({core for one in allowed for core in one}))
    online = node[0].machine.node_cores
    least = float(min(cores_of_rank(one, allowed) for one in allowed))
    found = f"{counted(len(node), 'rank')} on cores {ranges(union)} of {node[0].host}'s {online}"
    bound = "mpirun --bind-to none; srun --cpu-bind=none with --cpus-per-task; no taskset around it"
    if len(union) < len(node):
        if len(union) < online:
            return Finding("fault", f"{found}: they share them while others idle", bound)
        return Finding(
            "warn", f"{found}: less than one each", f"at most {online} ranks on such a node"
        )
    if least < 1:
        return Finding("fault", f"{found}: some ranks share one while others idle", bound)
    if least < 2 and len(node) > 1 and 2 * len(node) <= online:
        # The loader's and Horovod's threads then take the core from the one that computes.
        return Finding("warn", f"{found}: {least:.3g} each, which one rank's threads share", bound)
    return ok(f"{found}: {least:.3g} each")


def threads(job: Job) -> Finding:
    """Whether OMP_NUM_THREADS times the ranks fits the cores."""
    return worst([_threads(node) for node in job.nodes])


def _threads(node: list[Rank]) -> Finding:
    given = [one.machine.threads for one in node]
    union = {core for one in node for core in one.machine.cores}
    if None in given:
        return ok("OMP_NUM_THREADS is not set: each rank takes its share of the cores")
    total = sum(one for one in given if one)
    found = f"OMP_NUM_THREADS={given[0]}: {counted(total, 'thread')} of "
    found += f"{counted(len(node), 'rank')} on {counted(len(union), 'core')}"
    if total > max(len(union), len(node)):
        fitting = max(1, len(union) // len(node))
        return Finding("warn", found, f"export OMP_NUM_THREADS={fitting}")
    return ok(found)


def gpus(job: Job) -> Finding:
    """Whether each rank of a node has a GPU, and each GPU a rank."""
    return worst([_gpus(node) for node in job.nodes])


def _gpus(node: list[Rank]) -> Finding:
    first = node[0]
    names = [name for name, _, _ in first.software.gpus]
    seen = min(len(one.software.gpus) for one in node)
    given = first.slurm.gpus
    if not names:
        if not (first.machine.nvidia_devices or given):
            return ok("none: training runs on the CPU")
        if "torch" in first.software.broken:
            return Finding("fault", "torch cannot be imported, and sees no GPU", "mend torch first")
        if not first.software.cuda:
            version = first.software.versions.get("torch", "")
            return Finding(
                "fault",
                f"{first.host} has GPUs, but torch {version} is a CPU build",
                "TORCH=cu126 make setup (kernels for V100 are in cu126 only)",
            )
        return Finding(
            "fault",
            f"{first.host} has GPUs, but torch for CUDA {first.software.cuda} sees none",
            "compare nvidia-smi's driver and CUDA version; unset CUDA_VISIBLE_DEVICES",
        )
    if seen < len(node):
        return Finding(
            "fault",
            f"{len(node)} ranks on {first.host}, and a rank sees {seen} GPUs",
            "one rank per GPU; give GPUs to the node (--gres=gpu:N), not to the task",
        )
    found = f"{len(node)} of {seen} x {names[0]} used on {first.host}"
    if seen > len(node) and first.promised is not None:
        return Finding("warn", found, f"start {seen} ranks per node, one per GPU")
    return ok(found)


def slurm(job: Job) -> Finding:
    """What Slurm has granted, and whether its srun can start MPI."""
    found = job.first.slurm
    if not found.version:
        return ok("none here")
    types = ", ".join(found.mpi_types) or "unknown"
    text = f"Slurm {found.version}, srun --mpi: {types}"
    if found.job:
        text += f"; job {found.job}, {counted(found.nodes, 'node')}"
    if not any(name.startswith("pmix") for name in found.mpi_types):
        return Finding("warn", text, "srun offers no pmix: start the ranks with mpirun")
    return ok(text)
