"""`python -m tests.lab.fresh [-- COMMAND...]`: a command, or a shell, in a clone of this tree on a fresh Debian 12.

Owns a machine that has nothing but Debian's minimal base and what a person installs by hand (git, make, python3): its
own files, mounts, processes, host name and cgroups. The network is this machine's, with its settings for apt, pip and
certificates, because the point is what gets installed. Unlike the lab it shares no file with this machine, so a command
that only works here because of something that is installed here fails there. All of it ends with the command.

The base is made by debootstrap once and cached. A node that `make up` left is taken down, since its bridge and rules
are in this machine's network. Processes, links and packet filter rules that are left after that are named; exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab import cgroups, debian, kernel
from tests.lab.paths import cache_dir, file_lock
from tests.lab.process import LabError
from tests.lab.progress import say, step

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED_BY_HAND = ("ca-certificates", "git", "make", "python3")
CLONE = "/root/kubelet-py"
SUITE = "bookworm"
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
SETTINGS = (
    "etc/apt/apt.conf.d", "etc/apt/auth.conf.d", "etc/apt/sources.list", "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d", "etc/hosts", "etc/pip.conf", "etc/resolv.conf", AUTHORITIES,
)  # fmt: skip
"""How this machine reaches its package registries."""
PASSED_ON = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_")
NODE_RECORD = "/var/lib/kubelet-py-up/record.json"
"""Where `make up` writes down what it did."""


def base(name: str = SUITE, packages: Sequence[str] = ()) -> Path:
    """Debian's minimal base and these packages, as debootstrap makes it; made when it is not in the cache."""
    tree = cache_dir() / "fresh" / name
    with file_lock("fresh"):
        if not tree.exists():
            debian.ensure("debootstrap")
            partial = tree.with_suffix(".new")
            shutil.rmtree(partial, ignore_errors=True)
            partial.parent.mkdir(parents=True, exist_ok=True)
            with step(f"making a minimal Debian {SUITE} in {tree}"):
                include = [f"--include={','.join(packages)}"] if packages else []
                command = ["debootstrap", "--variant=minbase", *include, SUITE, str(partial), _mirror()]
                done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
                if done.returncode:
                    tail = "\n".join(done.stdout.splitlines()[-5:])
                    raise LabError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
            partial.rename(tree)
    return tree


def _mirror() -> str:
    """The first archive that this machine's own apt is told to use."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {SUITE}", "Created-By: Packages"],
        text=True,
        capture_output=True,
        check=True,
    )
    return (done.stdout.split() or ["http://deb.debian.org/debian"])[0]


@contextlib.contextmanager
def machine_files(tree: Path) -> Iterator[Path]:
    """A copy of a base with this machine's settings; on a real filesystem, so that overlays can be mounted in it."""
    root = cache_dir() / "fresh" / f"machine-{secrets.token_hex(4)}"
    try:
        subprocess.run(["cp", "--archive", "--reflink=auto", str(tree), str(root)], check=True)
        (root / "etc/apt/sources.list").unlink(missing_ok=True)  # debootstrap's
        for setting in SETTINGS:
            if Path("/", setting).exists():
                (root / setting).parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(
                    ["cp", "-rL", "--remove-destination", f"/{setting}", str(root / setting).rpartition("/")[0]],
                    check=True,
                )
        (root / "etc/hostname").write_text("fresh\n")
        yield root
    finally:
        if any(f" {root}/" in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
            raise LabError(f"{root} is not removed: something is mounted in it")
        shutil.rmtree(root, ignore_errors=True)


def run(command: Sequence[str], install: Sequence[str] = INSTALLED_BY_HAND) -> int:
    """The command's exit code, from a clone on a fresh machine."""
    name = f"fresh-{secrets.token_hex(4)}"
    hierarchies = cgroups.plan(name, Path("/proc/self/mounts").read_text(), Path("/proc/self/cgroup").read_text())
    with machine_files(base()) as root:
        cgroups.create(hierarchies)
        before = _network()
        try:
            keeper = os.fork()  # it stays outside the PID namespace that its child is the first process of
            if keeper == 0:
                _keep(root, hierarchies, command, install)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
            status = os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
            changes = sorted(before ^ _network())
            for change in changes:
                say(f"left in the network of this machine, or taken from it: {change}")
            return 1 if changes else status
        finally:
            for directory in cgroups.remove([entry.directory for entry in hierarchies]):
                say(f"{directory} is still there")


def _network() -> frozenset[str]:
    """The links and packet filter rules of this machine."""
    links = [f"link {name}" for name in os.listdir("/sys/class/net")]
    for program in ("iptables-save", "ip6tables-save"):
        if shutil.which(program):
            done = subprocess.run([program], text=True, capture_output=True, check=True)
            lines = (line.partition(" [")[0] for line in done.stdout.splitlines() if line[0] in ":-")
            links += [f"{program} {line}" for line in lines if not line.endswith(" ACCEPT") or line[0] == "-"]
    return frozenset(links)


def _keep(
    root: Path, hierarchies: tuple[cgroups.Hierarchy, ...], command: Sequence[str], install: Sequence[str]
) -> None:
    """Start the machine's first process and pass on how it ends; does not return."""
    status = 1
    try:
        kernel.die_with_parent()
        kernel.unshare(kernel.CLONE_NEWPID)
        first = os.fork()
        if first == 0:
            _first_process(root, hierarchies, command, install)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    except BaseException:
        traceback.print_exc()
    os._exit(status if status >= 0 else 128 - status)


def _first_process(
    root: Path, hierarchies: tuple[cgroups.Hierarchy, ...], command: Sequence[str], install: Sequence[str]
) -> None:
    """PID 1: prepare, run, reap. Its end is the end of all that runs there; does not return."""
    status = 1
    try:
        kernel.die_with_parent()
        _enter(root, hierarchies)
        environment = {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM": os.environ.get("TERM", "dumb"),
            **{name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)},
        }
        by_hand = [
            "sh",
            "-ec",
            f"apt-get -qq update && apt-get -qq -y install --no-install-recommends {' '.join(install)}",
        ]
        authorities = Path("/", AUTHORITIES).read_bytes()
        with step(f"apt-get install {' '.join(install)}"):
            _spawn(by_hand, environment | {"DEBIAN_FRONTEND": "noninteractive"}, quiet=True)
        Path("/", AUTHORITIES).write_bytes(authorities)  # the package ca-certificates has put Debian's own there
        with step("git clone"):
            _spawn(["git", "-c", "safe.directory=*", "clone", "--quiet", "/source", CLONE], environment)
        os.chdir(CLONE)
        status = _spawn(command, environment, check=False)
        if Path(NODE_RECORD).exists():
            _spawn(["make", "down"], environment)
        status = status or _processes_left()
    except BaseException as error:
        say(f"{type(error).__name__}: {error}")
    os._exit(status)


