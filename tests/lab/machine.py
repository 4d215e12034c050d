"""`python -m tests.lab.machine [--bare | --cluster | --selinux] [-- COMMAND...]`: a command on a machine that boots.

Owns a virtual machine: Debian 12 with its own kernel, systemd as its first process, pure cgroup v2 and AppArmor, on an
emulated processor (some ten times slower than this one) with a way to the package registries and nothing else. The
place for what a namespace cannot show: units, a boot, another kernel. The command runs in a clone of this tree, with
Docker, containerd and the CNI plugins installed and both programs in /opt/kubelet-py, as README.md tells; the newest
containerd is in /opt/newest-containerd.

`--bare`: nothing but git, make and python3. `--cluster`: with a control plane, which runs in a lab on this machine,
since an emulated processor has no time for it; /root/cluster tells how its API server is reached. `--selinux`: with
SELinux instead of AppArmor, permissive until it is told otherwise, and then for containers alone, because the files
have no labels.

Its files are a copy of a tree that debootstrap made once and that is cached; what the command prints is printed here,
its exit code is the exit code. The machine ends with the command, and with this process.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import debian, fresh, gotools, kernel, pki
from tests.lab.cluster import VIRTUAL_MACHINE_HOST, Cluster
from tests.lab.lab import Lab
from tests.lab.process import LabError
from tests.lab.progress import say, step

BARE = (
    *fresh.INSTALLED_BY_HAND, "dbus", "iproute2", "kmod", "linux-image-cloud-amd64", "procps", "systemd",
    "systemd-sysv", "udev",
)  # fmt: skip
PACKAGES = (
    *BARE, "apparmor", "busybox-static", "containerd", "containernetworking-plugins", "criu", "docker.io", "iptables",
    "python3-venv", "runc", "selinux-policy-default",
)  # fmt: skip
PROGRAMS = "/opt/kubelet-py"
MARK = "the command ended with"
MEMORY_MIB = 4096
DISK = "12G"
UNIT = f"""\
[Unit]
After=multi-user.target network-online.target
Wants=network-online.target

[Service]
Type=oneshot
Environment=HOME=/root
WorkingDirectory={fresh.CLONE}
ExecStart=/bin/sh -c '/bin/sh /root/command; code=$$?; echo; echo "{MARK} $$code"; exec systemctl poweroff --no-block'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
"""
CLUSTER = "root/cluster"
NEW_CONTAINERD = "opt/newest-containerd/bin"
"""Not /opt/containerd, whose programs every containerd prefers to its own."""
NODE = "machine"
SELINUX_MODULE = """\
(typepermissive kernel_t)

(type container_t)
(type container_file_t)
(type container_ro_file_t)
(roletype system_r container_t)
(typeattributeset domain (container_t))
(typeattributeset mcs_constrained_type (container_t))
(typeattributeset file_type (container_file_t container_ro_file_t))

(allow container_t self (process (and (all) (not (setcurrent dyntransition ptrace execheap)))))
(allow container_t self (capability (all)))
(allow container_t self (dir (getattr open read search)))
(allow container_t self (file (getattr open read write append)))
(allow container_t self (lnk_file (getattr read)))
(allow container_t self (fifo_file (all)))
(allow container_t self (tcp_socket (all)))
(allow container_t self (udp_socket (all)))
(allow container_t self (unix_stream_socket (all)))
(allow container_t self (unix_dgram_socket (all)))
(allow container_t self (netlink_route_socket (all)))

(classpermission contents)
(classpermissionset contents (dir (and (all) (not (relabelfrom relabelto mounton)))))
(classpermissionset contents (file (and (all) (not (relabelfrom relabelto mounton)))))
(classpermissionset contents (lnk_file (and (all) (not (relabelfrom relabelto mounton)))))
(classpermissionset contents (fifo_file (and (all) (not (relabelfrom relabelto mounton)))))
(classpermissionset contents (sock_file (and (all) (not (relabelfrom relabelto mounton)))))
(classpermissionset contents (chr_file (and (all) (not (relabelfrom relabelto mounton)))))
(allow container_t container_file_t contents)
(allow container_t container_file_t (filesystem (getattr)))
(allow container_file_t self (filesystem (associate)))
(allow container_file_t tmpfs_t (filesystem (associate)))

(classpermission looked_at)
(classpermissionset looked_at (dir (getattr open read search)))
(classpermissionset looked_at (file (getattr open read ioctl)))
(classpermissionset looked_at (lnk_file (getattr read)))
(allow container_t container_ro_file_t looked_at)
(allow container_t container_ro_file_t (file (map execute execute_no_trans entrypoint)))
(allow initrc_t container_file_t (file (entrypoint)))
(allow container_t proc_t looked_at)
(allow container_t sysctl_type looked_at)
(allow container_t sysfs_t looked_at)
(allow container_t cgroup_t looked_at)

