"""What the agent relies on in an API server; true of the fake and of kube-apiserver."""

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kubelet_py.api import authentication_v1, codec, core_v1, meta_v1
from kubelet_py.errors import ApiAlreadyExists, ApiConflict, ApiError, ApiNotFound
from kubelet_py.kube.client import ApiClient, EventKind, PatchKind, Query
from kubelet_py.kube.resources import CONFIG_MAPS, EVENTS, NODES, PODS, SERVICE_ACCOUNTS, SERVICES, leases
from kubelet_py.kube.strategic_patch import strategic_patch

NAMESPACE = "default"


def fresh(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def config_map(name: str, **data: str) -> core_v1.ConfigMap:
    """A ConfigMap with this content."""
    return core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name=name), data=data)


def pod(name: str, node: str) -> core_v1.Pod:
    """A pod that is bound already."""
    container = core_v1.Container(name="app", image="registry.k8s.io/pause:3.10")
    spec = core_v1.PodSpec(containers=[container], nodeName=node, tolerations=[core_v1.Toleration(operator="Exists")])
    return core_v1.Pod(metadata=meta_v1.ObjectMeta(name=name), spec=spec)


async def create_pod(api: ApiClient, node: str = "") -> core_v1.Pod:
    """A pod on a node of its own. (The pods of a node that does not exist would be collected.)"""
    name = node or fresh("node")
    with contextlib.suppress(ApiAlreadyExists):
        await api.create(NODES, core_v1.Node(metadata=meta_v1.ObjectMeta(name=name)))
    return await api.create(PODS, pod(fresh("pod"), name), NAMESPACE)


def name_of(object_: Any) -> str:
    """Its name."""
    return str(object_.metadata.name)


async def test_a_created_object_has_a_uid_and_a_version_and_can_be_read(api: ApiClient) -> None:
    created = await api.create(CONFIG_MAPS, config_map(fresh("cm"), a="1"), NAMESPACE)
    assert created.metadata is not None
    assert created.metadata.uid
    assert created.metadata.resourceVersion
    read = await api.get(CONFIG_MAPS, name_of(created), NAMESPACE)
    assert read.data == {"a": "1"}
    assert read.metadata is not None
    assert read.metadata.uid == created.metadata.uid


async def test_creating_twice_is_already_exists(api: ApiClient) -> None:
    name = fresh("cm")
    await api.create(CONFIG_MAPS, config_map(name), NAMESPACE)
    with pytest.raises(ApiAlreadyExists):
        await api.create(CONFIG_MAPS, config_map(name), NAMESPACE)


async def test_what_is_not_there_is_not_found(api: ApiClient) -> None:
    name = fresh("no")
    with pytest.raises(ApiNotFound, match=f'configmaps "{name}" not found'):
        await api.get(CONFIG_MAPS, name, NAMESPACE)
    with pytest.raises(ApiNotFound):
        await api.delete(CONFIG_MAPS, name, NAMESPACE)
    with pytest.raises(ApiNotFound):
        await api.patch(CONFIG_MAPS, name, {"data": {}}, NAMESPACE)


async def test_an_update_of_an_old_version_is_a_conflict(api: ApiClient) -> None:
    old = await api.create(CONFIG_MAPS, config_map(fresh("cm"), a="1"), NAMESPACE)
    new = await api.update(CONFIG_MAPS, name_of(old), msgspec.structs.replace(old, data={"a": "2"}), NAMESPACE)
    assert new.data == {"a": "2"}
    with pytest.raises(ApiConflict):
        await api.update(CONFIG_MAPS, name_of(old), msgspec.structs.replace(old, data={"a": "3"}), NAMESPACE)


async def test_a_merge_patch_takes_away_what_is_null(api: ApiClient) -> None:
    created = await api.create(CONFIG_MAPS, config_map(fresh("cm"), a="1", b="2"), NAMESPACE)
    body = {"data": {"a": None, "c": "3"}}
    patched = await api.patch(CONFIG_MAPS, name_of(created), body, NAMESPACE, kind=PatchKind.MERGE)
    assert patched.data == {"b": "2", "c": "3"}


