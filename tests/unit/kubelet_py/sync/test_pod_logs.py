"""Removal of a pod's logs."""

from pathlib import Path

from kubelet_py.sync.pod_logs import remove_pod_logs


def test_only_the_pods_own_logs_and_links_go(tmp_path: Path) -> None:
    """A pod of the same name with another UID keeps its directory and its link; again is fine."""
    links = tmp_path / "containers"
    links.mkdir()
    kept = links / "web_shop_main-2.log"
    for uid, link in (("one", links / "web_shop_main-1.log"), ("two", kept)):
        log = tmp_path / f"pods/shop_web_{uid}/main/0.log"
        log.parent.mkdir(parents=True)
        log.touch()
        link.symlink_to(log)
    for _ in range(2):
        remove_pod_logs(f"{tmp_path}/pods/shop_web_one", str(links), "web_shop_")
    assert list(links.iterdir()) == [kept]
    assert [each.name for each in (tmp_path / "pods").iterdir()] == ["shop_web_two"]


def test_without_a_links_directory_the_logs_still_go(tmp_path: Path) -> None:
    """Nobody collects logs here; that is no error."""
    (tmp_path / "pods").mkdir()
    remove_pod_logs(f"{tmp_path}/pods", f"{tmp_path}/none", "web_shop_")
    assert not (tmp_path / "pods").exists()
