"""The Kubernetes types this agent works with: re-exports of lightkube's models under short module names.

`from kubelet_py.api import core_v1` gives the dataclasses of the core group with the API's own field spelling
(camelCase, as the wire has it). JSON goes in and out by msgspec through `kubelet_py.api.codec`. Objects are shared
between tasks and must be treated as frozen: whoever wants a changed one makes it with `dataclasses.replace`.
"""

from lightkube.models import core_v1 as core_v1
from lightkube.models import meta_v1 as meta_v1