async def test_a_status_patch_of_a_node_may_change_annotations(api: ApiClient) -> None:
    """As the kubelet does with the address for an external cloud; null takes one away."""
    name = fresh("node")
    await api.create(NODES, core_v1.Node(metadata=meta_v1.ObjectMeta(name=name, annotations={"a": "1", "b": "2"})))
    changes = {"a": None, "c": "3"}
    body = {"metadata": {"annotations": changes}, "spec": {"unschedulable": True}, "status": {"volumesInUse": ["v"]}}
    patched = await api.patch(NODES, name, body, subresource="status")
    assert patched.metadata is not None
    annotations = patched.metadata.annotations or {}
    assert {key: annotations.get(key) for key in ("a", "b", "c")} == {"a": None, "b": "2", "c": "3"}
    assert patched.status is not None
    assert patched.status.volumesInUse == ["v"]
    assert patched.spec is None or not patched.spec.unschedulable


async def test_a_status_patch_changes_the_status_only(api: ApiClient) -> None:
    created = await create_pod(api)
    body = {"metadata": {"labels": {"not": "taken"}}, "status": {"phase": "Running", "message": "hello"}}
    patched = await api.patch(PODS, name_of(created), body, NAMESPACE, subresource="status")
    assert patched.status is not None
    assert (patched.status.phase, patched.status.message) == ("Running", "hello")
    assert patched.spec == created.spec


async def test_conditions_merge_by_type_and_go_by_directive(api: ApiClient) -> None:
    name = name_of(await create_pod(api))
    first = [{"type": "Ready", "status": "False"}, {"type": "example.com/gate", "status": "True"}]
    await api.patch(PODS, name, {"status": {"conditions": first}}, NAMESPACE, subresource="status")
    second = [{"type": "Ready", "status": "True"}, {"$patch": "delete", "type": "example.com/gate"}]
    patched = await api.patch(PODS, name, {"status": {"conditions": second}}, NAMESPACE, subresource="status")
    assert patched.status is not None
    assert [(c.type, c.status) for c in patched.status.conditions or []] == [("Ready", "True")]


async def test_our_strategic_patch_brings_the_status_from_old_to_new(api: ApiClient) -> None:
    """Reordered and shortened IP lists included, which merge by key unless told otherwise."""
    created = await create_pod(api)
    name = name_of(created)
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    steps = [
        core_v1.PodStatus(phase="Running", podIPs=[core_v1.PodIP(ip="10.0.0.1"), core_v1.PodIP(ip="fd00::1")]),
        core_v1.PodStatus(
            phase="Running",
            startTime=moment,
            podIPs=[core_v1.PodIP(ip="fd00::1"), core_v1.PodIP(ip="10.0.0.1")],
            conditions=[core_v1.PodCondition(type="Ready", status="True", lastTransitionTime=moment)],
        ),
        core_v1.PodStatus(phase="Failed", reason="Evicted", podIPs=[core_v1.PodIP(ip="10.0.0.2")]),
    ]
    at_server = created.status
    for wanted in steps:
        wanted.qosClass = at_server.qosClass if at_server is not None else None
        patch = strategic_patch(codec.to_builtins(at_server), codec.to_builtins(wanted))
        patched = await api.patch(PODS, name, {"status": patch}, NAMESPACE, subresource="status")
        assert patched.status is not None
        assert patched.status.podIPs == wanted.podIPs
        assert (patched.status.phase, patched.status.reason) == (wanted.phase, wanted.reason)
        assert patched.status.startTime == wanted.startTime
        assert [c.type for c in patched.status.conditions or []] == [c.type for c in wanted.conditions or []]
        at_server = patched.status


async def test_a_dual_stack_node_keeps_both_of_its_addresses(api: ApiClient) -> None:
    """Both are InternalIP, and the server merges addresses by type."""
    name = fresh("node")
    node = await api.create(NODES, core_v1.Node(metadata=meta_v1.ObjectMeta(name=name)))
    at_server: Any = codec.to_builtins(node.status) if node.status else {}
    for addresses in (["10.0.0.1", "fd00::1"], ["fd00::1", "10.0.0.2"], ["10.0.0.2"]):
        wanted = {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]}
        patch = strategic_patch({"addresses": at_server.get("addresses", [])}, wanted)
        patched = await api.patch(NODES, name, {"status": patch}, subresource="status")
        assert patched.status is not None
        assert [each.address for each in patched.status.addresses or []] == addresses
        at_server = codec.to_builtins(patched.status)
    await api.delete(NODES, name)


