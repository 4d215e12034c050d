"""Test images made from Debian packages, C sources and Go tools, without any public registry."""
