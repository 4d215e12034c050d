"""Regenerates the protobuf modules of `cri_proto.runtime_v1` from `api.proto`.

`python -m cri_proto.regen` writes them in place; with `--check` it writes nothing and fails when what stands in the
tree differs from what protoc would write (that is what `make check` runs).
"""

import argparse
import sys
import tempfile
from pathlib import Path

PROTO = "cri_proto/runtime_v1/api.proto"
GENERATED = ("api_pb2.py", "api_pb2.pyi", "api_pb2_grpc.py")


def generate(root: Path, out: Path) -> None:
    """Writes the generated modules of `PROTO` below `out`; raises RuntimeError when protoc refuses the file."""
    from grpc_tools import protoc

    arguments = ["protoc", f"-I{root}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", PROTO]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc refused {PROTO}; its message is above")


def stale(root: Path) -> list[str]:
    """Names of the generated files that differ from what `api.proto` gives."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(root, Path(scratch))
        fresh, current = Path(scratch, PROTO).parent, Path(root, PROTO).parent
        return [
            name
            for name in GENERATED
            if not (current / name).exists() or (fresh / name).read_bytes() != (current / name).read_bytes()
        ]


def main() -> int:
    """Entry point; exit status 1 when `--check` finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m cri_proto.regen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    if not options.check:
        generate(root, root)
        return 0
    names = stale(root)
    for name in names:
        sys.stderr.write(f"{name} is not what api.proto gives: run python -m cri_proto.regen\n")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