async def test_a_patch_for_another_uid_is_refused_as_invalid(api: ApiClient) -> None:
    created = await create_pod(api)
    body = {"metadata": {"uid": str(uuid.uuid4())}, "status": {"phase": "Running"}}
    with pytest.raises(ApiError, match="field is immutable") as refused:
        await api.patch(PODS, name_of(created), body, NAMESPACE, subresource="status")
    assert refused.value.status == 422


async def test_a_delete_for_another_uid_is_a_conflict_and_deletes_nothing(api: ApiClient) -> None:
    created = await create_pod(api)
    with pytest.raises(ApiConflict):
        await api.delete(PODS, name_of(created), NAMESPACE, grace_period_seconds=0, uid=str(uuid.uuid4()))
    await api.get(PODS, name_of(created), NAMESPACE)


async def test_a_bound_pod_is_marked_first_and_gone_with_grace_zero(api: ApiClient) -> None:
    created = await create_pod(api)
    assert created.metadata is not None
    await api.delete(PODS, name_of(created), NAMESPACE, grace_period_seconds=20)
    marked = await api.get(PODS, name_of(created), NAMESPACE)
    assert marked.metadata is not None
    assert marked.metadata.deletionTimestamp is not None
    assert marked.metadata.deletionGracePeriodSeconds == 20
    await api.delete(PODS, name_of(created), NAMESPACE, grace_period_seconds=0, uid=created.metadata.uid)
    with pytest.raises(ApiNotFound):
        await api.get(PODS, name_of(created), NAMESPACE)


async def test_a_list_by_node_name_has_the_pods_of_that_node(api: ApiClient) -> None:
    node = fresh("node")
    mine = {name_of(await create_pod(api, node)) for _ in range(2)}
    await create_pod(api)
    listed = await api.list(PODS, Query(field_selector=f"spec.nodeName={node}"))
    assert {name_of(each) for each in listed.items or []} == mine
    assert listed.metadata.resourceVersion


async def test_a_list_in_pages_gives_everything_once(api: ApiClient) -> None:
    prefix = fresh("page")
    for number in range(5):
        await api.create(CONFIG_MAPS, config_map(f"{prefix}-{number}"), NAMESPACE)
    names: list[str] = []
    page = await api.list(CONFIG_MAPS, Query(NAMESPACE), limit=2)
    while True:
        names += [name_of(each) for each in page.items or []]
        if not page.metadata.continue_:
            break
        page = await api.list(CONFIG_MAPS, Query(NAMESPACE), limit=2, continue_token=page.metadata.continue_)
    assert sorted(name for name in names if name.startswith(prefix)) == [f"{prefix}-{n}" for n in range(5)]


async def test_a_watch_shows_what_happened_since_the_list_in_order(api: ApiClient) -> None:
    """Controllers of a real cluster may modify the pod more than once."""
    node = fresh("node")
    query = Query(field_selector=f"spec.nodeName={node}")
    version = (await api.list(PODS, query)).metadata.resourceVersion or ""
    name = name_of(await create_pod(api, node))
    await create_pod(api)
    seen: list[tuple[EventKind, str]] = []
    async with api.watch(PODS, query, resource_version=version, timeout_seconds=20) as events:
        async for event in events:
            if (event.kind, name_of(event.object)) in seen:
                continue
            seen.append((event.kind, name_of(event.object)))
            if event.kind is EventKind.ADDED:
                await api.patch(PODS, name, {"status": {"phase": "Running"}}, NAMESPACE, subresource="status")
            elif event.kind is EventKind.MODIFIED:
                await api.delete(PODS, name, NAMESPACE, grace_period_seconds=0)
            elif event.kind is EventKind.DELETED:
                break
    assert seen == [(EventKind.ADDED, name), (EventKind.MODIFIED, name), (EventKind.DELETED, name)]