(allow container_t kernel_t (fd (use)))
(allow container_t kernel_t (fifo_file (getattr read write append ioctl)))
(allow container_t kernel_t (process (sigchld)))
(allow container_t port_type (tcp_socket (name_bind name_connect)))
(allow container_t node_type (tcp_socket (node_bind)))
"""
"""What containers may do with what is theirs, and with nothing else.

Debian's policy names these types in its contexts and does not define them, and Debian has no container-selinux. The
files of the machine have no labels, so all that is no container runs as kernel_t, which is let alone.
"""
SELINUX_ARGUMENTS = "security=selinux selinux=1 enforcing=0"
NETWORK = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n"


@dataclass(frozen=True)
class Variant:
    """What the machine has beside the kernel and systemd."""

    bare: bool = False
    cluster: bool = False
    selinux: bool = False


def run(command: Sequence[str], variant: Variant, timeout_seconds: float = 3600.0) -> int:
    """The command's exit code."""
    debian.ensure("qemu-system-x86", "e2fsprogs")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(_control_plane()) if variant.cluster else None
        disk, boot = stack.enter_context(_disk(command, variant, cluster))
        return _boot(disk, boot, SELINUX_ARGUMENTS if variant.selinux else "", timeout_seconds)


@contextlib.contextmanager
def _control_plane() -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        with step("starting a control plane"):
            cluster = stack.enter_context(Cluster.start(stack.enter_context(Lab.start())))
        yield cluster


@contextlib.contextmanager
def _disk(command: Sequence[str], variant: Variant, cluster: Cluster | None) -> Iterator[tuple[Path, Path]]:
    """The machine's disk, and the directory with its kernel."""
    tree = _base(BARE) if variant.bare else _with_programs()
    with fresh.machine_files(tree) as root:
        with step("git clone"):
            clone = f"{root}{fresh.CLONE}"
            subprocess.run(
                ["git", "-c", "safe.directory=*", "clone", "--quiet", str(fresh.REPOSITORY), clone], check=True
            )
        if not variant.bare:
            with step(f"installing the checkout in {PROGRAMS}"):
                _inside(
                    root, f"{PROGRAMS}/bin/pip install --quiet --no-deps {fresh.CLONE} && rm -rf {fresh.CLONE}/build"
                )
            _copy_containerd(root / NEW_CONTAINERD)
        _configure(root, command)
        if variant.selinux:
            with step("adding containers to the SELinux policy"):
                (root / "tmp/container.cil").write_text(SELINUX_MODULE)
                _inside(root, "semodule --noreload --store default --install /tmp/container.cil")
        if cluster is not None:
            _write_credentials(root / CLUSTER, cluster)
        disk = root.with_suffix(".disk")
        try:
            with step("making the disk"):
                subprocess.run(["mkfs.ext4", "-q", "-d", str(root), str(disk), DISK], check=True)
            yield disk, root / "boot"
        finally:
            disk.unlink(missing_ok=True)


def _with_programs() -> Path:
    """The base with the packages that the programs need in a virtual environment; made when it is not in the cache."""
    lock = fresh.REPOSITORY / "requirements.lock"
    plain = _base(PACKAGES)
    tree = plain.with_name(f"{plain.name}-{_digest(lock.read_bytes())}")
    if not tree.exists():
        with fresh.machine_files(plain) as root, step(f"installing the packages of {lock.name} in {PROGRAMS}"):
            shutil.copy(lock, root / "tmp" / lock.name)
            pip = f"{PROGRAMS}/bin/pip install --quiet --disable-pip-version-check"
            _inside(root, f"python3 -m venv {PROGRAMS} && {pip} --require-hashes -r /tmp/{lock.name}")
            subprocess.run(["cp", "--archive", "--reflink=auto", str(root), f"{tree}.new"], check=True)
            Path(f"{tree}.new").rename(tree)
    return tree


