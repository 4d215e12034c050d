"""One look at the manifest path: which files there are, what pods they hold, what is wrong with them.

Blocking; the file source calls it in a thread. Keeps what it read, so that a look costs one stat for each unchanged
file, and remembers the last good pod of a file that has become unusable for a while.

Upstream counterpart: pkg/kubelet/config/file.go (listConfig, extractFromDir, extractFromFile).
"""

import os
import stat
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api.pod import SOURCE_FILE, PodUid
from kubelet_py.core.manifest import MAX_MANIFEST_BYTES
from kubelet_py.core.problems import ManifestError
from kubelet_py.core.source_merge import SourceProblem
from kubelet_py.core.static_pod import StaticOrigin, static_pods_of

# A file that changed less than this ago may still be being written.
SETTLED_AFTER_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """What one file holds: a pod, or the reason why not."""

    path: str
    signature: tuple[int, ...]
    pod: core_v1.Pod | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()
    is_fresh: bool = False
    """Changed so recently that a problem may come from a writer who is not done."""


@dataclass(frozen=True, slots=True)
class DirectoryLook:
    """The result. `path_problem` is about the path itself; without it the path is readable or does not exist.

    `unsettled` says that there are more problems, in files that may still be being written: look again soon.
    """

    pods: tuple[core_v1.Pod, ...] = ()
    problems: tuple[SourceProblem, ...] = ()
    warnings: tuple[SourceProblem, ...] = ()
    path_problem: str = ""
    exists: bool = True
    unsettled: bool = False


@dataclass(slots=True)
class _Remembered:
    """A pod that a file held, and since when the file has been unusable."""

    pod: core_v1.Pod
    unusable_since_seconds: float | None = None


@dataclass(slots=True)
class ManifestDirectory:
    """A directory of manifests, or one file."""

    path: Path
    node_name: str
    keep_unusable_seconds: float
    """How long a pod runs on after its file has become unusable: one check interval, as with the Go kubelet."""
    _files: dict[str, ManifestFile] = field(default_factory=dict)
    _good: dict[str, _Remembered] = field(default_factory=dict)

    def forget(self, name: str) -> None:
        """The file was written to: read it again even if its times and size look the same."""
        for path in [path for path in self._files if os.path.basename(path) == name]:
            del self._files[path]

    def pods_of(self, names: Set[str]) -> frozenset[PodUid]:
        """The pods that the files of these names gave at the look before."""
        return frozenset(
            podlib.uid_of(kept.pod) for path, kept in self._good.items() if os.path.basename(path) in names
        )

    def look(self, now_seconds: float) -> DirectoryLook:
        """What is there now. `now_seconds` is the wall clock's."""
        try:
            listed = dict(self._listed())
        except FileNotFoundError:
            self._files.clear()
            self._good.clear()
            return DirectoryLook(exists=False)
        except OSError as error:
            return DirectoryLook(path_problem=f"cannot read {self.path}: {error.strerror or error}")
        self._files = {
            path: self._read(path, status, now_seconds) if isinstance(status, os.stat_result) else status
            for path, status in listed.items()
        }
        return self._result(now_seconds)

    def _listed(self) -> Iterator[tuple[str, "os.stat_result | ManifestFile"]]:
        """Candidates in order: their status, or what is wrong with them already."""
        own = os.stat(self.path)
        if stat.S_ISREG(own.st_mode):
            yield str(self.path), own
            return
        if not stat.S_ISDIR(own.st_mode):
            raise OSError(0, "it is neither a directory nor a file")
        for name in sorted(os.listdir(self.path)):
            if name.startswith("."):
                continue
            path = os.path.join(self.path, name)
            try:
                status = os.stat(path)
            except FileNotFoundError:
                if os.path.lexists(path):
                    yield path, ManifestFile(path, (), problem="the link leads nowhere")
                continue
            except OSError as error:
                yield path, ManifestFile(path, (), problem=f"cannot be read: {error.strerror}")
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, status
            elif stat.S_ISDIR(status.st_mode):
                yield path, ManifestFile(path, (), problem="a directory; manifests in it are not looked for")
            else:
                yield path, ManifestFile(path, (), problem="no regular file")

    def _read(self, path: str, status: os.stat_result, now_seconds: float) -> ManifestFile:
        signature = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._files.get(path)
        # written since this look began, it is a little ahead of it
        is_fresh = abs(now_seconds - status.st_mtime) < SETTLED_AFTER_SECONDS
        if known is not None and known.signature == signature and (known.pod is not None or not known.is_fresh):
            return replace(known, is_fresh=is_fresh) if known.is_fresh else known
        try:
            found = static_pods_of(_content(path), StaticOrigin(self.node_name, SOURCE_FILE, path))
        except ManifestError as error:
            problem = "; ".join(str(p) for p in error.problems)
            return ManifestFile(path, signature, problem=problem, is_fresh=is_fresh)
        except OSError as error:
            return ManifestFile(path, signature, problem=f"cannot be read: {error.strerror}", is_fresh=is_fresh)
        except Exception as error:  # a fault of ours costs this file its pod, and no other
            problem = f"fault of the agent: {type(error).__name__}: {error}"
            return ManifestFile(path, signature, problem=problem, is_fresh=is_fresh)
        warnings = tuple(str(warning) for warning in found.warnings)
        return ManifestFile(path, signature, found.pods[0], warnings=warnings, is_fresh=is_fresh)

    def _result(self, now_seconds: float) -> DirectoryLook:
        problems: list[SourceProblem] = []
        chosen: dict[str, tuple[str, core_v1.Pod]] = {}
        # A file whose pod runs already keeps its name against a newcomer, whatever the order of their paths.
        for path in sorted(self._files, key=lambda path: (path not in self._good, path)):
            file = self._files[path]
            if file.problem:
                problems.append(SourceProblem(path, file.problem))
            pod = file.pod if file.pod is not None else self._kept(path, now_seconds)
            if pod is None:
                continue
            holder, _ = chosen.setdefault(podlib.full_name(pod), (path, pod))
            if holder != path:
                problems.append(
                    SourceProblem(
                        path,
                        f"the pod {podlib.display_name(pod)} is in {holder} already, which stays; "
                        "give this one another name or remove the file",
                    )
                )
        self._good = {
            path: _Remembered(pod, None if self._files[path].pod is not None else self._since(path, now_seconds))
            for path, pod in chosen.values()
        }
        settled = [problem for problem in problems if not self._files[problem.location].is_fresh]
        return DirectoryLook(
            pods=tuple(pod for _, pod in sorted(chosen.values(), key=lambda entry: entry[0])),
            problems=tuple(sorted(settled, key=lambda problem: problem.location)),
            warnings=tuple(SourceProblem(f.path, w) for f in self._files.values() for w in f.warnings),
            unsettled=len(settled) < len(problems),
        )

    def _kept(self, path: str, now_seconds: float) -> core_v1.Pod | None:
        remembered = self._good.get(path)
        if remembered is None or now_seconds - self._since(path, now_seconds) >= self.keep_unusable_seconds:
            return None
        return remembered.pod

    def _since(self, path: str, now_seconds: float) -> float:
        remembered = self._good.get(path)
        since = remembered.unusable_since_seconds if remembered is not None else None
        return now_seconds if since is None else since


def _content(path: str) -> bytes:
    # Not blocking on what became a pipe between stat and open.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
        return file.read(MAX_MANIFEST_BYTES + 1)
