"""The set-up scripts: what is missing is said at once, what no longer fits is noticed.

Nothing is built or downloaded here: the scripts run in a copy, with a PATH of chosen programs.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOOLS = (
    "awk basename bash cat cp diff dirname env expand flock grep ls make mkdir mktemp mv nproc "
    "paste realpath rm sed sha256sum stat tail tar touch"
)

# Changes to what the interpreter says of itself, for a PYTHON that is this one but for them.
OLD = 'sys.version_info = (3, 8, 10); platform.python_version = lambda: "3.8.10"'
NO_HEADERS = 'sysconfig.get_path = lambda name: "/nonexistent"'
NO_VENV = 'sys.modules["ensurepip"] = None'


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


class Checkout:
    """A copy of what the set-up reads, and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "project", folder / "bin"
        self.bin.mkdir()
        for name in ["Makefile", "jobs", "requirements.txt", "setup.py", "hpcddl/__init__.py"]:
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
        for tool in TOOLS.split():
            found = shutil.which(tool)
            assert found, f"no {tool} on this machine"
            (self.bin / tool).symlink_to(found)
        script(self.bin / "g++", "#!/bin/sh\nexit 0\n")
        script(self.bin / "id", "#!/bin/sh\necho 1000\n")
        self.python("python3", "pass")

    def python(self, name: str, change: str) -> Path:
        code = f"import platform, sys, sysconfig\n{change}\nexec(sys.argv.pop(1))"
        return script(
            self.bin / name, f"#!/bin/sh\nshift 2\nexec '{sys.executable}' -I -c '{code}' \"$@\"\n"
        )

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.root), **variables}
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def install(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("bash", "jobs/install.sh", *options, **variables)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def assert_refused(
    checkout: Checkout, result: subprocess.CompletedProcess[str], *words: str
) -> None:
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert all(word in line for word in words), line
    assert not (checkout.root / ".venv").exists()


def test_no_compiler(checkout: Checkout) -> None:
    (checkout.bin / "g++").unlink()
    assert_refused(
        checkout, checkout.install(), "no C++ compiler", "apt-get install build-essential"
    )


def test_compiler_without_cxx17(checkout: Checkout) -> None:
    script(checkout.bin / "g++", "#!/bin/sh\nexit 1\n")
    assert_refused(checkout, checkout.install(), "C++17", "apt-get install build-essential")


def test_no_make(checkout: Checkout) -> None:
    (checkout.bin / "make").unlink()
    assert_refused(checkout, checkout.install(), "no make", "apt-get install make")


def test_no_python(checkout: Checkout) -> None:
    (checkout.bin / "python3").unlink()
    assert_refused(checkout, checkout.install(), "no python3", "apt-get install python3")


def test_old_python(checkout: Checkout) -> None:
    checkout.python("python3", OLD)
    assert_refused(checkout, checkout.install(), "Python 3.8.10", "3.10 or newer", "PYTHON=")


@pytest.mark.parametrize(("change", "package"), [(NO_HEADERS, "dev"), (NO_VENV, "venv")])
def test_python_in_part(checkout: Checkout, change: str, package: str) -> None:
    checkout.python("python3", change)
    assert_refused(checkout, checkout.install(), f"apt-get install python3-{package}")
    checkout.python("python3.12", change)
    result = checkout.install(PYTHON="python3.12")
    assert_refused(checkout, result, f"apt-get install python3.12-{package}")


def test_system_mpi_missing(checkout: Checkout) -> None:
    result = checkout.install(MPI="system")
    assert_refused(checkout, result, "no mpicc", "module load", "apt-get install libopenmpi-dev")


@pytest.mark.parametrize(
    "choice",
    [{"MPI": "mpich"}, {"TORCH": "gpu"}, {"NCCL": "yes"}, {"NCCL": "1", "TORCH": "cpu"}],
)
def test_wrong_choice(checkout: Checkout, choice: dict[str, str]) -> None:
    result = checkout.install(**choice)
    assert_refused(checkout, result, "{}={}".format(*next(iter(choice.items()))))


def made(checkout: Checkout, **changes: str) -> Path:
    """A .venv as it stands between its making and the packages."""
    venv = checkout.root / ".venv"
    (venv / "setup").mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(checkout.bin / "python3")
    version = ".".join(map(str, sys.version_info[:3]))
    values = {"PYTHON": "python3", "version": version, "MPI": "wheel", "TORCH": "cpu", "NCCL": "0"}
    values = {**values, "place": str(venv), **changes}
    (venv / "setup/made").write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    return venv


def test_check_changes_nothing(checkout: Checkout) -> None:
    result = checkout.install("--check")
    assert result.returncode == 1
    assert result.stdout == "make .venv: there is none\n"
    assert not (checkout.root / ".venv").exists()


def test_half_made_environment_is_not_taken_for_whole(checkout: Checkout) -> None:
    (checkout.root / ".venv/setup").mkdir(parents=True)
    (checkout.root / ".venv/bin").mkdir()
    assert "make .venv: it was made only in part" in checkout.install("--check").stdout


def test_environment_made_by_others_is_left_alone(checkout: Checkout) -> None:
    theirs = checkout.root / ".venv/pyvenv.cfg"
    theirs.parent.mkdir()
    theirs.touch()
    result = checkout.install()
    assert (result.returncode, result.stdout) == (2, "")
    assert "was not made by this set-up; fix: mv .venv" in result.stderr
    assert theirs.exists()


def test_what_tests_use_is_no_part_of_the_demo(checkout: Checkout) -> None:
    """Nor is anything of it missed there; the rest is, whichever is asked for."""
    made(checkout)
    assert "\ntests: requirements.txt changed\n" in checkout.install("--check").stdout
    (demo,) = checkout.install("--check", "--without-tests").stdout.splitlines()[:1]
    assert demo.startswith("packages: ")
    assert "tests: " not in checkout.install("--check", "--without-tests").stdout


@pytest.mark.parametrize(("ends", "status"), [("true", 0), ("false", 1)])
def test_what_is_installed_beside_the_build(ends: str, status: int, tmp_path: Path) -> None:
    """It is waited for, and where it fails the set-up does, with the end of its log."""
    text = (ROOT / "jobs/install.sh").read_text()
    functions = re.findall(
        r"^(?:step|beside|joined)\(\) \{.*?^\}\n", text, re.MULTILINE | re.DOTALL
    )
    assert len(functions) == 3
    work = f"packages() {{ sleep 0.2; echo so far; {ends}; echo and on; }}"
    lines = ["beside packages", "step build true", "step packages joined", "echo set up"]
    code = "\n".join(["set -euo pipefail", f"state={tmp_path} log={tmp_path}/log", *functions])
    result = subprocess.run(
        ["bash", "-c", "\n".join([code, work, *lines])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (status, "")
    assert ("set up" in result.stdout) == (status == 0)
    assert ("\nso far\n" in result.stdout) == (status != 0)
    said = (tmp_path / "log").read_text()
    assert ("so far" in said, "and on" in said) == (True, status == 0)


def test_interrupted_packages_start_again(checkout: Checkout) -> None:
    venv = made(checkout)
    assert "packages: " in checkout.install("--check").stdout
    (venv / "setup/packages.begun").touch()
    assert (
        "make .venv: installing its packages was interrupted" in checkout.install("--check").stdout
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "3.9.1"}, "version was 3.9.1"),
        ({"place": "/elsewhere/.venv"}, "place was /elsewhere/.venv"),
    ],
)
def test_environment_of_another_kind_is_made_anew(
    checkout: Checkout, change: dict[str, str], reason: str
) -> None:
    made(checkout, **change)
    assert reason in checkout.install("--check").stdout