def _base(packages: Sequence[str]) -> Path:
    return fresh.base(f"boots-{_digest(' '.join(packages).encode())}", packages)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _inside(root: Path, script: str) -> None:
    """Runs a script with the tree as its root and this machine's network; what it mounts goes with it."""

    def enter() -> None:
        kernel.die_with_parent()
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("proc", f"{root}/proc", "proc")
        kernel.mount("/dev", f"{root}/dev", flags=kernel.MS_BIND | kernel.MS_REC)
        if (wheels := os.environ.get("PIP_FIND_LINKS")) and Path(wheels).is_dir():
            Path(f"{root}{wheels}").mkdir(parents=True, exist_ok=True)
            kernel.mount(wheels, f"{root}{wheels}", flags=kernel.MS_BIND)
        os.chroot(root)
        os.chdir("/")

    environment = {name: value for name, value in os.environ.items() if name.startswith(fresh.PASSED_ON)}
    environment |= {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    command = ["/bin/sh", "-ec", script]
    # a child of its own: mounting needs a single thread, which the caller may not be
    done = subprocess.run(command, env=environment, preexec_fn=enter, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{script} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _configure(root: Path, command: Sequence[str]) -> None:
    """What a person would do after the installation, and the command as the last thing of the boot."""
    units = root / "etc/systemd/system"
    (units / "command.service").write_text(UNIT)
    exports = [
        f"export {name}={shlex.quote(value)}\n"
        for name, value in os.environ.items()
        if name.startswith(fresh.PASSED_ON)
    ]
    (root / "root/command").write_text("".join(exports) + f"exec {shlex.join(command)}\n")
    (root / "etc/systemd/network").mkdir(parents=True, exist_ok=True)
    (root / "etc/systemd/network/all.network").write_text(NETWORK)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")  # QEMU's, which asks this machine's
    (root / "etc/hostname").write_text("machine\n")
    for wanted_by, unit in (
        ("multi-user.target", "systemd-networkd.service"),
        ("network-online.target", "systemd-networkd-wait-online.service"),
    ):
        _enable(units, wanted_by, Path("/lib/systemd/system", unit))
    _enable(units, "default.target", Path("/etc/systemd/system/command.service"))


def _copy_containerd(directory: Path) -> None:
    """The newest one, beside Debian's."""
    directory.mkdir(parents=True)
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        shutil.copy(gotools.ensure(name), directory / name)


def _write_credentials(directory: Path, cluster: Cluster) -> None:
    """A kubeconfig of the node's and one of the administrator's, with the files that they name beside them."""
    directory.mkdir(mode=0o700)
    server = f"https://{VIRTUAL_MACHINE_HOST}:{cluster.outside_port()}"
    shutil.copy(cluster.client_ca, directory / "ca.crt")
    for name, user in (("admin", cluster.admin), ("node", cluster.node_user(NODE))):
        shutil.copy(user.certificate, directory / f"{name}.crt")
        shutil.copy(user.key, directory / f"{name}.key")
        files = {"client-certificate": f"{name}.crt", "client-key": f"{name}.key"}
        (directory / f"{name}.kubeconfig").write_text(pki.kubeconfig(server, Path("ca.crt"), files))


def _enable(units: Path, wanted_by: str, unit: Path) -> None:
    directory = units / f"{wanted_by}.wants"
    directory.mkdir(exist_ok=True)
    (directory / unit.name).unlink(missing_ok=True)
    (directory / unit.name).symlink_to(unit)


def _boot(disk: Path, boot: Path, kernel_arguments: str, timeout_seconds: float) -> int:
    console, line = disk.with_suffix(".console"), disk.with_suffix(".line")
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB),
        "-kernel", str(next(boot.glob("vmlinuz-*"))), "-initrd", str(next(boot.glob("initrd.img-*"))),
        "-append", f"root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 {kernel_arguments}",
        "-drive", f"file={disk},if=virtio,format=raw,cache=unsafe",
        "-nic", "user,model=virtio-net-pci", "-display", "none", "-no-reboot",
        "-serial", f"file:{console}",
        "-chardev", f"socket,id=line,path={line},server=on,wait=on", "-serial", "chardev:line",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=kernel.die_with_parent)
    try:
        return _listen(process, line, console, time.monotonic() + timeout_seconds)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)  # it shuts down
        process.kill()
        process.wait()
        for file in (console, line):
            file.unlink(missing_ok=True)


def _listen(process: subprocess.Popen[bytes], line: Path, console: Path, deadline: float) -> int:
    """Prints what the machine says until the command's exit code is there."""
    with socket.socket(socket.AF_UNIX) as connection:
        while True:
            try:
                connection.connect(str(line))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None:
                    raise LabError(f"qemu ended with {process.returncode}") from None
                time.sleep(0.05)
        say(f"the machine boots; its console is in {console}")
        try:
            connection.settimeout(_left(deadline))
            with connection.makefile("r", errors="replace") as lines:
                for text in lines:
                    if text.startswith(MARK):
                        return int(text.removeprefix(MARK))
                    sys.stdout.write(text.rstrip() + "\n")
                    sys.stdout.flush()
                    connection.settimeout(_left(deadline))  # or a machine that goes on talking goes on for ever
        except TimeoutError:
            raise LabError(f"the machine was not through in time\n{_tail(console)}") from None
    raise LabError(f"the machine ended before the command did\n{_tail(console)}")


def _left(deadline: float) -> float:
    """Seconds; TimeoutError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _tail(console: Path) -> str:
    return "\n".join(console.read_text(errors="replace").splitlines()[-30:])


def main() -> int:
    """The command's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.machine", description="A clone on a machine that boots.")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--bare", action="store_true", help="install nothing but git, make and python3")
    kind.add_argument("--cluster", action="store_true", help="with a control plane that it reaches")
    kind.add_argument("--selinux", action="store_true", help="with SELinux instead of AppArmor")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds until it is ended (%(default)s)")
    parser.add_argument("command", nargs="+", help="what to run in the clone")
    arguments = parser.parse_args()
    try:
        variant = Variant(arguments.bare, arguments.cluster, arguments.selinux)
        return run(arguments.command, variant, arguments.timeout)
    except (LabError, debian.PackageError, gotools.BuildError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
