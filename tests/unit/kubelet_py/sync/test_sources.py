"""Sources of pods: files that people write, and all of them together."""

import asyncio
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import pod as podlib
from kubelet_py.core.source_merge import PodOperation, PodSet
from kubelet_py.core.static_pod import StaticOrigin, StaticPods, static_pods_of
from kubelet_py.host.inotify import CREATE, DELETE_SELF, Change, DirectoryWatch
from kubelet_py.sync.sources import manifest_directory
from kubelet_py.sync.sources.file import FileSource
from kubelet_py.sync.sources.manifest_directory import ManifestDirectory
from kubelet_py.sync.sources.merge import SourceMerge, rfc3339_nano
from tests.unit.kubelet_py.sync.source_sets import Sets, manifest_text, running

NOW = 1_000_000.0
OLD = NOW - 100


def _write(path: Path, text: str, at: float = OLD) -> None:
    path.write_text(text)
    os.utime(path, (at, at))


def _directory(path: Path, keep: float = 20) -> ManifestDirectory:
    return ManifestDirectory(path, "n1", keep)


def _names(directory: ManifestDirectory, now: float = NOW) -> list[str]:
    return [podlib.metadata_of(pod).name or "" for pod in directory.look(now).pods]


class TestManifestDirectory:
    """One look at a time, without waiting for anything."""

    def test_every_file_without_a_dot(self, tmp_path: Path) -> None:
        """In order, whatever their suffix; hidden ones and directories are left out."""
        _write(tmp_path / "b.yaml", manifest_text("b"))
        _write(tmp_path / "a.json", '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":'
                                    '[{"name":"c","image":"i"}]}}')  # fmt: skip
        _write(tmp_path / ".hidden", "nonsense")
        (tmp_path / "below").mkdir()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "dangling").symlink_to("nowhere")
        look = _directory(tmp_path).look(NOW)
        assert [podlib.metadata_of(pod).name for pod in look.pods] == ["a-n1", "b-n1"]
        assert {Path(p.location).name: p.message for p in look.problems} == {
            "below": "a directory; manifests in it are not looked for",
            "pipe": "no regular file",
            "dangling": "the link leads nowhere",
        }

    def test_one_file(self, tmp_path: Path) -> None:
        """The path may be a file itself; it may be missing; it may be neither."""
        _write(tmp_path / "web.yaml", manifest_text())
        assert _names(_directory(tmp_path / "web.yaml")) == ["web-n1"]
        look = _directory(tmp_path / "none").look(NOW)
        assert (look.exists, look.pods, look.problems) == (False, (), ())
        os.mkfifo(tmp_path / "pipe")
        assert "neither a directory nor a file" in _directory(tmp_path / "pipe").look(NOW).path_problem

    def test_a_fault_of_ours_in_one_file_costs_no_other_its_pod(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:

        def broken(data: bytes, origin: StaticOrigin) -> StaticPods:
            if b"broken" in data:
                raise TypeError("nobody thought of it")
            return static_pods_of(data, origin)

        monkeypatch.setattr(manifest_directory, "static_pods_of", broken)
        _write(tmp_path / "a.yaml", manifest_text("broken"))
        _write(tmp_path / "b.yaml", manifest_text("web"))
        look = _directory(tmp_path).look(NOW)
        assert [podlib.metadata_of(pod).name for pod in look.pods] == ["web-n1"]
        assert [p.message for p in look.problems] == ["fault of the agent: TypeError: nobody thought of it"]

    def test_other_files_are_untouched_by_a_bad_one(self, tmp_path: Path) -> None:
        """The good pod stays, the bad file is named with its line, and mended it is back."""
        _write(tmp_path / "good.yaml", manifest_text("good"))
        _write(tmp_path / "bad.yaml", "apiVersion: v1\nkind: Pod\nspec: [\n")
        directory = _directory(tmp_path)
        look = directory.look(NOW)
        assert len(look.pods) == 1
        assert look.problems[0].location.endswith("bad.yaml")
        assert look.problems[0].message.startswith("line 4: no YAML")
        _write(tmp_path / "bad.yaml", manifest_text("bad"))
        assert _names(directory) == ["bad-n1", "good-n1"]
        assert directory.look(NOW).problems == ()

    def test_oversized_and_unreadable(self, tmp_path: Path) -> None:
        """Are named too."""
        (tmp_path / "big.yaml").touch()
        os.truncate(tmp_path / "big.yaml", 10 * 2**20 + 1)
        os.utime(tmp_path / "big.yaml", (OLD, OLD))
        (tmp_path / "loop").symlink_to("loop")
        messages = [problem.message for problem in _directory(tmp_path).look(NOW).problems]
        assert messages[0].startswith("larger than 10485760 bytes")
        assert messages[1].startswith("cannot be read: Too many levels")

    def test_a_broken_file_keeps_its_pod_for_a_while(self, tmp_path: Path) -> None:
        """For one check interval from when it broke; a removed file keeps nothing."""
        path = tmp_path / "web.yaml"
        _write(path, manifest_text())
        directory = _directory(tmp_path, keep=20)
        assert _names(directory) == ["web-n1"]
        _write(path, "broken: [")
        assert _names(directory, NOW + 1) == ["web-n1"]
        assert _names(directory, NOW + 20) == ["web-n1"]
        assert _names(directory, NOW + 21) == []
        assert _names(directory, NOW + 22) == []
        _write(path, manifest_text())
        assert _names(directory, NOW + 23) == ["web-n1"]
        path.unlink()
        assert _names(directory, NOW + 24) == []

    def test_mended_in_time_is_the_same_pod(self, tmp_path: Path) -> None:
        """The UID has not changed, so nothing restarts."""
        path = tmp_path / "web.yaml"
        _write(path, manifest_text())
        directory = _directory(tmp_path)
        before = directory.look(NOW).pods[0]
        _write(path, manifest_text()[:40])
        assert directory.look(NOW + 1).pods[0] is before
        _write(path, manifest_text())
        assert directory.look(NOW + 2).pods[0] == before

    @pytest.mark.parametrize("before_seconds", [0.1, -0.001])
    def test_what_is_still_being_written_is_not_told(self, tmp_path: Path, before_seconds: float) -> None:
        """A fresh file's problem is kept back until the file has settled, also of one written since the look began."""
        path = tmp_path / "web.yaml"
        _write(path, manifest_text()[:30], at=NOW - before_seconds)
        directory = _directory(tmp_path)
        look = directory.look(NOW)
        assert (look.problems, look.unsettled) == ((), True)
        look = directory.look(NOW + 2)
        assert (len(look.problems), look.unsettled) == (1, False)

    def test_one_name_in_two_files(self, tmp_path: Path) -> None:
        """The pod that is there stays, the newcomer is named; alone it takes over."""
        _write(tmp_path / "web.yaml", manifest_text())
        directory = _directory(tmp_path)
        first = directory.look(NOW).pods
        _write(tmp_path / "a-copy.yaml", manifest_text())
        look = directory.look(NOW)
        assert look.pods == first
        assert look.problems[0].location.endswith("a-copy.yaml")
        assert "the pod default/web-n1 is in" in look.problems[0].message
        (tmp_path / "web.yaml").unlink()
        assert directory.look(NOW).pods[0] != first[0]
        assert directory.look(NOW).problems == ()

    def test_without_memory_the_first_file_wins(self, tmp_path: Path) -> None:
        """After a restart of the agent."""
        _write(tmp_path / "b.yaml", manifest_text())
        _write(tmp_path / "a.yaml", manifest_text())
        assert _directory(tmp_path).look(NOW).problems[0].location.endswith("b.yaml")

    def test_unchanged_files_are_not_read_again(self, tmp_path: Path) -> None:
        """The very same pod comes out, also when the file was fresh at first; `forget` reads anew."""
        _write(tmp_path / "web.yaml", manifest_text(), at=NOW - 0.1)
        directory = _directory(tmp_path)
        pod = directory.look(NOW).pods[0]
        assert directory.look(NOW).pods[0] is pod
        assert directory.look(NOW + 5).pods[0] is pod
        directory.forget("web.yaml")
        assert directory.look(NOW + 5).pods[0] is not pod

    def test_warnings_come_along(self, tmp_path: Path) -> None:
        """Fields that nobody knows."""
        _write(tmp_path / "web.yaml", manifest_text() + "extra: 1\n")
        (warning,) = _directory(tmp_path).look(NOW).warnings
        assert warning.message.startswith("line 5: extra: unknown field")


class TestFileSource:
    """Real files and the kernel's own events; every wait is for an event, none for a time."""

    async def test_changes_arrive_by_themselves(self, tmp_path: Path) -> None:
        """Written, renamed into place, removed: long before the next check would come."""
        sets, path = Sets(), tmp_path / "m"
        path.mkdir()
        async with running(FileSource(str(path), "n1", 600, sets).run):
            assert await sets.names() == []
            (path / "a.yaml").write_text(manifest_text("a"))
            assert await sets.names() == ["a-n1"]
            (tmp_path / "new").write_text(manifest_text("b"))
            (tmp_path / "new").rename(path / "b.yaml")
            assert await sets.names() == ["a-n1", "b-n1"]
            (path / "a.yaml").unlink()
            assert await sets.names() == ["b-n1"]

    async def test_an_editors_save_restarts_nothing(self, tmp_path: Path) -> None:
        """Old file moved away, new one written, old one removed: the pod was there all the time."""
        sets, path = Sets(), tmp_path / "web.yaml"
        path.write_text(manifest_text())
        async with running(FileSource(str(tmp_path), "n1", 600, sets).run):
            before = (await sets.next()).pods
            path.rename(tmp_path / "web.yaml~")
            path.write_text(manifest_text())
            (tmp_path / "web.yaml~").unlink()
            (tmp_path / "end.yaml").write_text(manifest_text("end"))
            after = (await sets.next()).pods
            assert podlib.uid_of(before[0]) in {podlib.uid_of(pod) for pod in after}

    @pytest.mark.parametrize("way", ["removed and written", "moved away and back"])
    async def test_a_file_that_was_gone_is_a_new_pod(self, tmp_path: Path, way: str) -> None:
        """However quickly it is back with the same content; its neighbour is the old one."""
        sets, path = Sets(), tmp_path / "m" / "web.yaml"
        path.parent.mkdir()
        path.write_text(manifest_text())
        (path.parent / "other.yaml").write_text(manifest_text("other"))
        async with running(FileSource(str(path.parent), "n1", 600, sets).run):
            before = (await sets.next()).pods
            if way == "removed and written":
                path.unlink()
                path.write_text(manifest_text())
            else:
                path.rename(tmp_path / "kept")
                (tmp_path / "kept").rename(path)
            assert await sets.names() == ["other-n1"]
            after = (await sets.next()).pods
        assert [podlib.uid_of(pod) for pod in after] == [podlib.uid_of(pod) for pod in before]

    async def test_a_directory_that_comes_and_goes(self, tmp_path: Path) -> None:
        """No directory is an empty set; its files count from when it is there."""
        sets, path = Sets(), tmp_path / "later"
        async with running(FileSource(f"{path}/", "n1", 600, sets).run):
            assert await sets.names() == []
            path.mkdir()
            (path / "a.yaml").write_text(manifest_text("a"))
            assert await sets.names() == ["a-n1"]
            (path / "a.yaml").rename(tmp_path / "kept")
            path.rmdir()
            assert await sets.names() == []
            path.mkdir()
            (tmp_path / "kept").rename(path / "a.yaml")
            assert await sets.names() == ["a-n1"]

    async def test_a_single_file_among_others(self, tmp_path: Path) -> None:
        """Replaced as editors do; its neighbours do not matter."""
        sets, path = Sets(), tmp_path / "web.yaml"
        path.write_text(manifest_text("a"))
        async with running(FileSource(str(path), "n1", 600, sets).run):
            assert await sets.names() == ["a-n1"]
            (tmp_path / "other.yaml").write_text(manifest_text("other"))
            (tmp_path / "new").write_text(manifest_text("b"))
            (tmp_path / "new").rename(path)
            assert await sets.names() == ["b-n1"]

    async def test_problems_are_logged_once(self, tmp_path: Path) -> None:
        """And their end; the good pods stay."""
        sets = Sets()
        _write(tmp_path / "bad.yaml", "kind: [")
        _write(tmp_path / "good.yaml", manifest_text("good") + "extra: 1\n")
        source = FileSource(str(tmp_path), "n1", 600, sets)
        with capture_logs() as logs:
            await source.look()
            await source.look()
            assert [podlib.metadata_of(p).name for p in (await sets.next()).pods] == ["good-n1"]
            _write(tmp_path / "bad.yaml", manifest_text("bad"))
            await source.look()
        assert [entry["event"] for entry in logs] == ["manifest_unusable", "manifest_warning", "manifest_problem_gone"]
        assert logs[0]["file"].endswith("bad.yaml")
        assert logs[0]["problem"].startswith("line 2: no YAML")
        assert len((await sets.next()).pods) == 2

    async def test_a_path_that_cannot_be_read_stops_nothing(self, tmp_path: Path) -> None:
        """What runs goes on: no set is given."""
        sets = Sets()
        os.mkfifo(tmp_path / "pipe")
        with capture_logs() as logs:
            await FileSource(str(tmp_path / "pipe"), "n1", 600, sets).look()
        assert sets.queue.empty()
        assert logs[0]["event"] == "manifest_unusable"

    async def test_without_a_parent_it_keeps_looking(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path below nothing is an empty set until all of it is there."""
        monkeypatch.setattr("kubelet_py.sync.sources.file._RETRY_SECONDS", 0.01)
        sets, path = Sets(), tmp_path / "x" / "y"
        async with running(FileSource(str(path), "n1", 600, sets).run):
            assert await sets.names() == []
            path.mkdir(parents=True)
            (path / "a.yaml").write_text(manifest_text("a"))
            assert (await sets.names())[-1:] == ["a-n1"]

    async def test_without_inotify_it_looks_now_and_then(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The operator is told why changes take longer."""

        def refuse(_watch: DirectoryWatch) -> DirectoryWatch:
            raise OSError(24, "too many watches")

        monkeypatch.setattr(DirectoryWatch, "__enter__", refuse)
        sets = Sets()
        with capture_logs() as logs:
            async with running(FileSource(str(tmp_path), "n1", 0.01, sets).run):
                assert await sets.names() == []
                (tmp_path / "new").write_text(manifest_text("a"))
                (tmp_path / "new").rename(tmp_path / "a.yaml")
                assert (await sets.names())[-1:] in (["a-n1"], [])
        assert "cannot be watched, looked at each 0.01s" in logs[0]["problem"]
        assert [entry["event"] for entry in logs].count("manifest_unusable") == 1


class TestInotify:
    """The kernel's events."""

    async def test_changes_have_names(self, tmp_path: Path) -> None:
        """Several at once come together; a directory that goes takes the watch with it."""
        below = tmp_path / "d"
        below.mkdir()
        with DirectoryWatch(below, CREATE | DELETE_SELF) as watch:
            for name in ("a", "b"):
                (below / name).touch()
            async with asyncio.timeout(20):
                assert [change.name for change in await watch.changes()] == ["a", "b"]
                for name in ("a", "b"):
                    (below / name).unlink()
                below.rmdir()
                assert any(change.watch_lost for change in await watch.changes())
        assert not Change(CREATE, "a").watch_lost

    async def test_a_flood_loses_nothing(self, tmp_path: Path) -> None:
        """More events than one read takes."""
        names = [f"{number:04}-{'x' * 200}" for number in range(400)]
        with DirectoryWatch(tmp_path, CREATE) as watch:
            for name in names:
                (tmp_path / name).touch()
            found: list[str] = []
            async with asyncio.timeout(20):
                while len(found) < len(names):
                    found += [change.name for change in await watch.changes()]
        assert found == names

    async def test_what_cannot_be_watched(self, tmp_path: Path) -> None:
        """Is named, with where to look."""
        with pytest.raises(OSError, match=r"cannot watch .*max_user_watches"), DirectoryWatch(tmp_path / "no", CREATE):
            pass


class TestSourceMerge:
    """All sources together."""

    def test_ready_when_all_have_spoken(self, tmp_path: Path) -> None:
        """Even with nothing to say."""
        merge = SourceMerge(["file", "api"], lambda: 0)
        assert not merge.ready
        assert merge.accept(PodSet("file", ())) == ()
        assert merge.waiting_for == {"api"}
        merge.accept(PodSet("api", ()))
        assert merge.ready

    def test_sources_do_not_touch_each_other(self, tmp_path: Path) -> None:
        """A set replaces only its own source's pods."""
        _write(tmp_path / "a.yaml", manifest_text("a"))
        pods = _directory(tmp_path).look(NOW).pods
        merge = SourceMerge(["file", "http"], lambda: 1_700_000_000_123_456_789)
        (added,) = merge.accept(PodSet("file", pods))
        assert (added.operation, added.source) == (PodOperation.ADD, "file")
        assert podlib.annotations_of(added.pod)["kubernetes.io/config.seen"] == "2023-11-14T22:13:20.123456789Z"
        assert merge.accept(PodSet("http", ())) == ()
        assert merge.pods() == [added.pod]
        assert merge.has(podlib.uid_of(added.pod))
        (removed,) = merge.accept(PodSet("file", ()))
        assert removed.operation is PodOperation.REMOVE
        assert merge.pods() == []
        assert not merge.has(podlib.uid_of(added.pod))

    def test_duplicates_are_logged(self, tmp_path: Path) -> None:
        """By name and source."""
        _write(tmp_path / "a.yaml", manifest_text("a"))
        (pod,) = _directory(tmp_path).look(NOW).pods
        with capture_logs() as logs:
            SourceMerge(["http"]).accept(PodSet("http", (pod, pod)))
        assert logs[0]["event"] == "pod_name_taken"
        assert logs[0]["pod"] == "default/a-n1"

    def test_times_have_nine_digits(self) -> None:
        """Always."""
        assert rfc3339_nano(0) == "1970-01-01T00:00:00.000000000Z"
