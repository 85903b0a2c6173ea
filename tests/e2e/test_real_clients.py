"""Programs as people have them, with credentials that the sandbox never sees, with and without proxy variables.

Every origin is local, has its public-looking name by a pin, and says what reached it. `_trace` looks for the real value
in what came back, in the audit log and in every file that the sandbox could write.
"""

from __future__ import annotations

import base64
import json
import shutil
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloister.gateway.authority import Authority as LeafAuthority
from tests.e2e.conftest import Cloister, Result
from tests.fakes.git_origin import NAME as GIT
from tests.fakes.git_origin import GitOrigin
from tests.fakes.grpc_origin import METHOD, GrpcOrigin
from tests.fakes.origins import Authority
from tests.fakes.registry_origin import VERSION, npm_registry, python_index
from tests.fakes.s3_origin import BUCKET, REGION, S3Origin
from tests.fakes.s3_origin import NAME as S3
from tests.fakes.web_origin import Answer, Request, WebOrigin
from tests.fakes.websocket_origin import websocket_origin

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]

TOKEN = "sesame/open+R3al0123456789abcdef"
API = "api.example.test"
UNSET = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY;"
WAYS = pytest.mark.parametrize("way", ["", UNSET], ids=["proxy", "transparent"])
BEARER = f"""
[[credential]]
name = "api"
source = "env:REAL_TOKEN"
hosts = ["{API}"]
inject = "bearer"
env = "API_TOKEN"
"""

Configure = Callable[..., Cloister]
Open = Callable[..., WebOrigin]


@pytest.fixture
def configure(cloister: Cloister, authority: Authority) -> Configure:
    """Write a configuration with credentials and pins: names to ports of this machine."""

    def write(
        pins: Mapping[str, int], credentials: str = BEARER, *, read_only: tuple[Path, ...] = ()
    ) -> Cloister:
        ca = cloister.write(cloister.home / "ca.pem", authority.pem)
        hosts = "\n".join(f'"{name}" = "127.0.0.1:{port}"' for name, port in pins.items())
        cloister.configure(
            f"""
[sandbox]
read_only = {json.dumps([str(path) for path in read_only])}

[network]
upstream_ca = ["{ca}"]

[network.hosts]
{hosts}
{credentials}"""
        )
        cloister.extra_environment["REAL_TOKEN"] = TOKEN
        return cloister

    return write


@pytest.fixture
def web(authority: Authority) -> Iterator[Open]:
    """Opens origins; the test's end closes them."""
    with ExitStack() as stack:
        yield lambda *names, **how: stack.enter_context(WebOrigin(authority, *names, **how))


def bearer_echo(request: Request) -> Answer:
    """What an API says of the caller, with the token in it: to whom the token is shown is what we test."""
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        return Answer(status=401, body=b"who are you?\n")
    return Answer(body=f"{request.protocol} {request.method} {len(request.body)} {TOKEN}\n".encode())


def trace(cloister: Cloister, done: Result, *values: str) -> None:
    """No real value is in the output, the audit log, or any file of the sandbox."""
    for value in values or (TOKEN,):
        for form in (value, base64.b64encode(value.encode()).decode().rstrip("=")):
            assert form not in done.out + done.err
            for path in cloister.base.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    assert form.encode() not in path.read_bytes(), path


def requests(cloister: Cloister, host: str = API) -> list[tuple[object, object]]:
    return [(e["method"], e.get("status")) for e in cloister.events("request") if e["host"] == host]


MASKED = "*" * len(TOKEN)
PROTOCOLS = pytest.mark.parametrize("protocol", ["http/1.1", "h2"])


