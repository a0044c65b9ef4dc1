"""What requests knows of networks holds for the teacher too: proxies, private certificates, keep-alive."""

import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fixtures.chaos_server import ChaosServer

from edgeelad.errors import TeacherRefusedError
from edgeelad.teacher.client.outcomes import classify
from edgeelad.teacher.client.refusals import Again
from edgeelad.teacher.client.transport import HttpReply, Lost, Transport


def make(url, key=None, read_timeout_s=5.0):
    return Transport(url, key, {}, connect_timeout_s=5.0, read_timeout_s=read_timeout_s)


def test_a_proxy_from_the_environment_is_used(monkeypatch):
    with ChaosServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        transport = make("http://teacher.invalid/v1/chat/completions", key="k")
        reply = transport.post({"model": "m", "messages": []})
        transport.close()
    assert reply.status == 200
    ((path, headers, _),) = proxy.requests
    assert path == "http://teacher.invalid/v1/chat/completions"
    assert headers["Authorization"] == "Bearer k"


def test_a_proxy_that_is_not_there(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    transport = make("http://teacher.invalid/v1/chat/completions")
    reply = transport.post({})
    transport.close()
    assert reply == Lost("the proxy does not connect", was_sent=False)


def test_connections_are_kept_open():
    ports = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_POST(self):
            ports.append(self.client_address[1])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    transport = make(f"http://127.0.0.1:{server.server_port}/")
    assert [transport.post({}).status for _ in range(5)] == [200] * 5
    transport.close()
    server.shutdown()
    server.server_close()
    thread.join()
    assert len(set(ports)) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that no public authority has signed."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl, which makes the test's certificate, is not installed")
    return folder


@pytest.fixture
def https_server(certificate):
    with ChaosServer() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
        yield server


def test_an_unknown_certificate_is_refused_at_once(https_server):
    transport = make(https_server.url.replace("http:", "https:"))
    reply = transport.post({"model": "m", "messages": []})
    transport.close()
    assert isinstance(reply, Lost)
    assert reply.is_final
    assert "REQUESTS_CA_BUNDLE" in classify(reply, 0.0).reason
    assert https_server.requests == []
    assert TeacherRefusedError("x").is_retryable is False


@pytest.mark.parametrize("num_bytes", [16, 65_536])
def test_a_handshake_that_is_cut_is_tried_again(https_server, certificate, monkeypatch, num_bytes):
    """By a reset, or by an end of file (`SSLEOFError`)."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "cert.pem"))
    accept = https_server._http.socket.accept
    cuts = iter([True])

    def cut_once():
        if next(cuts, False):
            raw, address = socket.socket.accept(https_server._http.socket)
            raw.recv(num_bytes)
            raw.close()
            raise OSError(f"cut off {address}")
        return accept()

    monkeypatch.setattr(https_server._http.socket, "accept", cut_once)
    transport = make(https_server.url.replace("http:", "https:"))
    cut = transport.post({"model": "m", "messages": []})
    assert isinstance(cut, Lost)
    assert (cut.was_sent, cut.is_final) == (False, False)
    assert isinstance(classify(cut, 0.0), Again)
    assert transport.post({"model": "m", "messages": []}).status == 200
    transport.close()


def test_a_server_that_speaks_no_tls_is_named():
    with ChaosServer() as server:
        transport = make(server.url.replace("http:", "https:"))
        reply = transport.post({})
        transport.close()
    assert isinstance(reply, Lost)
    assert "http only" in reply.reason
    assert not reply.was_sent


def test_a_private_certificate_is_accepted_where_it_is_named(https_server, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "cert.pem"))
    transport = make(https_server.url.replace("http:", "https:"), key="k")
    reply = transport.post({"model": "m", "messages": []})
    transport.close()
    assert isinstance(reply, HttpReply)
    assert reply.status == 200


@pytest.mark.parametrize("fault", ["drip", "hang"])
def test_the_deadline_holds_over_tls_too(https_server, certificate, monkeypatch, fault):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "cert.pem"))
    https_server.act = lambda number, body: fault
    transport = Transport(
        https_server.url.replace("http:", "https:"), None, {}, connect_timeout_s=0.5, read_timeout_s=0.5
    )
    reply = transport.post({"model": "m", "messages": []})
    transport.close()
    if isinstance(reply, Lost):
        assert reply.was_sent
    else:
        assert "too slow" in reply.problem


def test_headers_that_drip_are_cut_off():
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not stopped.wait(0.02):
                try:
                    self.wfile.write(b"X-Slow: 1\r\n")
                except OSError:
                    return

    stopped = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    transport = Transport(
        f"http://127.0.0.1:{server.server_port}/", None, {}, connect_timeout_s=0.3, read_timeout_s=0.3
    )
    reply = transport.post({})
    transport.close()
    stopped.set()
    server.shutdown()
    server.server_close()
    thread.join()
    # the headers end where the connection was cut, so a status is there, and no body
    assert reply.problem == "the body broke off after 0 bytes (too slow)"
