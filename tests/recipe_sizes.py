"""Which packaged recipes have networks of above 5 million weights: seconds per step on one core."""

from hpcddl.recipes import names

LARGE = (
    "cifar10.densenet121.",
    "cifar10.googlenet.",
    "cifar10.resnet18.",
    "cifar10.resnext29.",
    "cifar10.senet18.",
    "cifar10.vgg19.",
    "cifar10.wide_resnet28_10.",
    "imagenet.resnet50.",
    "swb300.",
    "wikitext2.",
)
SAME_NETWORKS = ("cifar100.wide_resnet28_10.", "swb2000.")


def small() -> list[str]:
    """The others, quick enough to be run one and all."""
    return [name for name in names() if not name.startswith((*LARGE, *SAME_NETWORKS))]


def large() -> tuple[list[str], list[str]]:
    """One recipe for each large network, and the rest of theirs."""
    ones = [next(name for name in names() if name.startswith(prefix)) for prefix in LARGE]
    return ones, sorted(set(names()) - set(small()) - set(ones))