@WAYS
@PROTOCOLS
@pytest.mark.parametrize("upstream", ["http/1.1", "h2"])
def test_curl(configure: Configure, web: Open, way: str, protocol: str, upstream: str) -> None:
    """Each protocol towards the sandbox with each towards the origin; an upload that the origin asks to go on with."""
    origin = web(API, respond=bearer_echo, protocols=(upstream,))
    cloister = configure({API: origin.port})
    option = "--http2" if protocol == "h2" else "--http1.1"
    curl = f"curl -sS --max-time 20 {option} -w '%{{http_version}} %{{http_code}}\\n'"
    script = f"""{way} set -e; echo "$API_TOKEN" | wc -c
    {curl} https://{API}/me -H "Authorization: Bearer $API_TOKEN" https://{API}/again
    head -c 3000000 /dev/zero | {curl} -T - -H 'Expect: 100-continue' https://{API}/put"""
    done = cloister.sh(script)
    version = "2" if protocol == "h2" else "1.1"
    get = [f"{upstream} GET 0 {MASKED}", f"{version} 200"]
    assert done.code == 0, (done, cloister.events())
    assert done.out.splitlines()[1:] == [*get, *get, f"{upstream} PUT 3000000 {MASKED}", f"{version} 200"]
    assert [seen.path for seen in origin.seen] == ["/me", "/again", "/put"]
    assert requests(cloister) == [("GET", 200), ("GET", 200), ("PUT", 200)]
    trace(cloister, done)


