"""The CRI client: the port that the agent drives its runtime through, and its grpc.aio adapter.

Nothing above this package knows which runtime answers; the endpoint is the only difference.
"""

from kubelet_py.cri.client import RuntimeClient as RuntimeClient
from kubelet_py.cri.client import connect as connect
