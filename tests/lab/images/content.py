"""What goes into the layers of the test images, beyond plain Debian packages.

Owns compiled programs, configuration files and the rule that busybox applets are hard links over Debian's tools (a
container runtime masks or executes the path itself, which a symbolic link would hide).
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from tests.lab import debian, gotools, pki
from tests.lab.images import debs
from tests.lab.images.layers import Layer, LayerWriter

SOURCES = Path(__file__).parent / "sources"

NGINX_CONFIGURATION = """daemon off;
user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
  access_log /dev/stdout;
  default_type text/html;
  server {
    listen PORT;
    root /usr/share/nginx/html;
  }
}
"""
NGINX_PAGE = "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body>It works.</body></html>\n"
HTTPD_CONFIGURATION = """ServerRoot /usr/lib/apache2
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule dir_module modules/mod_dir.so
Listen 80
ServerName localhost
User www-data
Group www-data
PidFile /run/httpd.pid
ErrorLog /dev/stderr
LogLevel notice
DocumentRoot /srv
DirectoryIndex index.html
"""
HTTPD_START = "#!/bin/bash\nexec -a httpd /usr/sbin/apache2 -D FOREGROUND\n"
KITTEN = {  # what the e2e suite looks for when it mounts this image as a volume
    "data.json": b'{"image": "kitten.jpg"}\n',
    "etc/os-release": b'NAME="Alpine Linux"\nID=alpine\n',
}
AGNHOST_PACKAGES = (
    "bash", "curl", "bind9-dnsutils", "netcat-openbsd", "iproute2", "iperf", "socat", "iputils-ping", "iptables",
    "procps", "util-linux", "coreutils", "grep", "sed", "findutils", "ca-certificates", "hostname",
)  # fmt: skip


def _compile(source: str) -> bytes:
    """A static program from C."""
    debian.ensure("gcc", "libc6-dev")
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "program"
        subprocess.run(["gcc", "-Os", "-s", "-static", "-o", str(program), str(SOURCES / source)], check=True)
        return program.read_bytes()


def _source_key(source: str) -> str:
    return hashlib.sha256((SOURCES / source).read_bytes()).hexdigest()


def _write_userland(layer: LayerWriter) -> None:
    debs.add_system(layer)
    debs.add_packages(layer, "base-files", "base-passwd", "bash", "netbase", "busybox", "procps", "util-linux")


def _write_applets(layer: LayerWriter) -> None:
    program, applets = debs.busybox_applets()
    layer.file("usr/bin/busybox", program, 0o755)
    for applet in applets:
        if "/" in applet:
            layer.hard_link(applet, "usr/bin/busybox")
        if "sbin/" in applet:  # the suites call some of these in /bin, where a busybox of its own has all
            layer.hard_link(f"usr/bin/{applet.rpartition('/')[2]}", "usr/bin/busybox")


def _write_nginx(layer: LayerWriter) -> None:
    layer.file("etc/nginx/nginx.conf", NGINX_CONFIGURATION.replace("PORT", "80").encode())
    layer.file("usr/share/nginx/html/index.html", NGINX_PAGE.encode())
    for path in ("var/lib/nginx", "var/log/nginx"):
        layer.directory(path)
    debs.add_packages(layer, "nginx-light")


def _write_httpd(layer: LayerWriter) -> None:
    layer.file("etc/apache2/apache2.conf", HTTPD_CONFIGURATION.encode())
    layer.file("usr/local/bin/httpd-foreground", HTTPD_START.encode(), 0o755)
    layer.file("srv/index.html", b"<html><body><h1>It works!</h1></body></html>\n")
    debs.add_packages(layer, "apache2-bin")


def _write_agnhost_userland(layer: LayerWriter) -> None:
    debs.add_system(
        layer,
        users=("user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/bash",),
        groups=("group-defined-in-image:x:50000:user-defined-in-image",),
    )
    layer.symlink("usr/bin/nc", "nc.openbsd")
    layer.symlink("usr/sbin/iptables", "xtables-nft-multi")
    layer.directory("uploads")
    debs.add_packages(layer, "base-files", "base-passwd", "netbase", "dash", *AGNHOST_PACKAGES)


def _write_kitten(layer: LayerWriter) -> None:
    for path, content in KITTEN.items():
        layer.file(path, content)


def _write_agnhost(layer: LayerWriter) -> None:
    layer.file("agnhost", gotools.ensure("agnhost"), 0o755)
    layer.hard_link("agnhost-2", "agnhost")
    with tempfile.TemporaryDirectory() as scratch:
        authority = pki.Authority(Path(scratch), "localhost-ca")
        serving = authority.issue("localhost", "localhost", server_names=["localhost", "127.0.0.1"])
        layer.file("localhost.crt", serving.certificate)
        layer.file("localhost.key", serving.key)


def user_layer(*passwd: str, groups: tuple[str, ...] = ()) -> Layer:
    """A layer whose /etc/passwd and /etc/group have further entries."""
    key = "\n".join([*passwd, "", *groups])
    return Layer("users", key, lambda layer: debs.add_accounts(layer, passwd, groups))


PAUSE = Layer("pause", _source_key("pause.c"), lambda layer: layer.file("pause", _compile("pause.c"), 0o755))
USERLAND = Layer("userland", "3", _write_userland)
APPLETS = Layer("applets", "3", _write_applets)
EITHER_SHELL = Layer(
    "either-shell", _source_key("sh.c"), lambda layer: layer.file("usr/bin/sh", _compile("sh.c"), 0o755)
)
MILLISECONDS = Layer(
    "milliseconds", _source_key("nmeter.c"), lambda layer: layer.file("usr/bin/nmeter", _compile("nmeter.c"), 0o755)
)
NGINX = Layer("nginx", f"2 {NGINX_CONFIGURATION}{NGINX_PAGE}", _write_nginx)
NGINX_ON_12003 = Layer(
    "nginx-on-12003",
    f"1 {NGINX_CONFIGURATION}",
    lambda layer: layer.file("etc/nginx/nginx.conf", NGINX_CONFIGURATION.replace("PORT", "12003").encode()),
)
HTTPD = Layer("httpd", f"3 {HTTPD_CONFIGURATION}{HTTPD_START}", _write_httpd)
NNP = Layer("nnp", _source_key("nnp.c"), lambda layer: layer.file("usr/local/bin/nnp", _compile("nnp.c"), 0o4755))
AGNHOST_USERLAND = Layer("agnhost-userland", f"2 {AGNHOST_PACKAGES}", _write_agnhost_userland)
AGNHOST = Layer("agnhost", gotools.KUBERNETES_VERSION, _write_agnhost)
KITTEN_FILES = Layer("kitten", "1", _write_kitten)
