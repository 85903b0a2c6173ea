"""What a credential costs: requests, bodies and events through the gateway that puts it in, beside mitmproxy that does
the same and beside no proxy at all. HTTP/1.1 by wrk, HTTP/2 by h2load, bodies and events by curl.

The rounds of all ways are interleaved. A request that came without the real value is answered 403, which is an error.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from certificate import write_certificate
from mitmproxy import Mitmproxy
from report import Row, at_least, not_measured
from supervisor import held, peak_memory_mb
from web_origin import WebOrigin

from world import UnavailableError, World, cloister_argv

HOST = "api.example.test"
VALUE = "real-value-0123456789abcdef"
PLACEHOLDER = "cloister-bench-placeholder-0123456789"
RATE_SECONDS = 3
CONNECTIONS = 64
EVENTS = 50
RATE_BAR, DOWNLOAD_BAR = 5.0, 2.0  # times mitmproxy
VERSIONS = {"HTTP/1.1": "--http1.1", "HTTP/2": "--http2"}
REPLIES = re.compile(r"(\d+) 2xx.*?\b(\d+) 3xx, (\d+) 4xx, (\d+) 5xx")

Measure = Callable[["Way", str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to the origin: how a client is started, the URL that it asks, and what it says of itself."""

    name: str
    prefix: list[str]
    base_url: str
    token: str
    curl: list[str]
    world: World

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            [*self.prefix, *argv],
            cwd=self.world.project,
            env={**self.world.environment(), "BENCH_TOKEN": VALUE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"{argv[0]}, {self.name}: exit code {done.returncode}: {done.stderr.strip()[-200:]}"
            )
        return done.stdout


@dataclass(slots=True)
class Figures:
    """Values of each way, of all rounds."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, way: str, value: float) -> None:
        self.values.setdefault(way, []).append(value)

    def median(self, way: str) -> float:
        return statistics.median(self.values[way])


def rows(world: World, *, body_bytes: int, rounds: int) -> list[Row]:
    with ExitStack() as stack:
        try:
            ways, pid = _ways(world, stack, body_bytes)
        except UnavailableError as error:
            return [not_measured("interception", str(error))]
        measures = _measures(world, body_bytes)
        figures = {what: {version: Figures() for version in VERSIONS} for what in measures}
        for _ in range(rounds):
            for what, measure in measures.items():
                for version in VERSIONS:
                    for way in ways:
                        figures[what][version].add(way.name, measure(way, version))
        result = [
            row
            for what in measures
            for version in VERSIONS
            for row in _rows(what, version, figures[what][version])
        ]
        return [*result, *_memory(world, peak_memory_mb([pid]) if pid else None)]


def _ways(world: World, stack: ExitStack, body_bytes: int) -> tuple[list[Way], int | None]:
    ca, leaf = world.base / "ca.pem", world.base / "leaf.pem"
    write_certificate(ca=ca, leaf=leaf, name=HOST)
    world.base.chmod(0o755)
    origin = stack.enter_context(
        WebOrigin(world.base / "origin", certificate=leaf, value=VALUE, big_bytes=body_bytes)
    )
    world.configure(
        f"""
