"""Programs as people have them, with credentials that the sandbox never sees, with and without proxy variables.

`trace` looks for the real value in what came back, in the audit log and in every file that the sandbox could write.
"""

from __future__ import annotations

import base64
import json
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.credentialed import API, BEARER, MASKED, PROTOCOLS, TOKEN, WAYS, Configure, Open, trace
from tests.fakes.origins import Authority
from tests.fakes.registry_origin import VERSION, npm_registry, python_index
from tests.fakes.s3_origin import BUCKET, REGION, S3Origin
from tests.fakes.s3_origin import NAME as S3
from tests.fakes.web_origin import Answer, Request
from tests.world import Cloister

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]


def bearer_echo(request: Request) -> Answer:
    """What an API says of the caller, with the token in it: to whom the token is shown is what we test."""
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        return Answer(status=401, body=b"who are you?\n")
    return Answer(body=f"{request.protocol} {request.method} {len(request.body)} {TOKEN}\n".encode())


def requests(cloister: Cloister, host: str = API) -> list[tuple[object, object]]:
    return [(e["method"], e.get("status")) for e in cloister.events("request") if e["host"] == host]


@WAYS
@PROTOCOLS
@pytest.mark.parametrize("upstream", ["http/1.1", "h2"])
def test_curl(configure: Configure, web: Open, way: str, protocol: str, upstream: str) -> None:
    """Each protocol towards the sandbox with each origin; an upload that the origin asks to go on with.

    What comes over HTTP/1.1 leaves so (gateway/intercept.py, Rule 2).
    """
    origin = web(API, respond=bearer_echo, protocols=(upstream,))
    cloister = configure({API: origin.port})
    option = "--http2" if protocol == "h2" else "--http1.1"
    curl = f"curl -sS --max-time 20 {option} -w '%{{http_version}} %{{http_code}}\\n'"
    script = f"""{way} set -e; echo "$API_TOKEN" | wc -c
    {curl} https://{API}/me -H "Authorization: Bearer $API_TOKEN" https://{API}/again
    head -c 3000000 /dev/zero | {curl} -T - -H 'Expect: 100-continue' https://{API}/put"""
    done = cloister.sh(script)
    version = "2" if protocol == "h2" else "1.1"
    spoken = "h2" if protocol == upstream == "h2" else "http/1.1"
    get = [f"{spoken} GET 0 {MASKED}", f"{version} 200"]
    assert done.code == 0, (done, cloister.events())
    assert done.out.splitlines()[1:] == [*get, *get, f"{spoken} PUT 3000000 {MASKED}", f"{version} 200"]
    assert [seen.path for seen in origin.seen] == ["/me", "/again", "/put"]
    assert requests(cloister) == [("GET", 200), ("GET", 200), ("PUT", 200)]
    trace(cloister, done)


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
