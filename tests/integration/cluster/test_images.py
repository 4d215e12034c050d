"""Images from a registry that asks for a password, on both runtimes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cluster.objects import SERVED, container, pod
from tests.integration.cluster.stage import PLAYS_GO, Stage, container_status
from tests.lab.registry import PASSWORD, PRIVATE_NAME, USER

pytestmark = pytest.mark.lab

PRIVATE, FOR_THE_NODE, FOR_ACCOUNTS = (image.replace("gcr.io", PRIVATE_NAME) for image in SERVED)
SECRETS = "/api/v1/namespaces/default/secrets"


def pull_secret(name: str, *logins: tuple[str, str, str], legacy: bool = False) -> dict[str, Any]:
    """A secret with logins (registry, user, password)."""
    entries = {
        registry: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        for registry, user, password in logins
    }
    key, kind, content = (
        (".dockercfg", "kubernetes.io/dockercfg", entries)
        if legacy
        else (".dockerconfigjson", "kubernetes.io/dockerconfigjson", {"auths": entries})
    )
    data = {key: base64.b64encode(json.dumps(content).encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data}


def private_pod(name: str, *secrets: str, policy: str = "IfNotPresent", image: str = PRIVATE) -> dict[str, Any]:
    """A pod of the private image."""
    main = container() | {"image": image, "imagePullPolicy": policy}
    return pod(name, main, imagePullSecrets=[{"name": secret} for secret in secrets])


@pytest.fixture
def without_image(stage: Stage) -> Stage:
    """A node that does not have the private image."""
    stage.remove_image(PRIVATE)
    return stage


def test_a_pod_without_secret_waits_and_says_why(without_image: Stage) -> None:
    """ErrImagePull, then ImagePullBackOff, and the secret that is not there by its name."""
    stage, name = without_image, without_image.unique("anonymous")
    stage.create_pod(private_pod(name, f"{name}-none"))
    stage.wait_waiting(name, "ErrImagePull")
    waiting = stage.wait_waiting(name, "ImagePullBackOff")
    assert waiting["message"].startswith(f'Back-off pulling image "{PRIVATE}": ErrImagePull: ')
    stage.wait_event(name, "Failed", f'Failed to pull image "{PRIVATE}"')
    event = stage.wait_event(name, "FailedToRetrieveImagePullSecret")
    assert event["message"] == (
        f"Unable to retrieve some image pull secrets ({name}-none); attempting to pull the image may not succeed."
    )


@pytest.mark.parametrize("legacy", [False, True], ids=["dockerconfigjson", "dockercfg"])
def test_a_secret_of_the_pod_opens_the_registry(without_image: Stage, legacy: bool) -> None:
    """Also when others are tried before: of several that fit, each has its turn."""
    stage, name = without_image, without_image.unique("secret")
    stage.cluster.create(SECRETS, pull_secret(f"{name}-other", ("other.invalid", "x", "y")))
    wrong = (f"{PRIVATE_NAME}/e2e-test-images", USER, "wrong")
    right = (f"https://{PRIVATE_NAME}", USER, PASSWORD)
    stage.cluster.create(SECRETS, pull_secret(name, wrong, right, legacy=legacy))
    stage.create_pod(private_pod(name, f"{name}-other", name))
    ready = stage.wait_ready(name)
    assert container_status(ready)["imageID"]
    stage.wait_event(name, "Pulled", f'Successfully pulled image "{PRIVATE}" in ')


def test_an_image_on_the_node_is_not_for_everybody(without_image: Stage) -> None:
    """Who cannot show a secret must pull, and cannot; a copy of the secret is as good; a restart forgets nothing."""
    stage, name = without_image, without_image.unique("shared")
    stage.cluster.create(SECRETS, pull_secret(name, (PRIVATE_NAME, USER, PASSWORD)))
    stage.create_pod(private_pod(f"{name}-owner", name))
    stage.wait_ready(f"{name}-owner")
    stage.restart_kubelet()
    for policy, reason in (("IfNotPresent", "ErrImagePull"), ("Never", "ErrImageNeverPull")):
        guest = f"{name}-{policy.lower()}"
        stage.create_pod(private_pod(guest, policy=policy))
        stage.wait_waiting(guest, reason)
    stage.cluster.create(SECRETS, pull_secret(f"{name}-copy", (PRIVATE_NAME, USER, PASSWORD)))
    stage.create_pod(private_pod(f"{name}-friend", f"{name}-copy", policy="Never"))
    stage.wait_ready(f"{name}-friend")
    message = f'Container image "{PRIVATE}" already present on machine and can be accessed by the pod'
    stage.wait_event(f"{name}-friend", "Pulled", message)


def test_the_node_has_logins_of_its_own(stage: Stage) -> None:
    """A config.json in the agent's directory: no pod needs a secret, and no record keeps others out."""
    name = stage.unique("node-login")
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file = stage.inside("/var/lib/kubelet/config.json")
    file.write_text(json.dumps({"auths": {PRIVATE_NAME: {"auth": auth}}}))
    if PLAYS_GO:  # it reads the file at most every five minutes
        stage.restart_kubelet()
    try:
        stage.create_pod(private_pod(name, image=FOR_THE_NODE))
        stage.wait_ready(name)
    finally:
        file.unlink()
    stage.create_pod(private_pod(f"{name}-later", image=FOR_THE_NODE))
    stage.wait_ready(f"{name}-later")


