"""The commands against an agent's read-only port, real log files and a manifest directory."""

import json
from pathlib import Path
from typing import Any

import pytest

from kubelet_py import cli
from tests.unit.kubelet_py.cli.conftest import POD, Agent

WEB = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n"
LINE = "2026-01-01T12:00:00.000000000Z stdout F %s\n"


def test_a_command_line_is_told_from_a_start() -> None:
    """A start has flags only."""
    assert cli.is_command(["get", "pods"])
    assert not cli.is_command(["--config=x"])
    assert not cli.is_command([])


def test_get_prints_a_table_and_objects(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """Both forms."""
    assert agent.run("get", "pods") == 0
    assert "hello-node" in capsys.readouterr().out
    assert agent.run("get", "pods", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["items"] == [POD]
    assert agent.run("get", "pod", "hello", "-o", "yaml") == 0
    assert "name: hello-node" in capsys.readouterr().out


def test_a_static_pod_is_found_without_its_node(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """The manifest's name is what a person knows."""
    assert agent.run("describe", "hello") == 0
    assert "Name:       hello-node" in capsys.readouterr().out


def test_an_unknown_pod_is_answered_with_those_there_are(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line, exit code 1."""
    assert agent.run("describe", "nobody") == 1
    expected = "no single pod is called 'nobody' in namespace 'default'; there are: hello-node\n"
    assert capsys.readouterr().err == expected


def test_logs_come_from_the_newest_file_and_previous_ones(agent: Agent, capfdbinary: Any) -> None:
    """--tail and --previous."""
    (agent.logs / "0.log").write_text(LINE % "old")
    (agent.logs / "10.log").write_text(LINE % "one" + LINE % "two" + "no log line\n")
    assert agent.run("logs", "hello") == 0
    assert capfdbinary.readouterr().out == b"one\ntwo\nno log line\n"
    assert agent.run("logs", "hello", "-c", "main", "--tail", "2") == 0
    assert capfdbinary.readouterr().out == b"two\nno log line\n"
    assert agent.run("logs", "hello", "--previous") == 0
    assert capfdbinary.readouterr().out == b"old\n"


def test_missing_logs_and_containers_are_named(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """What there is instead."""
    assert agent.run("logs", "hello", "-c", "other") == 1
    assert "has no container 'other'; it has main, side" in capsys.readouterr().err
    assert agent.run("logs", "hello", "-c", "side") == 1
    assert "has no log yet in" in capsys.readouterr().err


def test_apply_puts_a_manifest_where_the_agent_looks(agent: Agent, tmp_path: Path, capsys: Any) -> None:
    """Under the pod's name, whole, and again for a change."""
    manifest = tmp_path / "new.yaml"
    manifest.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n")
    assert agent.run("apply", "-f", str(manifest)) == 0
    assert agent.run("apply", "-f", str(manifest)) == 0
    assert [path.name for path in agent.manifests.iterdir()] == ["default-web.yaml"]
    added, changed = capsys.readouterr().out.splitlines()
    assert added.startswith("pod/web added: ")
    assert changed.startswith("pod/web changed: ")


@pytest.mark.parametrize(
    "text",
    [
        "kind: Service\nmetadata: {name: x}\n",
        "kind: Pod\n",
        "[",
        "kind: Pod\nmetadata: 5\n",
        WEB.replace("web", "../../evil"),
        WEB.replace("image: i", "image: i, ports: [{containerPort: 99999}]"),
        WEB.replace("containers", "serviceAccountName: s, containers"),
        f"{WEB}---\n{WEB}",
    ],
)
def test_apply_refuses_what_is_no_pod(agent: Agent, tmp_path: Path, text: str) -> None:
    """Nor a pod that the agent would not run; nothing reaches the directory, nor a place beside it."""
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(text)
    assert agent.run("apply", "-f", str(manifest)) == 1
    assert list(agent.manifests.iterdir()) == []


def test_why_tells_the_story(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """As the agent gives it, but for control characters."""
    assert agent.run("why", "hello") == 0
    assert capsys.readouterr().out == "12:00 started main\n"
    agent.story = "12:00 ended: \x1b[2J\n"
    assert agent.run("why", "hello") == 0
    assert capsys.readouterr().out == "12:00 ended: \\x1b[2J\n"


def test_an_agent_that_does_not_answer_is_one_line(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """With the question a person would ask next."""
    settings = json.loads(agent.config.read_text())
    agent.config.write_text(json.dumps(settings | {"readOnlyPort": 1}))
    assert agent.run("get", "pods") == 1
    assert "does kubelet-py run?" in capsys.readouterr().err


def test_without_a_read_only_port_the_command_says_what_to_set(agent: Agent, capsys: Any) -> None:
    """readOnlyPort."""
    settings = json.loads(agent.config.read_text())
    agent.config.write_text(json.dumps(settings | {"readOnlyPort": 0}))
    assert agent.run("get", "pods") == 1
    assert "set readOnlyPort" in capsys.readouterr().err


def test_the_agent_is_asked_without_the_environments_proxy(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loopback is not ours."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert agent.run("get", "pods") == 0


def test_a_negative_tail_is_the_whole_log(agent: Agent, capfdbinary: Any) -> None:
    """kubectl's -1."""
    (agent.logs / "0.log").write_text(LINE % "one" + LINE % "two")
    assert agent.run("logs", "hello", "--tail", "-1") == 0
    assert capfdbinary.readouterr().out == b"one\ntwo\n"


def test_what_cannot_be_read_is_one_line(agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback for a log that is no file, nor for a manifest that is no text."""
    (agent.logs / "0.log").mkdir()
    assert agent.run("logs", "hello") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(agent.logs / "0.log") in error
    manifest = tmp_path / "latin.yaml"
    manifest.write_bytes(b"kind: Pod # caf\xe9\n")
    assert agent.run("apply", "-f", str(manifest)) == 1
    assert str(manifest) in capsys.readouterr().err
    assert list(agent.manifests.iterdir()) == []


def test_an_answer_that_is_cut_off_is_one_line(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent was stopped while it answered."""
    agent.missing_bytes = 5
    assert agent.run("get", "pods") == 1
    assert capsys.readouterr().err.startswith("IncompleteRead: ")


@pytest.mark.parametrize("page", ["<html>welcome</html>", "[]", '{"status": "ok"}'])
def test_another_program_on_the_agents_port_is_one_line(
    agent: Agent, capsys: pytest.CaptureFixture[str], page: str
) -> None:
    agent.pods_page = page
    assert agent.run("get", "pods") == 1
    port = agent.server.server_port
    said = capsys.readouterr().err
    assert said == f"what answers on readOnlyPort {port} is no kubelet: it lists no pods at /pods\n"


def test_get_lists_the_namespace_that_is_named(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them without one."""
    agent.pods.append({"metadata": {"name": "dns-node", "namespace": "kube-system", "uid": "u2"}})
    for words, names in (
        ([], ["hello-node", "dns-node"]),
        (["-n", "kube-system"], ["dns-node"]),
        (["-n", "default"], ["hello-node"]),
        (["-n", "other"], []),
    ):
        assert agent.run("get", "pods", *words, "-o", "json") == 0
        assert [pod["metadata"]["name"] for pod in json.loads(capsys.readouterr().out)["items"]] == names


def test_apply_names_the_file_that_has_the_pod_already(agent: Agent, tmp_path: Path, capsys: Any) -> None:
    """The agent would run one of the two only."""
    (agent.manifests / "broken.yaml").write_text("[")
    (agent.manifests / "mine.yaml").write_text(WEB.replace("image: i", "image: other"))
    manifest = tmp_path / "new.yaml"
    manifest.write_text(WEB)
    assert agent.run("apply", "-f", str(manifest)) == 1
    assert f"the pod default/web is in {agent.manifests / 'mine.yaml'} already" in capsys.readouterr().err
    assert sorted(path.name for path in agent.manifests.iterdir()) == ["broken.yaml", "mine.yaml"]


def test_apply_leaves_no_half_a_file(agent: Agent, tmp_path: Path) -> None:
    """Here the place is taken by a directory."""
    (agent.manifests / "default-web.yaml").mkdir()
    manifest = tmp_path / "new.yaml"
    manifest.write_text(WEB)
    assert agent.run("apply", "-f", str(manifest)) == 1
    assert [path.name for path in agent.manifests.iterdir()] == ["default-web.yaml"]


def test_apply_says_what_it_does_not_know(agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A field that is misspelled is no reason to refuse the rest, as for the agent."""
    manifest = tmp_path / "new.yaml"
    manifest.write_text(WEB.replace("containers", "hostNetwrk: true, containers"))
    assert agent.run("apply", "-f", str(manifest)) == 0
    assert "hostNetwrk" in capsys.readouterr().err