def _enter(root: Path, hierarchies: tuple[cgroups.Hierarchy, ...]) -> None:
    """Make the copy this process' root, with the kernel's filesystems, and this machine's files out of sight."""
    cgroups.enter(hierarchies)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWCGROUP)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.sethostname("fresh")
    kernel.mount(str(root), str(root), flags=kernel.MS_BIND)
    nothing = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", f"{root}/proc", "proc", nothing)
    kernel.mount("sysfs", f"{root}/sys", "sysfs", nothing)
    kernel.mount("/dev", f"{root}/dev", flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("tmpfs", f"{root}/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    Path(root, "source").mkdir()
    kernel.mount(str(REPOSITORY), f"{root}/source", flags=kernel.MS_BIND)
    if wheels := os.environ.get("PIP_FIND_LINKS"):
        with contextlib.suppress(OSError):  # a URL, or a directory that is not there
            Path(root, wheels.lstrip("/")).mkdir(parents=True)
            kernel.mount(wheels, f"{root}{wheels}", flags=kernel.MS_BIND)
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)
    kernel.detach(".")
    os.chdir("/")
    cgroups.mount_inside(hierarchies)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SHARED)  # as systemd leaves it


def _spawn(command: Sequence[str], environment: dict[str, str], *, check: bool = True, quiet: bool = False) -> int:
    """Run to the end and reap whatever else ends meanwhile, as a first process must."""
    with open("/tmp/.out", "w+") if quiet else contextlib.nullcontext() as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
        while True:
            pid, status = os.wait()
            if pid == process.pid:
                break
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if check and code:
            said = Path("/tmp/.out").read_text() if quiet else ""
            raise LabError(f"{' '.join(command)} ended with {code}\n{said}")
    return code if code >= 0 else 128 - code


def _processes_left() -> int:
    """1 when anything but this process is there."""
    left = [pid for pid in os.listdir("/proc") if pid.isdecimal() and pid != "1"]
    for pid in left:
        say(f"left running: {Path('/proc', pid, 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
    return int(bool(left))


def main() -> int:
    """The command's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.fresh", description="A clone on a fresh Debian 12.")
    parser.add_argument("--install", default=" ".join(INSTALLED_BY_HAND), help="what the person installs by hand")
    parser.add_argument("command", nargs="*", default=["bash"], help="what to run in the clone (a shell)")
    arguments = parser.parse_args()
    try:
        return run(arguments.command, arguments.install.split())
    except (LabError, debian.PackageError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
