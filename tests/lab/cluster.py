"""A Kubernetes control plane inside a lab: etcd, kube-apiserver, kube-scheduler, kube-controller-manager.

Owns their flags and credentials. Nodes are started by others, with `node_credentials`. Clients inside the lab use
`kubeconfig`; clients outside use `outside_kubeconfig()`, which leads through a forwarded port.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import gotools, pki
from tests.lab.forward import Forward
from tests.lab.process import LabError, LabProcess
from tests.lab.sandbox import Sandbox

PORT = 6443
SERVICE_NETWORK = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
CLUSTER_DNS = "10.96.0.10"
VIRTUAL_MACHINE_HOST = "10.0.2.2"
"""How QEMU's user network calls the loopback of the machine that it runs on."""
COMPONENTS = ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubectl")
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
ADMIN_ACCOUNT = "lab-admin"


def prepare() -> dict[str, str]:
    """Build what a control plane needs; returns the programs by name."""
    return {name: str(gotools.ensure(name)) for name in COMPONENTS}


class Cluster:
    """A running control plane. It ends with its lab; `stop` ends it earlier."""

    def __init__(self, lab: Sandbox, api_server_flags: Sequence[str] = ()) -> None:
        self.programs = prepare()
        self.lab = lab
        self.directory = lab.root / "cluster"
        self.directory.mkdir()
        self.server = f"https://{lab.node_address}:{PORT}"
        self._forward: Forward | None = None
        self._authority = pki.Authority(self.directory, "ca")
        self._front_proxy = pki.Authority(self.directory, "front-proxy-ca")
        self._tokens = pki.write_signing_key(self.directory, "service-accounts")
        self.client_ca = self._authority.credentials.certificate
        self.admin = self._authority.issue("admin", "kubernetes-admin", organizations=["system:masters"])
        self.kubelet_client = self._authority.issue(KUBELET_CLIENT, KUBELET_CLIENT)
        self.kubeconfig = self._write_kubeconfig("admin", self.admin)
        self._api_server_flags = tuple(api_server_flags)
        self.processes: dict[str, LabProcess] = {}
        lab.at_stop(self.stop)

    @classmethod
    def start(cls, lab: Sandbox, *, api_server_flags: Sequence[str] = ()) -> Self:
        """Start a control plane and wait until pods can be created in the default namespace."""
        cluster = cls(lab, api_server_flags)
        cluster.start_component("etcd")
        cluster.start_component("kube-apiserver")
        lab.wait_until("kube-apiserver", cluster.is_ready, process=cluster.processes["kube-apiserver"])
        cluster.start_component("kube-controller-manager")
        cluster.start_component("kube-scheduler")
        cluster._allow_kubelet_client()
        lab.wait_until(
            "the default service account",
            lambda: cluster.exists("/api/v1/namespaces/default/serviceaccounts/default"),
            process=cluster.processes["kube-controller-manager"],
        )
        return cluster

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_component(self, name: str) -> LabProcess:
        """Start one program of the control plane (again, after a test stopped it)."""
        flags = {
            "etcd": self._etcd_flags,
            "kube-apiserver": self._apiserver_flags,
            "kube-controller-manager": self._controller_manager_flags,
            "kube-scheduler": self._scheduler_flags,
        }[name]()
        command = [self.programs.get(name, name), *flags]
        self.processes[name] = self.lab.popen(command, log=name)
        return self.processes[name]

    def _etcd_flags(self) -> list[str]:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        return [
            "--data-dir=/var/lib/etcd/lab",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--logger=zap",
        ]

    def _apiserver_flags(self) -> list[str]:
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        names += ["localhost", self.lab.name, "127.0.0.1", self.lab.node_address, SERVICE_ADDRESS, VIRTUAL_MACHINE_HOST]
        serving = self._authority.issue("kube-apiserver", "kube-apiserver", server_names=names)
        proxy = self._front_proxy.issue("front-proxy-client", "front-proxy-client")
        return [
            "--etcd-servers=http://127.0.0.1:2379",
            f"--secure-port={PORT}",
            f"--advertise-address={self.lab.node_address}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self.client_ca}",
            f"--service-account-key-file={self._tokens.certificate}",
            f"--service-account-signing-key-file={self._tokens.key}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={self.kubelet_client.certificate}",
            f"--kubelet-client-key={self.kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={self._front_proxy.credentials.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={proxy.certificate}",
            f"--proxy-client-key-file={proxy.key}",
            *self._api_server_flags,
        ]

    def _controller_manager_flags(self) -> list[str]:
        user = self._authority.issue("controller-manager", "system:kube-controller-manager")
        file = self._write_kubeconfig("controller-manager", user)
        return [
            f"--kubeconfig={file}",
            f"--authentication-kubeconfig={file}",
            f"--authorization-kubeconfig={file}",
            f"--service-account-private-key-file={self._tokens.key}",
            f"--root-ca-file={self.client_ca}",
            f"--cluster-signing-cert-file={self.client_ca}",
            f"--cluster-signing-key-file={self._authority.credentials.key}",
            "--use-service-account-credentials=true",
            "--controllers=*,bootstrapsigner,tokencleaner",
            "--kube-api-qps=300",  # the default of 20 makes its start take 6 s
            "--kube-api-burst=600",
            "--leader-elect=false",
        ]

    def _scheduler_flags(self) -> list[str]:
        user = self._authority.issue("scheduler", "system:kube-scheduler")
        file = self._write_kubeconfig("scheduler", user)
        return [
            f"--kubeconfig={file}",
            f"--authentication-kubeconfig={file}",
            f"--authorization-kubeconfig={file}",
            "--leader-elect=false",
        ]

    def _write_kubeconfig(self, name: str, user: pki.Credentials, server: str | None = None) -> Path:
        path = self.directory / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        files = {"client-certificate": str(user.certificate), "client-key": str(user.key)}
        path.write_text(pki.kubeconfig(server or self.server, self.client_ca, files))
        return path

    def node_credentials(self, node: str) -> Path:
        """A kubeconfig for the node of this name, as its kubelet inside the lab uses it."""
        return self._write_kubeconfig(f"node-{node}", self.node_user(node))

    def node_user(self, node: str) -> pki.Credentials:
        """The client certificate of the node of this name."""
        return self._authority.issue(f"node-{node}", f"system:node:{node}", organizations=["system:nodes"])

    def user_credentials(self, name: str, groups: Sequence[str] = ()) -> pki.Credentials:
        """A client certificate for any user, to try the node's authentication and authorization with."""
        return self._authority.issue(f"user-{name.replace(':', '-')}", name, organizations=groups)

    def serving_credentials(self, name: str, names: Sequence[str]) -> pki.Credentials:
        """A serving certificate signed by the cluster's authority."""
        return self._authority.issue(f"serving-{name}", name, server_names=names)

    def outside_kubeconfig(self, port: int = 0) -> Path:
        """The admin's kubeconfig for clients that run outside the lab, through a port on the machine's loopback."""
        return self._write_kubeconfig("outside", self.admin, f"https://127.0.0.1:{self.outside_port(port)}")

    def outside_port(self, port: int = 0) -> int:
        """The port on the machine's loopback that leads to the API server."""
        if self._forward is None:
            self._forward = Forward(lambda: self.lab.connect(self.lab.node_address, PORT), port)
        return self._forward.port

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request to the API server as the admin, without starting kubectl: status and decoded JSON (or text)."""
        context = ssl.create_default_context(cafile=str(self.client_ca))
        context.load_cert_chain(self.admin.certificate, self.admin.key)
        raw = self.lab.connect(self.lab.node_address, PORT)
        connection = http.client.HTTPSConnection(self.lab.node_address, PORT, context=context)
        with raw, context.wrap_socket(raw, server_hostname=self.lab.node_address) as connection.sock:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": kind, "Accept": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        is_json = "json" in (answer.getheader("Content-Type") or "")
        return answer.status, json.loads(text) if is_json and text else text

    def exists(self, path: str) -> bool:
        """Whether the API server has an object at this path."""
        try:
            return self.request("GET", path)[0] == 200
        except OSError:
            return False

    def is_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        return self.exists("/readyz")

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create an object; raises LabError with the server's message when it is refused."""
        status, answer = self.request("POST", path, body)
        if status >= 300:
            raise LabError(f"POST {path}: {status} {answer}")
        return answer

    def admin_token(self, valid_seconds: int = 24 * 3600) -> str:
        """A token for clients that know no certificates: of a service account that may do everything."""
        accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
        self.create(accounts, {"metadata": {"name": ADMIN_ACCOUNT}})
        subject = {"kind": "ServiceAccount", "name": ADMIN_ACCOUNT, "namespace": "kube-system"}
        self._bind_cluster_role(ADMIN_ACCOUNT, "cluster-admin", subject)
        asked = self.create(f"{accounts}/{ADMIN_ACCOUNT}/token", {"spec": {"expirationSeconds": valid_seconds}})
        return str(asked["status"]["token"])

    def _allow_kubelet_client(self) -> None:
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": KUBELET_CLIENT}
        self._bind_cluster_role(KUBELET_CLIENT, "system:kubelet-api-admin", subject)

    def _bind_cluster_role(self, name: str, role: str, subject: Mapping[str, str]) -> None:
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        self.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]},
        )

    def kubectl(self, *arguments: str, text_input: str = "", check: bool = True, timeout_seconds: float = 120.0) -> str:
        """Run kubectl as the admin inside the lab; returns what it printed."""
        command = [self.programs["kubectl"], f"--kubeconfig={self.kubeconfig}", *arguments]
        return self.lab.run(command, text_input=text_input, check=check, timeout_seconds=timeout_seconds).stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """kubectl apply."""
        self.kubectl("apply", "-f", "-", text_input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, *arguments: str) -> Any:
        """kubectl get ... -o json, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def stop(self) -> None:
        """End the control plane; called again it does nothing."""
        if self._forward is not None:
            self._forward.close()
            self._forward = None
        for name in reversed(list(self.processes)):
            self.processes.pop(name).kill()