def test_choices_are_kept_until_given_anew(checkout: Checkout) -> None:
    made(checkout, TORCH="cu126")
    assert "TORCH" not in checkout.install("--check").stdout
    assert "TORCH was cu126, is cpu" in checkout.install("--check", TORCH="cpu").stdout


# --- what Horovod was built against -----------------------------------------------------------

RECORD = {
    "horovod": "0.28.1",
    "python": "3.11.7 cpython-311",
    "torch": "2.13.0+cpu",
    "cuda": "none",
    "mpi": "mpicxx: Open MPI 5.0.11 (Language: C++)",
    "mpicxx": "BIN/mpicxx",
    "mpiflags": "mpicxx: Open MPI 5.0.11 (Language: C++)",
    "operations": "MPI",
    "prefix": "PREFIX",
    "library": "PREFIX/horovod/torch/mpi_lib_v2.so",
}


def horovod_check(
    checkout: Checkout, *options: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Check an environment that matches RECORD, but for `changes` made in the record."""
    prefix = checkout.root / "env"
    library = prefix / "horovod/torch/mpi_lib_v2.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    library.write_text("binary")
    facts = (
        f"prefix={prefix}\nsite={prefix}\npython=3.11.7 cpython-311\ntorch=2.13.0+cpu\ncuda=none"
    )
    script(checkout.bin / "python", f"#!/bin/sh\ncat >/dev/null\necho '{facts}'\n")
    script(checkout.bin / "mpicxx", f"#!/bin/sh\necho '{RECORD['mpi']}'\n")
    state = library.stat()
    values = {key: value.replace("PREFIX", str(prefix)) for key, value in RECORD.items()}
    values["mpicxx"] = str((checkout.bin / "mpicxx").resolve())
    values["library"] += f" {state.st_size} {int(state.st_mtime)}"
    record = "".join(f"{key}={value}\n" for key, value in {**values, **changes}.items())
    (prefix / "horovod.built").write_text(record)
    return checkout.run("bash", "jobs/build_horovod.sh", "--check", *options)


def test_horovod_that_fits(checkout: Checkout) -> None:
    result = horovod_check(checkout)
    assert (result.returncode, result.stderr) == (0, "")
    assert "fits" in result.stdout


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"torch": "2.12.0+cpu"}, "torch was 2.12.0+cpu, is 2.13.0+cpu"),
        ({"mpi": "mpicxx: Open MPI 4.1.4 (Language: C++)"}, "mpi was mpicxx: Open MPI 4.1.4"),
        ({"mpicxx": "/opt/mpi/bin/mpicxx"}, "mpicxx was /opt/mpi/bin/mpicxx"),
        ({"python": "3.12.1 cpython-312"}, "python was 3.12.1 cpython-312"),
        ({"prefix": "/elsewhere/.venv"}, "prefix was /elsewhere/.venv"),
        ({"library": "/lib.so 1 1"}, "library was /lib.so 1 1"),
    ],
)
def test_horovod_built_for_something_else(
    checkout: Checkout, change: dict[str, str], reason: str
) -> None:
    result = horovod_check(checkout, **change)
    assert result.returncode == 1
    (line,) = result.stdout.splitlines()
    assert line.startswith("Horovod must be built: ")
    assert reason in line


def test_horovod_without_nccl_does_not_fit_nccl(checkout: Checkout) -> None:
    result = horovod_check(checkout, "--nccl")
    assert result.returncode == 1
    assert "operations was MPI, is NCCL" in result.stdout


def test_horovod_without_record(checkout: Checkout) -> None:
    horovod_check(checkout)
    (checkout.root / "env/horovod.built").unlink()
    result = checkout.run("bash", "jobs/build_horovod.sh", "--check")
    assert result.returncode == 1
    assert "has not been built here" in result.stdout


# --- from a wheelhouse ------------------------------------------------------------------------


def wheelhouse(checkout: Checkout, **changes: str) -> Path:
    """What `make wheelhouse` leaves of Horovod, built for RECORD but for `changes`."""
    folder = checkout.root / "wheels"
    folder.mkdir()
    shared = ("horovod", "python", "torch", "cuda", "mpi", "operations")
    values = {key: RECORD[key] for key in shared} | {"mpicxx": str(checkout.bin / "mpicxx")}
    record = "".join(f"{key}={value}\n" for key, value in {**values, **changes}.items())
    (folder / "horovod.built").write_text(record)
    return folder


@pytest.mark.parametrize(
    "change", [{"torch": "2.12.0+cpu"}, {"mpi": "Open MPI 4.1.4"}, {"mpicxx": "bin/mpicxx"}]
)
def test_wheel_for_another_environment_is_refused(
    checkout: Checkout, change: dict[str, str]
) -> None:
    """Before what is installed is touched."""
    horovod_check(checkout)
    folder = wheelhouse(checkout, **change)
    result = checkout.run("bash", "jobs/build_horovod.sh", "--from", str(folder))
    assert result.returncode == 1
    assert "built for another environment" in result.stderr
    assert "< {}={}".format(*next(iter(change.items()))) in result.stderr
    assert (checkout.root / "env/horovod.built").exists()


def test_wheel_for_this_environment_is_installed(checkout: Checkout) -> None:
    """Without an index; from then on it counts as built here."""
    horovod_check(checkout)
    library = checkout.root / "env/horovod/torch/mpi_lib_v2.so"
    python = checkout.bin / "python"
    facts = python.read_text().partition("\n")[2]
    script(
        python,
        f"""#!/bin/sh
if [ "$2" = pip ]; then
    echo "$@" >>'{checkout.root}/pip.log'
    mkdir -p '{library.parent}' && echo other >'{library}'
    exit 0
fi
{facts}""",
    )
    folder = wheelhouse(checkout)
    result = checkout.run("bash", "jobs/build_horovod.sh", "--from", str(folder))
    assert (result.returncode, result.stderr) == (0, "")
    (pip,) = (checkout.root / "pip.log").read_text().splitlines()
    assert "--no-index" in pip
    assert f" {folder}/horovod-" in pip
    assert checkout.run("bash", "jobs/build_horovod.sh", "--check").returncode == 0


def test_a_folder_that_is_no_wheelhouse(checkout: Checkout) -> None:
    (checkout.root / "wheels").mkdir()
    result = checkout.install(WHEELHOUSE="wheels")
    assert_refused(checkout, result, "WHEELHOUSE=", "/wheels was not made by make wheelhouse")


def test_a_wheelhouse_needs_no_compiler(checkout: Checkout) -> None:
    """Nor Python's header files."""
    (checkout.bin / "g++").unlink()
    checkout.python("python3", NO_HEADERS)
    result = checkout.install(WHEELHOUSE=str(wheelhouse(checkout)))
    assert result.stdout.startswith("Setting up .venv with ")


def test_wheelhouse_of_an_unfinished_environment(checkout: Checkout) -> None:
    made(checkout)
    result = checkout.run("bash", "jobs/wheelhouse.sh")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "wheelhouse: no finished .venv here: make setup\n"


# --- make -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("setup", "bash jobs/install.sh"),
        ("wheelhouse", "bash jobs/wheelhouse.sh"),
        ("demo", "bash jobs/demo.sh"),
        ("test", "python -m pytest -n 3"),
        ("test-quick", 'python -m pytest -n 3 -m "not slow and not thorough"'),
        ("test-slow", "python -m pytest -m slow"),
        ("lint", "ruff check ."),
        ("types", "mypy"),
    ],
)
def test_make_sets_up_first(checkout: Checkout, target: str, command: str) -> None:
    result = checkout.run("make", "-n", target)
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "bash jobs/install.sh" + " --without-tests" * (target == "demo")
    assert command in lines


def test_make_help_lists_every_target(checkout: Checkout) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    listed = re.findall(r"^  make ([\w-]+)", checkout.run("make").stdout, re.M)
    assert sorted(listed) == sorted(phony.split())