PLUGIN = """#!/bin/sh
input=$(cat)
case $input in *'"image":"private.lab.invalid/'*) ;; *) echo "what image? $input" >&2; exit 1 ;; esac
if [ "$1" = with-token ]; then
    case $input in *'"serviceAccountToken":"eyJ'*) ;; *) echo "no token" >&2; exit 1 ;; esac
fi
echo run >> /opt/plugins/runs
echo '{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
       "cacheKeyType": "Registry", "cacheDuration": "1h",
       "auth": {"private.lab.invalid": {"username": "USER", "password": "PASSWORD"}}}'
"""
AUDIENCE = "registry.lab.invalid"


@pytest.fixture
def plugin_node(without_image: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A node with a credential provider plugin that knows the registry's password."""
    stage = without_image
    directory = stage.inside("/opt/plugins")
    directory.mkdir(exist_ok=True)
    program = directory / "lab-login"
    program.write_text(PLUGIN.replace("USER", USER).replace("PASSWORD", PASSWORD))
    program.chmod(0o755)
    plugin = {
        "name": "lab-login",
        "matchImages": [PRIVATE_NAME],
        "defaultCacheDuration": "0s",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        **getattr(request, "param", {}),
    }
    described = {
        "kind": "CredentialProviderConfig",
        "apiVersion": "kubelet.config.k8s.io/v1",
        "providers": [plugin],
    }
    (directory / "config.yaml").write_text(json.dumps(described))
    before = stage.flags
    stage.flags = (
        *before,
        "--image-credential-provider-config=/opt/plugins/config.yaml",
        "--image-credential-provider-bin-dir=/opt/plugins",
    )
    stage.restart_kubelet()
    yield stage
    stage.flags = before
    stage.restart_kubelet()


def test_a_plugin_knows_the_password(plugin_node: Stage) -> None:
    """Asked once for the registry; what it opened is everybody's, as no pod had to show anything."""
    stage, name = plugin_node, plugin_node.unique("plugin")
    runs = stage.inside("/opt/plugins/runs")
    runs.write_text("")
    for number, image in enumerate((PRIVATE, FOR_THE_NODE)):
        stage.create_pod(private_pod(f"{name}-{number}", image=image, policy="Always"))
        stage.wait_ready(f"{name}-{number}")
    assert runs.read_text().split() == ["run"]


TOKEN_PLUGIN = {
    "args": ["with-token"],
    "tokenAttributes": {
        "serviceAccountTokenAudience": AUDIENCE,
        "cacheType": "ServiceAccount",
        "requireServiceAccount": True,
        "requiredServiceAccountAnnotationKeys": ["lab.invalid/role"],
    },
}


@pytest.mark.parametrize("plugin_node", [TOKEN_PLUGIN], indirect=True)
def test_a_plugin_gets_the_token_of_the_pods_service_account(plugin_node: Stage) -> None:
    """An account without the annotation that the plugin requires gets nothing, and cannot use what the other pulled."""
    stage, name = plugin_node, plugin_node.unique("token")
    allow_audience(stage)
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    for account, marks in ((f"{name}-puller", {"lab.invalid/role": "puller"}), (f"{name}-other", {})):
        metadata = {"name": account, "annotations": marks}
        stage.cluster.create(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        described = private_pod(account, image=FOR_ACCOUNTS)
        described["spec"]["serviceAccountName"] = account
        stage.create_pod(described)
        if marks:
            stage.wait_ready(account)
        else:
            stage.wait_waiting(account, "ErrImagePull")


def allow_audience(stage: Stage) -> None:
    """Nodes may ask for tokens with this audience only when somebody says so."""
    name, group = "lab-audience", "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": [AUDIENCE], "verbs": ["request-serviceaccounts-token-audience"]}
    subject = {"kind": "Group", "name": "system:nodes", "apiGroup": group}
    for kind, fields in (
        ("ClusterRole", {"rules": [rule]}),
        (
            "ClusterRoleBinding",
            {"subjects": [subject], "roleRef": {"kind": "ClusterRole", "name": name, "apiGroup": group}},
        ),
    ):
        stage.cluster.create(
            f"/apis/{group}/v1/{kind.lower()}s",
            {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name}, **fields},
        )


def test_a_secret_that_cannot_be_understood_is_named(without_image: Stage) -> None:
    """Once it is put right the pod starts."""
    stage, name = without_image, without_image.unique("broken")
    broken = pull_secret(name)
    broken["data"] = {".dockerconfigjson": base64.b64encode(b'{"auths": {"x": {"auth": "%%%"}}}').decode()}
    stage.cluster.create(SECRETS, broken)
    stage.create_pod(private_pod(name, name))
    if not PLAYS_GO:  # whose waiting reason is then the text of a decoding error
        waiting = stage.wait_waiting(name, "ErrImagePull")
        assert f"secret default/{name}, .dockerconfigjson: " in waiting["message"]
    right = pull_secret(name, (PRIVATE_NAME, USER, PASSWORD))
    code, answer = stage.cluster.request("PUT", f"{SECRETS}/{name}", right)
    assert code == 200, answer
    stage.wait_ready(name, within_seconds=60)
