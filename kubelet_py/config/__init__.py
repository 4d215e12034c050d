"""Configuration: the command line, files and drop-ins of a start, as one frozen value.

`load(argv)` gives `Settings` (config, flags, gates, warnings) or raises ConfigError with every problem at once, or
Answer when --help or --version was asked for. Imports nothing of the agent but its errors and API types.
"""

from kubelet_py.config.gates import FeatureGates as FeatureGates
from kubelet_py.config.help_text import KUBERNETES_VERSION as KUBERNETES_VERSION
from kubelet_py.config.load import Answer as Answer
from kubelet_py.config.load import Settings as Settings
from kubelet_py.config.load import load as load
from kubelet_py.config.model import KubeletConfiguration as KubeletConfiguration
from kubelet_py.config.node_flags import NodeFlags as NodeFlags
from kubelet_py.config.validation import HostTraits as HostTraits
