"""The connection to the API server: the kubernetes library's client for requests, and the same settings for websockets.

Many clusters' own CA certificates lack the key usage extension, which Python ≥ 3.13 requires and kubectl does
not, so the strict check is disabled. A connection's methods may block as long as a credential plugin does.
"""

import asyncio
import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

from kubectl_gadget import __version__
from kubectl_gadget.errors import ClusterError
from kubectl_gadget.kube import credentials
from kubectl_gadget.kube.failure import from_exception
from kubectl_gadget.kube.kubeconfig import Cluster

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration
    from urllib3 import HTTPHeaderDict


CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
PARALLEL = 32
"""Requests that may run in parallel."""
_IDENTITY_SECONDS = 1.0
"""Seconds for which headers with credentials are used again: a thousand streams are opened one after the other."""

Query = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ApiRoute:
    """A connection to the API server with one set of credentials, used until the server answers 401."""

    client: "ApiClient"
    ssl_context: ssl.SSLContext | None
    """None for http"""
    proxy: str | None

    @property
    def may_block(self) -> bool:
        """True if asking for headers may take long, because credentials may have to be renewed."""
        return credentials.may_block(self.client.configuration)

    def close(self) -> None:
        """Closes idle connections; the others close when their requests end."""
        self.client.rest_client.close()


@dataclass(frozen=True)
class Response:
    """A response, whatever its status."""

    status: int
    headers: "HTTPHeaderDict"
    data: bytes


class _Socket(ssl.SSLSocket):
    """For requests, which come from several threads."""

    has_read = False

    def read(self, len: int = 1024, buffer: Any = None) -> bytes:
        """See the base class."""
        return _keeping_session(self, super().read(len, buffer))


class _Object(ssl.SSLObject):
    """For streams and watches."""

    has_read = False

    def read(self, len: int = 1024, buffer: Any = None) -> bytes:
        """See the base class."""
        return _keeping_session(self, super().read(len, buffer))


def _keeping_session(connection: _Socket | _Object, data: bytes) -> bytes:
    """Passes the session of the connection to its context with the first data, which is returned. Only then has the
    server's ticket been read. Only the reading thread may take the session: in another thread, it may have the new
    ticket with the old secret."""
    if data and not connection.has_read:
        connection.has_read = True
        context = connection.context
        assert isinstance(context, ResumingContext)
        context.keep_session(connection)
    return data


