"""TLS connections are small."""

from asyncio import sslproto

from kubelet_py.kube.tls_buffers import BUFFER_BYTES, shrink_tls_buffers


def test_the_setting_is_the_one_that_asyncio_makes_its_buffers_by() -> None:
    """A newer asyncio may call it otherwise; then memory grows and nothing else says so."""
    shrink_tls_buffers()
    assert sslproto.SSLProtocol.max_size == BUFFER_BYTES
    assert "max_size" in sslproto.SSLProtocol.__init__.__code__.co_names
    assert "_ssl_buffer" in sslproto.SSLProtocol.__init__.__code__.co_names
