"""How bytes get to the API server: TLS, client certificate, proxy, headers, for requests and websockets alike.

The trap: many clusters' own authority lacks the key usage extension, which Python ≥ 3.13 insists on and kubectl does
not, so the strict check is taken off again.
"""

import ipaddress
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit
from urllib.request import getproxies_environment

import urllib3

from kubectl_gadget import __version__
from kubectl_gadget.cluster.kubeconfig import Cluster
from kubectl_gadget.errors import ClusterError

CONNECT_SECONDS = 10.0
PARALLEL = 32
"""Requests that are under way at once."""

Query = tuple[tuple[str, str], ...]


class Connection:
    """One API server: its address, and the ways there. May be used from several threads."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._url = urlsplit(cluster.server)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ClusterError(f"the server {cluster.server!r} of the kubeconfig is not an http or https URL")
        self.proxy = _proxy(cluster, self._url)
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._pool: urllib3.PoolManager | None = None

    @property
    def host(self) -> str:
        return self._url.hostname or ""

    @property
    def server_hostname(self) -> str:
        """The name that the server's certificate must bear."""
        return self.cluster.tls_server_name or self.host

    def url(self, path: str, query: Query = ()) -> str:
        """URL of a request."""
        return self.cluster.server + path + ("?" + urlencode(query) if query else "")

    def websocket_url(self, path: str, query: Query = ()) -> str:
        """URL of a websocket."""
        return "ws" + self.url(path, query).removeprefix("http")

    def headers(self) -> list[tuple[str, str]]:
        """Who we are. May block, see credentials.py."""
        headers = [("User-Agent", f"kubectl-gadget/{__version__}")]
        if (authorization := self.cluster.credentials.authorization()) is not None:
            headers.append(("Authorization", authorization))
        return headers + list(self.cluster.impersonate)

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for http. May block, see credentials.py. Raises ClusterError."""
        if self._url.scheme == "http":
            return None
        with self._lock:
            if self._context is None:
                self._context = _ssl_context(self.cluster)
            return self._context

    def pool(self) -> urllib3.PoolManager:
        """Kept-alive connections for requests."""
        context = self.ssl_context()
        with self._lock:
            if self._pool is None:
                self._pool = self._make_pool(context)
            return self._pool

    def renew(self) -> bool:
        """After a 401: whether other credentials can be had, which then are used from now on."""
        renewed = self.cluster.credentials.renew()
        if renewed:
            with self._lock:
                self._context = self._pool = None
        return renewed

    def _make_pool(self, context: ssl.SSLContext | None) -> urllib3.PoolManager:
        settings: dict[str, Any] = {"maxsize": PARALLEL, "retries": False}
        if context is not None:
            settings["ssl_context"] = context
            if self.cluster.insecure:
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
                settings |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
            if self.cluster.tls_server_name:
                settings |= {"server_hostname": self.server_hostname, "assert_hostname": self.server_hostname}
        if self.proxy is None:
            return urllib3.PoolManager(**settings)
        if not self.proxy.startswith("socks"):
            return urllib3.ProxyManager(self.proxy, **settings)
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError:
            raise ClusterError(
                f"the proxy {self.proxy} needs SOCKS support", "pip install 'urllib3[socks]' 'python-socks[asyncio]'"
            ) from None
        return SOCKSProxyManager(self.proxy, **settings)


def _ssl_context(cluster: Cluster) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=cluster.certificate_authority)
    except (ssl.SSLError, ValueError) as error:
        raise ClusterError(f"the certificate authority in the kubeconfig is not valid: {error}") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    pair = cluster.credentials.client_certificate()
    if pair is not None:
        # OpenSSL's Python binding reads certificates from files alone.
        with tempfile.TemporaryDirectory(prefix="kubectl-gadget-") as directory:
            path = Path(directory) / "client.pem"
            path.touch(mode=0o600)
            path.write_text("\n".join(pair))
            try:
                context.load_cert_chain(path)
            except ssl.SSLError as error:
                raise ClusterError(f"the client certificate or key in the kubeconfig is not valid: {error}") from None
    return context


def _proxy(cluster: Cluster, url: SplitResult) -> str | None:
    """proxy-url of the kubeconfig, else $HTTPS_PROXY (or $HTTP_PROXY for http) unless $NO_PROXY names the host."""
    if cluster.proxy_url:
        return cluster.proxy_url
    proxies = getproxies_environment()
    proxy = proxies.get(url.scheme)
    if not proxy or _bypassed(url.hostname or "", proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _bypassed(host: str, no_proxy: str) -> bool:
    """As Go does it, and so kubectl: never a proxy for this machine itself; entries are names, domains or networks."""
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_names(entry.strip().lower(), host.lower(), address) for entry in no_proxy.split(",") if entry.strip())


def _names(entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if entry == "*":
        return True
    if address is None:
        name = entry.rsplit(":", 1)[0].lstrip("*.")
        return host == name or host.endswith("." + name)
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