class ResumingContext(ssl.SSLContext):
    """Connections to one server after the first resume its TLS session: no certificate is signed or checked again. A
    server that does not know the session makes a whole handshake. Like credentials, a session ends with its context."""

    sslsocket_class = _Socket
    sslobject_class = _Object
    _known: "tuple[str | bytes | None, ssl.SSLSession | None] | None" = None
    """a server's name, and the session of the last connection to it with a whole handshake"""

    def keep_session(self, connection: ssl.SSLObject | ssl.SSLSocket) -> None:
        """Takes the session of a connection, unless that has resumed one."""
        if not connection.session_reused:
            self._known = connection.server_hostname, connection.session

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See the base class, with a session where there is one for this server."""
        session = session or self._session_of(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """Like wrap_bio()."""
        session = session or self._session_of(server_hostname)
        return super().wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session
        )

    def _session_of(self, server_hostname: str | bytes | None) -> ssl.SSLSession | None:
        known = self._known
        return known[1] if known is not None and known[0] == server_hostname else None


class Connection:
    """One API server. May be used from several threads; credentials are loaded once for all of them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        url = urlsplit(cluster.server)
        if url.scheme not in ("http", "https") or not url.hostname or not _has_valid_port(url):
            raise ClusterError(
                f"the server {cluster.server!r} of the kubeconfig is not an http or https URL", "https://HOST:PORT"
            )
        self._host = url.hostname
        self._lock = threading.Lock()
        self._route: ApiRoute | None = None
        self._refusals = 0
        """number of failed attempts to create a route"""
        self._refusal: ClusterError | None = None
        """the error of the last one"""
        self._recent: tuple[ApiRoute, float, HTTPHeaderDict] | None = None
        """the headers that were made last, for which route and when"""

    def close(self) -> None:
        """Closes the open connections; without it, the garbage collector does."""
        if self._route is not None:
            self._route.close()

    def url(self, path: str, query: Query = ()) -> str:
        return self.cluster.server + path + ("?" + encoded(query) if query else "")

    def websocket_url(self, path: str) -> str:
        return "ws" + self.url(path).removeprefix("http")

    def route(self) -> ApiRoute:
        """Returns the route that all requests use now. Raises ClusterError.

        Requests that wait for the same attempt share its error: a credential plugin may prompt the user.
        """
        before = self._refusals
        with self._lock:
            if self._route is None:
                if self._refusal is not None and self._refusals != before:
                    raise self._refusal
                try:
                    self._route = _make_route(self.cluster)
                except ClusterError as error:
                    self._refusal = error
                    self._refusals += 1
                    raise
            return self._route

    @property
    def known_route(self) -> ApiRoute | None:
        """The route that all requests use now, if there is one already."""
        return self._route

    def renew(self, refused: ApiRoute) -> bool:
        """After a 401: get new credentials. True if there are any; later requests use them. Raises ClusterError."""
        with self._lock:
            if self._route is not refused:
                return True  # another request was also refused, and came here first
            self._route = _make_route(self.cluster)
            refused.close()
            old, new = refused.client.configuration, self._route.client.configuration
            return credentials.identity(old) != credentials.identity(new)

    def headers(self, route: ApiRoute) -> "HTTPHeaderDict":
        """Returns the headers with our identity. Raises ClusterError."""
        from urllib3 import HTTPHeaderDict

        headers = HTTPHeaderDict({"User-Agent": f"kubectl-gadget/{__version__}"})
        with self._lock:
            authorization = credentials.authorization(route.client.configuration)
        if authorization is not None:
            headers["Authorization"] = authorization
        for name, value in self.cluster.impersonate:
            headers.add(name, value)
        self._recent = route, time.monotonic(), headers.copy()
        return headers

    def recent_headers(self, route: ApiRoute) -> "HTTPHeaderDict | None":
        """Returns the headers with our identity if they were made a moment ago; never blocks."""
        if self._recent is None or self._recent[0] is not route:
            return None
        _, made, headers = self._recent
        return headers.copy() if time.monotonic() - made < _IDENTITY_SECONDS else None

    def server_hostname(self, route: ApiRoute) -> str:
        """Returns the name that the server's certificate must have."""
        return route.client.configuration.tls_server_name or self._host

    def request(self, route: ApiRoute, method: str, url: str, body: object, content: str) -> Response:
        """Sends one request, without retries. Raises UnreachableError or another ClusterError."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        headers = self.headers(route)
        headers["Accept"], headers["Content-Type"] = "application/json", content
        limit = self.cluster.request_timeout
        seconds = (min(limit or CONNECT_SECONDS, CONNECT_SECONDS), limit or _READ_SECONDS)
        try:
            response = route.client.call_api(method, url, headers, body, _request_timeout=seconds)
            return Response(response.status, response.headers, response.read())
        except (ApiException, HTTPError, OSError) as error:
            raise from_exception(error, self.cluster.server, route.proxy) from None


@functools.lru_cache(maxsize=64)
def encoded(query: Query) -> str:
    """Returns a query as in a URL. Sessions of all nodes have the same long one: the command that starts the agent."""
    return urlencode(query)


def _has_valid_port(url: SplitResult) -> bool:
    try:
        return url.port != 0
    except ValueError:
        return False


def _make_route(cluster: Cluster) -> ApiRoute:
    from kubernetes.client import ApiClient

    configuration = cluster.configure()
    configuration.retries = False
    configuration.connection_pool_maxsize = PARALLEL
    configuration.proxy = proxy = _proxy(cluster.server, configuration)
    configuration.no_proxy = None
    try:
        client = ApiClient(configuration)
    except ImportError:
        raise ClusterError(
            f"the proxy {proxy} needs SOCKS support", "pip install 'urllib3[socks]' 'python-socks[asyncio]'"
        ) from None
    context = None
    if cluster.server.startswith("https"):
        context = _ssl_context(configuration)
        settings = client.rest_client.pool_manager.connection_pool_kw
        for key in ("ca_certs", "ca_cert_data", "cert_file", "key_file"):
            settings.pop(key, None)
        settings["ssl_context"] = context
    return ApiRoute(client, context, proxy)


def _ssl_context(configuration: "Configuration") -> ssl.SSLContext:
    import urllib3

    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)  # else as ssl.create_default_context() does
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        if configuration.ssl_ca_cert:
            context.load_verify_locations(configuration.ssl_ca_cert)
        else:
            context.load_default_certs()
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ClusterError(f"the certificate authority in the kubeconfig is not valid: {error}") from None
    if not configuration.verify_ssl:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        try:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        except (ssl.SSLError, OSError) as error:
            raise ClusterError(f"the client certificate or key in the kubeconfig is not valid: {error}") from None
    return context


def _proxy(server: str, configuration: "Configuration") -> str | None:
    from kubernetes.client.rest import should_bypass_proxies

    proxy = configuration.proxy
    if not proxy or should_bypass_proxies(server, configuration.no_proxy or ""):
        return None
    proxy = str(proxy) if "://" in proxy else f"http://{proxy}"
    try:
        url = urlsplit(proxy)
        usable = url.scheme in _PROXIES and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ClusterError(
            f"the proxy {proxy!r} cannot be used",
            "proxy-url: http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT",
        )
    return proxy


# Blocking calls in threads. Python joins the threads of an executor when it exits, so one hanging connection
# would delay the user's prompt after Ctrl-C. These are daemon threads: a cancelled call is abandoned and ends
# with the process.


Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result]) -> Result:
    """Returns or raises the result of `call`, run in a new thread. Cancelling stops the waiting, not the call."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = call()
        except BaseException as error:
            failure = error
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:
                return  # the loop was closed between these two lines, so no task is waiting any more

    threading.Thread(target=run, name="API request", daemon=True).start()
    return await future