async def test_the_server_ends_a_watch_in_time(api: ApiClient) -> None:
    version = (await api.list(CONFIG_MAPS, Query(NAMESPACE))).metadata.resourceVersion or ""
    query = Query(NAMESPACE, field_selector=f"metadata.name={fresh('no')}")
    async with asyncio.timeout(10):
        async with api.watch(CONFIG_MAPS, query, resource_version=version, timeout_seconds=1) as events:
            assert [event.kind async for event in events if event.kind is not EventKind.BOOKMARK] == []


async def test_a_service_account_token_can_be_asked_for(api: ApiClient) -> None:
    account = core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name=fresh("asker")))
    name = name_of(await api.create(SERVICE_ACCOUNTS, account, NAMESPACE))
    request = authentication_v1.TokenRequest(
        spec=authentication_v1.TokenRequestSpec(audiences=[], expirationSeconds=600)
    )
    answer = await api.create_subresource(SERVICE_ACCOUNTS, name, "token", request, NAMESPACE)
    assert answer.status is not None
    assert answer.status.token
    assert answer.status.expirationTimestamp is not None
    assert answer.status.expirationTimestamp > datetime.now(UTC)


async def test_a_token_for_an_account_that_was_made_anew_is_a_conflict(api: ApiClient) -> None:
    """Who knows an account by its UID does not get the token of another one with its name."""
    name = fresh("account")
    made = await api.create(SERVICE_ACCOUNTS, core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name=name)), NAMESPACE)
    assert made.metadata is not None

    async def ask(uid: str | None) -> authentication_v1.TokenRequest:
        request = authentication_v1.TokenRequest(
            metadata=meta_v1.ObjectMeta(uid=uid),
            spec=authentication_v1.TokenRequestSpec(audiences=[], expirationSeconds=600),
        )
        return await api.create_subresource(SERVICE_ACCOUNTS, name, "token", request, NAMESPACE)

    answer = await ask(made.metadata.uid)
    assert answer.status is not None
    assert answer.status.token
    with pytest.raises(ApiConflict):
        await ask("00000000-0000-0000-0000-000000000000")


async def test_services_without_an_address_can_be_left_out(api: ApiClient) -> None:
    names = {address: fresh("svc") for address in ("None", "")}
    for address, name in names.items():
        spec = core_v1.ServiceSpec(clusterIP=address or None, ports=[core_v1.ServicePort(port=80)])
        await api.create(SERVICES, core_v1.Service(metadata=meta_v1.ObjectMeta(name=name), spec=spec), NAMESPACE)
    listed = await api.list(SERVICES, Query(field_selector="spec.clusterIP!=None"))
    found = {name_of(each) for each in listed.items or []}
    assert names[""] in found
    assert names["None"] not in found


async def test_a_lease_with_a_micro_time_is_taken(api: ApiClient) -> None:
    from kubelet_py.api import coordination_v1

    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    body = coordination_v1.Lease(
        metadata=meta_v1.ObjectMeta(name=fresh("lease")), spec=coordination_v1.LeaseSpec(renewTime=moment)
    )
    created = await api.create(leases(), body, NAMESPACE)
    assert created.spec is not None
    assert created.spec.renewTime == moment


async def test_an_event_can_be_counted_up(api: ApiClient) -> None:
    name = fresh("event")
    about = core_v1.ObjectReference(kind="Pod", name="a", namespace=NAMESPACE)
    body = core_v1.Event(
        metadata=meta_v1.ObjectMeta(name=name, namespace=NAMESPACE), involvedObject=about, reason="Test", count=1
    )
    await api.create(EVENTS, body, NAMESPACE)
    patched = await api.patch(EVENTS, name, {"count": 2, "message": "again"}, NAMESPACE)
    assert (patched.count, patched.message) == (2, "again")


async def test_an_unknown_resource_is_an_error_with_a_message(api: ApiClient) -> None:
    with pytest.raises(ApiError, match=r"could not find|not found"):
        await api.get_raw("/apis/example.com/v1/namespaces/default/things/a")
