"""The messages and enums of CRI v1 (`api.proto`), and nothing else.

Use as `from cri_proto import runtime_v1 as cri`. The gRPC stubs are in `cri_proto.runtime_v1.api_pb2_grpc` and are
imported only by the adapters that dial or serve, so that pure code can speak CRI without grpc.
"""

from cri_proto.runtime_v1.api_pb2 import *