[network]
upstream_ca = ["{ca}"]
[network.hosts]
"{HOST}" = "127.0.0.1:{origin.port}"
[[credential]]
name = "bench"
source = "env:BENCH_TOKEN"
hosts = ["{HOST}"]
inject = "bearer"
placeholder = "{PLACEHOLDER}"
"""
    )
    ways = [
        _local(world, "direct", origin.port, VALUE),
        Way(
            name="cloister",
            prefix=cloister_argv(),
            base_url=f"https://{HOST}",
            token=PLACEHOLDER,
            curl=[],
            world=world,
        ),
    ]
    try:
        proxy = stack.enter_context(
            Mitmproxy(
                world.base / "mitmproxy",
                origin=f"https://127.0.0.1:{origin.port}",
                placeholder=PLACEHOLDER,
                value=VALUE,
            )
        )
    except UnavailableError as error:
        print(f"mitmproxy is not measured: {error}", file=sys.stderr)
        return ways, None
    return [*ways, _local(world, "mitmproxy", proxy.port, PLACEHOLDER)], proxy.pid


def _local(world: World, name: str, port: int, token: str) -> Way:
    """A way that starts on the host. Its clients check no certificate: only one of them could be told to."""
    return Way(
        name=name,
        prefix=[],
        base_url=f"https://127.0.0.1:{port}",
        token=token,
        curl=["--insecure"],
        world=world,
    )


def _measures(world: World, body_bytes: int) -> dict[str, Measure]:
    upload = world.project / "upload"
    with upload.open("wb") as file:
        file.truncate(body_bytes)
    size = f"{body_bytes / 1e9:g} GB"
    return {
        "request, 1 connection": lambda way, version: _rate(way, version, 1),
        f"request, {CONNECTIONS} at a time": lambda way, version: _rate(way, version, CONNECTIONS),
        f"download, {size}": lambda way, version: _body_mb_s(way, version, "download", "/big"),
        f"upload, {size}": lambda way, version: _body_mb_s(
            way, version, "upload", "/upload", "--upload-file", str(upload), "--header", "Expect:"
        ),
        "server-sent event": _event_ms,
    }


def _rate(way: Way, version: str, at_a_time: int) -> float:
    """Requests a second: of one kept-alive connection, or of many (of HTTP/2: streams of one connection)."""
    headers = ["-H", f"Authorization: Bearer {way.token}"]
    if version == "HTTP/1.1":
        out = way.run(
            "wrk",
            "-t1",
            f"-c{at_a_time}",
            f"-d{RATE_SECONDS}",
            "-H",
            f"Host: {HOST}",
            *headers,
            f"{way.base_url}/",
        )
        if "Non-2xx" in out:
            raise RuntimeError(f"{way.name}: the origin did not see the value")
        return float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0])
    out = way.run(
        "h2load",
        "-c1",
        f"-m{at_a_time}",
        f"-D{RATE_SECONDS}",
        "-H",
        f":authority: {HOST}",
        *headers,
        f"{way.base_url}/",
    )
    if (
        not (codes := REPLIES.search(out))
        or int(codes[3])
        or int(codes[4])
        or "Application protocol: h2" not in out
    ):
        raise RuntimeError(f"{way.name}: {out.strip().splitlines()[-8:]}")
    return float(re.findall(r"([\d.]+) req/s", out)[0])


def _body_mb_s(way: Way, version: str, direction: str, path: str, *more: str) -> float:
    wanted = f"%{{http_code}} %{{http_version}} %{{speed_{direction}}}"
    out = _curl(way, version, path, "--output", "/dev/null", "--write-out", wanted, *more)
    status, spoken, speed = out.split()
    if status != "200" or spoken != VERSIONS[version].removeprefix("--http"):
        raise RuntimeError(f"{way.name}: {out}")
    return float(speed) / 1e6


def _event_ms(way: Way, version: str) -> float:
    """The median time from the origin's write until a line is read from curl."""
    argv = [*way.prefix, *_curl_argv(way, version, f"/events/{EVENTS}", "--no-buffer")]
    delays = []
    with subprocess.Popen(
        argv,
        cwd=way.world.project,
        env={**way.world.environment(), "BENCH_TOKEN": VALUE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        for line in process.stdout or ():
            if line.startswith(b"data: "):
                delays.append((time.monotonic_ns() - int(line[6:])) / 1e6)
    if len(delays) != EVENTS:
        raise RuntimeError(f"{way.name}: {len(delays)} events came")
    return statistics.median(delays)


def _curl(way: Way, version: str, path: str, *more: str) -> str:
    return way.run(*_curl_argv(way, version, path, *more))


def _curl_argv(way: Way, version: str, path: str, *more: str) -> list[str]:
    headers = ["--header", f"Host: {HOST}", "--header", f"Authorization: Bearer {way.token}"]
    return ["curl", "-sS", VERSIONS[version], *way.curl, *headers, *more, way.base_url + path]


def _rows(what: str, version: str, figures: Figures) -> Iterator[Row]:
    what = f"{what}, {version}"
    ours, direct = figures.median("cloister"), figures.median("direct")
    theirs = figures.median("mitmproxy") if "mitmproxy" in figures.values else None
    if "event" in what:
        against = "" if theirs is None else f"mitmproxy {theirs:.2f} ms, "
        yield Row(
            what=what,
            measured=f"{ours:.2f} ms",
            reference=f"{against}direct {direct:.2f} ms",
            ratio=f"{ours - direct:+.2f} ms",
        )
        return
    unit = "/s" if "request" in what else " MB/s"
    if theirs is None:
        yield not_measured(what, "no mitmproxy to compare with")
    elif "upload" in what:
        yield Row(
            what=what,
            measured=f"{ours:.0f}{unit}",
            reference=f"mitmproxy {theirs:.0f}{unit}",
            ratio=f"{ours / theirs:.2f} ×",
        )
    else:
        bar = RATE_BAR if "request" in what else DOWNLOAD_BAR
        yield at_least(what, ours, theirs, bar, unit=unit.strip(), against="mitmproxy")
    yield Row(what="", measured="", reference=f"direct {direct:.0f}{unit}", ratio=f"{ours / direct:.2g} ×")


def _memory(world: World, theirs_mb: float | None) -> Iterator[Row]:
    """The highest RSS: of a gateway over requests, a download and an upload; of mitmproxy over all of the above."""
    wrk = f"wrk -t1 -c{CONNECTIONS} -d{RATE_SECONDS} -H 'Authorization: Bearer {PLACEHOLDER}' https://{HOST}/"
    curl = f"curl -sS -H 'Authorization: Bearer {PLACEHOLDER}' -o /dev/null https://{HOST}"
    script = f"{{ {wrk}; {curl}/big; {curl}/upload -T upload; }} >/dev/null; echo done; read line"
    with held(world, ["sh", "-c", script], {"BENCH_TOKEN": VALUE}) as (said, pids):
        if said != "done":
            raise RuntimeError(f"the sandbox said {said!r}")
        peak = peak_memory_mb(pids[1:])
    reference = "" if theirs_mb is None else f"mitmproxy {theirs_mb:.0f} MB"
    yield Row(
        what=f"gateway under load, highest RSS ({CONNECTIONS} connections, bodies)",
        measured=f"{peak:.0f} MB",
        reference=reference,
    )
