"""cri_proto.wire."""
