"""GitHub Apps against a local API over TLS: what is proven, asked for, and refused."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from cloister.errors import CredentialError
from cloister.secrets.https import proxy_for
from tests.unit.secrets.conftest import World

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
NOW = 1_900_000_000.0
INSTALLATION = "/repos/acme/widget/installation"
TOKENS = "/app/installations/42/access_tokens"

Reply = tuple[int, dict[str, str], bytes]


def reply(document: object, status: int = 200) -> Reply:
    return status, {}, json.dumps(document).encode()


class Api:
    """An API that answers as told, and remembers what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.replies: dict[str, Reply | Callable[[], Reply]] = {
            INSTALLATION: reply({"id": 42}),
            TOKENS: reply({"token": "ghs_t0ken", "expires_at": "2030-03-17T18:00:00Z"}, 201),
        }
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.ca = directory / "ca.pem"
        api = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                api.seen.append(
                    (self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                )
                found = api.replies.get(self.path, reply({}, 404))
                status, headers, data = found() if callable(found) else found
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                return  # a client that has seen enough goes

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certify(directory, self.ca)
        context.load_cert_chain(self.ca, directory / "key.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def certify(directory: Path, path: Path) -> None:
    """A certificate for localhost that is its own root."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    path.write_bytes(made.public_bytes(Encoding.PEM))
    (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def source(api: Api, more: str = "") -> str:
    return f"github-app:acme/widget?app_id=12&key=file:~/app.pem&api={api.url}{more}"


def fetch(world: World, api: Api, text: str = "", **how: object) -> str:
    if not (world.home / "app.pem").exists():
        world.secret_file("app.pem", PEM)
    fields: dict[str, object] = {"upstream_ca": (str(api.ca),), "clock": lambda: NOW, **how}
    value = world.fetch(text or source(api), **fields)
    assert value.expires_at == 1900000800.0
    return value.secret.reveal().decode()


def refusal(world: World, api: Api, text: str = "", **how: object) -> str:
    with pytest.raises(CredentialError) as caught:
        fetch(world, api, text, **how)
    assert "PRIVATE KEY" not in str(caught.value)
    assert 'credential "thing" cannot be had from github-app: ' in caught.value.brief
    return caught.value.brief.partition("github-app: ")[2]


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_the_app_proves_itself_and_asks_for_what_is_named(world: World, api: Api) -> None:
    assert fetch(world, api, source(api, "&permissions=contents:write,pull_requests:read")) == "ghs_t0ken"
    (one, two) = api.seen
    assert one[:2] == ("GET", INSTALLATION)
    assert two[:2] == ("POST", TOKENS)
    assert json.loads(two[3]) == {
        "repositories": ["widget"],
        "permissions": {"contents": "write", "pull_requests": "read"},
    }
    header, claims, signature = one[2]["authorization"].removeprefix("Bearer ").split(".")
    KEY.public_key().verify(decoded(signature), f"{header}.{claims}".encode(), PKCS1v15(), SHA256())
    assert json.loads(decoded(header)) == {"alg": "RS256", "typ": "JWT"}
    assert json.loads(decoded(claims)) == {"iat": int(NOW) - 60, "exp": int(NOW) + 540, "iss": "12"}


def test_the_least_is_asked_for_by_default_and_the_environment_names_the_app(world: World, api: Api) -> None:
    world.environ |= {"GITHUB_APP_ID": "99", "GITHUB_APP_PRIVATE_KEY": PEM.decode()}
    assert fetch(world, api, f"github-app:acme/widget?api={api.url}") == "ghs_t0ken"
    assert json.loads(api.seen[1][3])["permissions"] == {"contents": "read"}
    assert json.loads(decoded(api.seen[0][2]["authorization"].split(".")[1]))["iss"] == "99"
    del world.environ["GITHUB_APP_ID"]
    assert "neither in app_id nor in GITHUB_APP_ID" in refusal(
        world, api, f"github-app:acme/widget?api={api.url}"
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "clock is wrong"),
        (404, "not installed there"),
        (403, "may not"),
        (422, "permissions"),
        (500, "500"),
    ],
)
def test_refusals_of_the_api(world: World, api: Api, status: int, words: str) -> None:
    api.replies[INSTALLATION] = reply({"message": "s3cret words"}, status)
    said = refusal(world, api)
    assert str(status) in said
    assert words in said
    assert "s3cret" not in said


def test_a_redirect_is_never_followed(world: World, api: Api, tmp_path: Path) -> None:
    api.replies[INSTALLATION] = (302, {"Location": f"{api.url}/elsewhere"}, b"")
    assert "a redirect" in refusal(world, api)
    assert [seen[1] for seen in api.seen] == [INSTALLATION]


ODD: dict[str, Reply] = {
    "no json": (200, {}, b"<html>"),
    "a list": reply([1]),
    "no id": reply({}),
    "a path as id": reply({"id": "../../x"}),
    "true": reply({"id": True}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_installations(world: World, api: Api, name: str) -> None:
    api.replies[INSTALLATION] = ODD[name]
    assert "names no installation" in refusal(world, api)


ODD_TOKENS: list[dict[str, object]] = [
    {},
    {"token": "x"},
    {"token": 1, "expires_at": "2030-03-17T18:00:00Z"},
    {"token": "x", "expires_at": "tomorrow"},
]


@pytest.mark.parametrize("document", ODD_TOKENS, ids=str)
def test_odd_tokens(world: World, api: Api, document: dict[str, object]) -> None:
    api.replies[TOKENS] = reply(document, 201)
    assert "holds no token" in refusal(world, api)


def test_a_token_with_a_line_end(world: World, api: Api) -> None:
    api.replies[TOKENS] = reply({"token": "a\r\nX-Evil: 1", "expires_at": "2030-03-17T18:00:00Z"}, 201)
    assert "2 lines" in refusal(world, api)


def test_an_endless_answer_is_cut(world: World, api: Api) -> None:
    api.replies[INSTALLATION] = (200, {}, b" " * (3 << 20))
    assert "longer than 1 MiB" in refusal(world, api)


def test_an_api_that_hangs(world: World, api: Api) -> None:
    def hang() -> Reply:
        time.sleep(3)
        return reply({})

    api.replies[INSTALLATION] = hang
    started = time.monotonic()
    assert "did not end within 0.5 s" in refusal(world, api, deadline_s=0.5)
    assert time.monotonic() - started < 2.5


def test_a_certificate_that_does_not_verify(world: World, api: Api) -> None:
    said = refusal(world, api, upstream_ca=())
    assert "cannot be reached: its certificate does not verify: self-signed certificate" in said
    assert not api.seen
    numeric = source(api).replace("localhost", "127.0.0.1")
    assert "its certificate does not verify: IP address mismatch" in refusal(world, api, numeric)
    assert not api.seen


def test_an_api_that_is_not_there(world: World, api: Api) -> None:
    said = refusal(world, api, source(api).replace(api.url, "https://localhost:1"))
    assert "cannot be reached: Connection refused" in said


def test_keys_that_are_none(world: World, api: Api) -> None:
    for content, words in (
        (b"garbage", "no private key in PEM"),
        (KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1), "no private key"),
        (KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")), "has a passphrase"),
        (ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "not an RSA key"),
    ):  # fmt: skip
        world.secret_file("app.pem", content)
        assert words in refusal(world, api)
    assert not api.seen


def test_a_key_that_cannot_be_had_says_which_source(world: World, api: Api) -> None:
    world.secret_file("app.pem", PEM, 0o644)
    with pytest.raises(CredentialError, match="cannot be had from file: others may read"):
        fetch(world, api)


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "http://q:1", "HTTPS_PROXY": "http://p:3128"}, "http://q:1"),
        ({"ALL_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other, github.com"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".github.com"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "hub.com,i.github.com"}, "http://p:3128"),
    ],
)
def test_the_users_proxy(environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for("api.github.com", environ) == proxy


def test_it_goes_through_the_users_proxy_within_tls(world: World, api: Api) -> None:
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        world.environ["HTTPS_PROXY"] = f"http://127.0.0.1:{proxy.server_address[1]}"
        assert "cannot be reached" in refusal(world, api)
        assert asked == [api.url.removeprefix("https://")]
        world.environ["NO_PROXY"] = "localhost"
        assert fetch(world, api) == "ghs_t0ken"
        proxy.shutdown()