@PROTOCOLS
@pytest.mark.parametrize("upstream", ["http/1.1", "h2"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_server_sent_events_arrive_one_by_one(
    configure: Configure, web: Open, protocol: str, upstream: str, coding: str
) -> None:
    """The origin says the next only when the client has got the last, which is shorter than the token."""
    received = threading.Semaphore(0)

    def events() -> Iterator[bytes]:
        for number in range(5):
            yield b"data: %d\n\n" % number
            if not received.acquire(timeout=30):
                return
        yield b"data: " + TOKEN.encode() + b"\n\n"

    def respond(_: Request) -> Answer:
        headers = {"Content-Type": "text/event-stream", "Content-Encoding": coding}
        return Answer(headers=headers, body=gzipped(events()) if coding == "gzip" else events())

    origin = web(API, respond=respond, protocols=(upstream,))
    cloister = configure({API: origin.port})
    option = "--http2" if protocol == "h2" else "--http1.1"
    curl = ("curl", "-sSN", "--compressed", "--max-time", "40", option, f"https://{API}/events")
    process = cloister.start("run", "--", *curl)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("data: "):
            received.release()
    assert process.wait(20) == 0
    assert "".join(lines) == "".join(f"data: {n}\n\n" for n in range(5)) + f"data: {MASKED}\n\n"


def gzipped(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Each part as far as it can be unpacked without the next."""
    packer = zlib.compressobj(wbits=31)
    for part in parts:
        yield packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


@WAYS
def test_a_redirect_to_another_host_takes_nothing_with_it(configure: Configure, web: Open, way: str) -> None:
    """As curl follows it, which drops the header; and as it does when it is told to trust every host."""
    other = "other.example.test"
    away = Answer(status=302, headers={"Location": f"https://{other}/?t={TOKEN}"})
    origin = web(API, respond=lambda _: away)
    elsewhere = web(other)
    rule = f'[[network.rule]]\nhost = "{other}"\nmethods = ["GET"]\n'
    cloister = configure({API: origin.port, other: elsewhere.port}, BEARER + rule)
    curl = f'curl -sS -L --max-time 20 -H "Authorization: Bearer $API_TOKEN" https://{API}/'
    done = cloister.sh(f"{way} {curl}; {curl} --location-trusted")
    assert done.out.startswith(f"origin saw GET /?t={MASKED}\n"), (done, cloister.events())
    assert "which it is not bound to" in done.out
    assert [seen.headers["authorization"] for seen in origin.seen] == [f"Bearer {TOKEN}"] * 2
    assert len(elsewhere.seen) == 1
    assert "authorization" not in elsewhere.seen[0].headers
    assert cloister.events("alarm")
    trace(cloister, done)


@WAYS
def test_python_httpx_with_http_2(configure: Configure, web: Open, client_packages: Path, way: str) -> None:
    origin = web(API, respond=bearer_echo, protocols=("h2", "http/1.1"))
    cloister = configure({API: origin.port}, read_only=(client_packages,))
    script = f"""
import asyncio, os, httpx
async def main():
    headers = {{"Authorization": "Bearer " + os.environ["API_TOKEN"]}}
    async with httpx.AsyncClient(http2=True, headers=headers, timeout=20, verify=os.environ["SSL_CERT_FILE"]) as client:
        answers = await asyncio.gather(*(client.post("https://{API}/", content=b"x" * 200000) for _ in range(20)))
        print({{(a.http_version, a.status_code, a.text) for a in answers}})
asyncio.run(main())
"""
    cloister.write(cloister.project / "client.py", script)
    done = cloister.sh(f"{way} PYTHONPATH={client_packages} exec python3 client.py")
    assert done.code == 0, (done, cloister.events())
    assert done.out == f"{{('HTTP/2', 200, 'h2 POST 200000 {MASKED}\\n')}}\n"
    assert len(origin.seen) == 20
    trace(cloister, done)


@WAYS
def test_node_fetch(configure: Configure, web: Open, way: str) -> None:
    """A streamed answer and a posted body. Node before 24 knows no proxy variables: both ways are one there."""
    parts = [b"one ", b"two ", TOKEN[:9].encode(), TOKEN[9:].encode()]

    def respond(request: Request) -> Answer:
        known = request.headers.get("authorization") == f"Bearer {TOKEN}"
        return Answer(body=iter(parts)) if known else Answer(status=401)

    origin = web(API, respond=respond)
    cloister = configure({API: origin.port})
    script = f"""
const headers = {{ authorization: `Bearer ${{process.env.API_TOKEN}}` }};
const answer = await fetch("https://{API}/", {{ method: "POST", headers, body: JSON.stringify({{ a: 1 }}) }});
console.log(answer.status, await answer.text());
"""
    cloister.write(cloister.project / "client.mjs", script)
    done = cloister.sh(f"{way} exec node client.mjs")
    assert (done.code, done.out) == (0, f"200 one two {MASKED}\n"), (done, cloister.events())
    assert json.loads(origin.seen[0].body) == {"a": 1}
    trace(cloister, done)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_replace_in_every_place(configure: Configure, web: Open, protocol: str) -> None:
    """The placeholder becomes the value where it stands: path, query, header, Basic, form and JSON; and nowhere else."""
    origin = web(API, protocols=(protocol,))
    cloister = configure({API: origin.port}, BEARER.replace('"bearer"', '"replace"'))
    curl = "curl -sS --max-time 20 -o /dev/null"
    script = f"""set -e; export T="$API_TOKEN"
    {curl} "https://{API}/bot$T/send?key=$T" -H "X-Key: $T" -u "me:$T"
    {curl} https://{API}/form --data-urlencode "key=$T" -d other=1
    {curl} https://{API}/json -H 'Content-Type: application/json' -d "{{\\"key\\": \\"$T\\"}}"
    {curl} https://{API}/none"""
    done = cloister.sh(script)
    assert done.code == 0, (done, cloister.events())
    places, form, document, none = origin.seen
    quoted = urllib.parse.quote(TOKEN, safe="")
    assert places.path == f"/bot{quoted}/send?key={quoted}"
    assert places.headers["x-key"] == TOKEN
    assert places.headers["authorization"] == "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()
    assert urllib.parse.parse_qs(form.body.decode()) == {"key": [TOKEN], "other": ["1"]}
    assert json.loads(document.body) == {"key": TOKEN}
    assert "authorization" not in none.headers
    trace(cloister, done)


@WAYS
def test_git(configure: Configure, authority: Authority, way: str) -> None:
    """Clone, fetch and push work without a password in the sandbox; what may not be pushed is refused in git's words."""
    with GitOrigin(authority, password=TOKEN) as git:
        cloister = configure(
            {GIT: git.port},
            f"""
[[credential]]
name = "git"
source = "env:REAL_TOKEN"
hosts = ["{GIT}"]
inject = "basic:x-access-token"
[git]
push = ["refs/heads/agent/*"]
""",
        )
        script = f"""{way} exec 2>&1; export GIT_TERMINAL_PROMPT=0
        say() {{ echo "== $1 $2"; }}
        git clone -q https://{GIT}/widget.git copy; say clone $?; cd copy
        git config user.name agent; git config user.email agent@example.test
        git checkout -q -b agent/one; head -c 2000000 /dev/urandom > big; git add big; git commit -q -m second
        git push -q origin agent/one; say push $?
        echo more >> README; git commit -q -a -m third; git push -q origin agent/one; say again $?
        git fetch -q origin; git log --format=%s origin/agent/one; say fetch $?
        git push origin HEAD:main; say main $?
        git commit -q --amend -m rewritten; git push -f origin agent/one; say force $?
        git push origin :agent/one; say delete $?
        git push -q origin HEAD:refs/heads/agent/two HEAD:refs/tags/v1; say both $?"""
        before = git.refs()
        done = cloister.sh(script)
        after = git.refs()
    said = dict(_steps(done.out))
    codes = {name: code for name, (code, _) in said.items()}
    assert codes == {
        "clone": 0, "push": 0, "again": 0, "fetch": 0, "main": 1, "force": 1, "delete": 1, "both": 1,
    }, done  # fmt: skip
    assert said["fetch"][1].splitlines() == ["third", "second", "first"]
    assert "pushing to it is not allowed; allowed: refs/heads/agent/*" in said["main"][1]
    assert "moving it to what does not follow is not allowed" in said["force"][1]
    assert "deleting it is not allowed" in said["delete"][1]
    assert "v1 (cloister: pushing to it is not allowed" in said["both"][1]
    assert "agent/two (cloister: refused together with another ref" in said["both"][1]
    assert set(after) == {*before, "refs/heads/agent/one"}
    assert after["refs/heads/main"] == before["refs/heads/main"]
    # Two pushes, and the empty request that git sends ahead of one larger than http.postBuffer.
    assert git.services.count("git-receive-pack") == 3, "a refused push never leaves"
    refused = [str(event["reason"]) for event in cloister.events("refuse")]
    assert len(refused) == 4, refused
    trace(cloister, done)


@WAYS
def test_git_of_github_with_an_ssh_address(configure: Configure, authority: Authority, way: str) -> None:
    """SSH addresses go over HTTPS; a credential of one repository is for no other."""
    with GitOrigin(authority, password=TOKEN, name="github.com", path="acme/widget.git") as git:
        cloister = configure(
            {"github.com": git.port},
            """
[[credential]]
name = "github"
source = "env:REAL_TOKEN"
preset = "github"
repositories = ["Acme/widget"]
""",
        )
        script = f"""{way} exec 2>&1; export GIT_TERMINAL_PROMPT=0
        say() {{ echo "== $1 $2"; }}
        git clone -q git@github.com:acme/widget.git one; say scp $?
        git clone -q ssh://git@github.com/acme/widget two; say ssh $?
        cat one/README two/README; say read $?
        git clone -q git@github.com:acme/other.git three; say other $?
        cd one; git push origin HEAD:refs/heads/agent/x; say push $?"""
        done = cloister.sh(script)
    said = dict(_steps(done.out))
    codes = {name: code for name, (code, _) in said.items()}
    assert codes == {"scp": 0, "ssh": 0, "read": 0, "other": 128, "push": 128}, done
    assert said["read"][1] == "a widget\n" * 2
    assert "nothing may be pushed from this sandbox" in said["push"][1]
    assert not any("receive" in service for service in git.services)
    trace(cloister, done)


KEY_ID, SECRET_KEY = "AKIAREALKEY0123456789", "r3al/secret+Key0123456789abcdefghijklmno"
AWS = f"""
[[credential]]
name = "aws"
source = "env:REAL_AWS"
preset = "aws"
hosts = ["{S3}"]
"""
S3_CLIENT = f"""
import boto3, io, os, urllib.request
from botocore.config import Config
config = Config(region_name="{REGION}", signature_version="s3v4", s3={{"addressing_style": "virtual"}}, retries={{"total_max_attempts": 1}}, read_timeout=20)
s3 = boto3.client("s3", config=config)
data = os.urandom(3000000)
s3.put_object(Bucket="{BUCKET}", Key="a b/é+1.bin", Body=io.BytesIO(data))
print(s3.get_object(Bucket="{BUCKET}", Key="a b/é+1.bin")["Body"].read() == data)
s3.put_object(Bucket="{BUCKET}", Key="small", Body=b"small", ContentType="text/plain", Metadata={{"a": "b  c"}})
url = s3.generate_presigned_url("get_object", Params={{"Bucket": "{BUCKET}", "Key": "small"}}, ExpiresIn=60)
print(urllib.request.urlopen(url, timeout=20).read())
"""


@pytest.fixture
def s3(authority: Authority) -> Iterator[S3Origin]:
    with S3Origin(authority, key_id=KEY_ID, secret_key=SECRET_KEY) as running:
        yield running


@WAYS
@pytest.mark.usefixtures("aws_extra")
def test_boto3(configure: Configure, s3: S3Origin, client_packages: Path, way: str) -> None:
    """What boto3 signs with a placeholder reaches S3 signed with the key: streamed upload, headers, presigned URL."""
    cloister = configure({S3: s3.port}, AWS, read_only=(client_packages,))
    keys = json.dumps({"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET_KEY})
    cloister.extra_environment["REAL_AWS"] = keys
    cloister.write(cloister.project / "client.py", S3_CLIENT)
    done = cloister.sh(f"{way} PYTHONPATH={client_packages} exec python3 client.py")
    assert (done.code, done.out) == (0, "True\nb'small'\n"), (done, cloister.events())
    upload = s3.seen[0].headers
    assert (upload["content-encoding"], upload["x-amz-trailer"]) == ("aws-chunked", "x-amz-checksum-crc32")
    assert upload["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    trace(cloister, done, SECRET_KEY)


@pytest.mark.usefixtures("aws_extra")
def test_boto3_with_another_key_is_refused_by_s3(
    configure: Configure, s3: S3Origin, client_packages: Path
) -> None:
    """The control: the stand-in verifies."""
    cloister = configure({S3: s3.port}, AWS, read_only=(client_packages,))
    keys = json.dumps({"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET_KEY[::-1]})
    cloister.extra_environment["REAL_AWS"] = keys
    cloister.write(cloister.project / "client.py", S3_CLIENT)
    done = cloister.sh(f"PYTHONPATH={client_packages} exec python3 client.py")
    assert done.code == 1
    assert "SignatureDoesNotMatch" in done.err
    assert not s3.objects


def test_boto3_without_the_extra_is_told_what_to_install(
    configure: Configure, s3: S3Origin, client_packages: Path
) -> None:
    cloister = configure({S3: s3.port}, AWS, read_only=(client_packages,))
    cloister.extra_environment["REAL_AWS"] = json.dumps(
        {"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET_KEY}
    )
    cloister.write(cloister.project / "client.py", S3_CLIENT)
    done = cloister.sh(f"PYTHONPATH={client_packages} exec python3 client.py")
    assert done.code == 1
    assert not s3.seen
    assert "botocore is not installed" in str(cloister.events("refuse")[-1]["reason"]), cloister.events()


@WAYS
def test_npm_from_a_private_registry(configure: Configure, web: Open, way: str) -> None:
    name = "npm.example.test"
    origin = web(name, respond=npm_registry(name, TOKEN))
    cloister = configure(
        {name: origin.port},
        f"""
[[credential]]
name = "npm"
source = "env:REAL_TOKEN"
preset = "npm"
hosts = ["{name}"]
""",
    )
    cloister.write(cloister.project / "package.json", '{"name": "x", "version": "1.0.0"}')
    script = f"""{way} set -e
    npm install --silent --no-audit --no-fund --registry https://{name}/ widget
    node -e 'console.log(require("widget/package.json").version)'; npm view --registry https://{name}/ widget version
    grep -c "//{name}/:_authToken=$NPM_TOKEN" ~/.npmrc"""
    done = cloister.sh(script)
    assert (done.code, done.out) == (0, f"{VERSION}\n{VERSION}\n1\n"), (done, cloister.events())
    assert {seen.headers["authorization"] for seen in origin.seen} == {f"Bearer {TOKEN}"}
    trace(cloister, done)


@WAYS
def test_pip_from_an_index_that_wants_a_password(configure: Configure, web: Open, way: str) -> None:
    name = "pypi.example.test"
    origin = web(name, respond=python_index("reader", TOKEN))
    cloister = configure(
        {name: origin.port},
        f"""
[[credential]]
name = "index"
source = "env:REAL_TOKEN"
preset = "pypi"
hosts = ["{name}"]
inject = "basic:reader"
""",
    )
    script = f"""{way} set -e; python3 -m venv v
    v/bin/pip install -q --no-input --disable-pip-version-check --no-cache-dir --index-url https://{name}/simple/ widget
    v/bin/python -c 'import widget; print(widget.VERSION)'"""
    done = cloister.sh(script)
    assert (done.code, done.out) == (0, f"{VERSION}\n"), (done, cloister.events())
    assert {seen.path.partition("/")[2].partition("/")[0] for seen in origin.seen} == {"simple", "files"}
    trace(cloister, done, f"reader:{TOKEN}", TOKEN)


@WAYS
def test_gh_api(configure: Configure, web: Open, way: str) -> None:
    name = "api.github.com"

    def respond(request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(
                status=401,
                headers={"Content-Type": "application/json"},
                body=b'{"message": "Bad credentials"}',
            )
        body = json.dumps({"login": "octocat", "you_sent": TOKEN, "asked": request.method}).encode()
        return Answer(headers={"Content-Type": "application/json"}, body=body)

    if shutil.which("gh", path="/usr/local/bin:/usr/bin:/bin") is None:
        pytest.fail("gh is missing: tools/setup-tests.sh installs it")
    origin = web(name, respond=respond, protocols=("h2", "http/1.1"))
    cloister = configure(
        {name: origin.port},
        """
[[credential]]
name = "github"
source = "env:REAL_TOKEN"
preset = "github"
""",
    )
    script = f"""{way} set -e; gh api user --jq .login; gh api user --jq .you_sent
    gh api -X POST repos/acme/widget/issues -f title=hello --jq .asked
    unset GITHUB_TOKEN GH_TOKEN; gh api user --jq .asked"""
    done = cloister.sh(script)
    assert (done.code, done.out) == (0, f"octocat\n{MASKED}\nPOST\nGET\n"), (done, cloister.events())
    assert json.loads(origin.seen[2].body) == {"title": "hello"}
    trace(cloister, done)


GRPC_CLIENT = f"""
import os, queue, grpc
roots = open(os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"], "rb").read()
metadata = (("authorization", "Bearer " + os.environ["API_TOKEN"]),)
with grpc.secure_channel("{API}:443", grpc.ssl_channel_credentials(roots)) as channel:
    talk = channel.stream_stream("{METHOD}")
    for last in (None, b"fail"):
        outgoing = queue.Queue()
        answers = talk(iter(outgoing.get, None), metadata=metadata, timeout=20)
        for number in range(50):
            outgoing.put(b"%d " % number + b"x" * 2000 * number)
            assert next(answers) == b"echo: %d " % number + b"x" * 2000 * number
        outgoing.put(last)
        try:
            print(list(answers), answers.code().name, dict(answers.trailing_metadata()))
        except grpc.RpcError as error:
            print(error.code().name, error.details())
"""


@WAYS
def test_grpc_in_both_directions(configure: Configure, client_packages: Path, way: str) -> None:
    """A stream in which each side waits for the other's message, its trailers, and a status with a message."""
    leaves = LeafAuthority("grpc-origin")
    with GrpcOrigin(leaves, API, token=TOKEN) as origin:
        cloister = configure({API: origin.port}, read_only=(client_packages,))
        ca = cloister.home / "ca.pem"
        cloister.write(ca, ca.read_text() + leaves.pem.decode())
        cloister.write(cloister.project / "client.py", GRPC_CLIENT)
        done = cloister.sh(f"{way} PYTHONPATH={client_packages} exec python3 client.py")
    expected = ["[] OK {'count': '50'}", f"NOT_FOUND nothing here for {MASKED}"]
    assert (done.code, done.out.splitlines()) == (0, expected), (done, cloister.events())
    assert len(origin.seen) == 101
    trace(cloister, done)


WEBSOCKET_CLIENT = f"""
import os, socket, ssl, urllib.parse
from wsproto import ConnectionType, WSConnection
from wsproto.events import *
from wsproto.extensions import PerMessageDeflate

proxy = urllib.parse.urlsplit(os.environ.get("https_proxy", ""))
plain = socket.create_connection((proxy.hostname, proxy.port) if proxy.hostname else ("{API}", 443), 20)
if proxy.hostname:
    plain.sendall(b"CONNECT {API}:443 HTTP/1.1\\r\\nHost: {API}:443\\r\\n\\r\\n")
    assert b" 200 " in plain.recv(4096)
sock = ssl.create_default_context().wrap_socket(plain, server_hostname="{API}")
websocket = WSConnection(ConnectionType.CLIENT)
headers = [(b"authorization", b"Bearer " + os.environb[b"API_TOKEN"])]
sock.sendall(websocket.send(Request(host="{API}", target="/chat", extra_headers=headers, extensions=[PerMessageDeflate()])))

def receive():
    parts = []
    while True:
        for event in websocket.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                parts.append(event.data)
                if event.message_finished:
                    return (b"" if isinstance(event, BytesMessage) else "").join(parts)
            elif not isinstance(event, AcceptConnection):
                return event
        data = sock.recv(65536)
        websocket.receive_data(data or None)

print(receive())
sock.sendall(websocket.send(TextMessage(data="hel", message_finished=False)) + websocket.send(TextMessage(data="lo")))
print(receive())
big = os.urandom(300000)
sock.sendall(websocket.send(BytesMessage(data=big)))
print(receive() == big)
sock.sendall(websocket.send(Ping(payload=b"ping")))
print(bytes(receive().payload))
sock.sendall(websocket.send(CloseConnection(code=1000)))
print(receive().code)
"""


@WAYS
def test_websocket(configure: Configure, authority: Authority, client_packages: Path, way: str) -> None:
    """Compressed, in fragments, large and binary, pinged, closed; what the origin says of the token is masked."""
    origin = websocket_origin(authority.context((API,)), TOKEN)
    try:
        cloister = configure({API: origin.port}, read_only=(client_packages,))
        cloister.write(cloister.project / "client.py", WEBSOCKET_CLIENT)
        done = cloister.sh(f"{way} PYTHONPATH={client_packages} exec python3 client.py")
        expected = [f"welcome, {MASKED}", "hello", "True", "b'ping'", "1000"]
        assert (done.code, done.out.splitlines()) == (0, expected), (done, cloister.events())
        assert origin.seen[0].ended.wait(10)
    finally:
        origin.close()
    trace(cloister, done)


def test_websocket_of_node(configure: Configure, authority: Authority) -> None:
    """The client that Node brings knows neither proxy variables nor headers: it gets in without knowing of a token."""
    origin = websocket_origin(authority.context((API,)), TOKEN)
    try:
        cloister = configure({API: origin.port})
        script = f"""
const socket = new WebSocket("wss://{API}/chat");
socket.onmessage = ({{ data }}) => {{
  console.log(data);
  if (data.startsWith("welcome")) socket.send("hello");
  else socket.close(1000);
}};
socket.onerror = (event) => console.log("error", event.message);
socket.onclose = ({{ code }}) => console.log(code);
"""
        cloister.write(cloister.project / "client.mjs", script)
        done = cloister.run("node", "--experimental-websocket", "client.mjs")
        expected = [f"welcome, {MASKED}", "hello", "1000"]
        assert (done.code, done.out.splitlines()) == (0, expected), (done, cloister.events())
    finally:
        origin.close()
    trace(cloister, done)


def _steps(text: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """What a script said before each of its lines `== NAME CODE`."""
    said = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("== "):
            _, name, code = line.split()
            yield name, (int(code), said)
            said = ""
        else:
            said += line
