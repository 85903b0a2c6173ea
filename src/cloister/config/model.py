"""The shape of `config.toml` and `cloister.toml`: names, types, defaults and words for each key.

Rule 1: an unknown key is an error; a value of another type is an error, never converted.
Rule 2: what a value *means* (a host, a size, a profile) is judged in `settings.py` and `rules.py`, which know
        the line. This module knows the shape alone, and is the source of docs/reference/configuration.md.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

USER_AND_PROJECT = "user, project"
USER_ONLY = "user"


def _key(
    kind: str, default: object, description: str, *, shown: str = "", where: str = USER_AND_PROJECT
) -> Any:
    """A key with what the reference says of it. Any: as pydantic's own `Field`."""
    words = {"kind": kind, "shown_default": shown or "none", "where": where}
    return Field(default=default, description=description, json_schema_extra=dict(words))


class Table(BaseModel):
    """A TOML table. Strict, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sandbox(Table):
    """What the sandbox is made of."""

    runtime: str | None = _key(
        "text",
        None,
        'What makes the sandbox: `"embedded"` (bubblewrap), `"docker"` or `"podman"`.',
        shown='`"embedded"`',
    )
    workspace: str | None = _key(
        "text",
        None,
        'How the workspace gets in: `"bind"` (itself), `"volume"` (a private copy) or `"clone"` (a private clone, '
        "which comes back as a branch).",
        shown='`"bind"`',
    )
    image: str | None = _key(
        "text", None, "The image of a container, of whatever origin.", shown="that of the project's language"
    )
    gateway: str | None = _key(
        "text",
        None,
        'Where the gateway of a container runs: `"host"`, or `"container"` (in one of the same engine; always if that '
        "is in a virtual machine).",
        shown='`"host"`',
    )
    tmp_exec: bool | None = _key(
        "true or false",
        None,
        "Whether programs in a container's `/tmp` may be run: `go run`, `go test` and some builds do.",
        shown="`false`",
    )
    profile: str | None = _key(
        "text",
        None,
        'What is reachable: `"offline"`, `"registries"`, `"agent"` or `"full"`.',
        shown='`"agent"`',
    )
    memory: str | None = _key(
        "text",
        None,
        'Limit of memory, as in `"512m"` or `"8g"`. Files in memory are held below it: `/tmp` takes at most half, '
        "`/var/tmp` a quarter, `/dev/shm` an eighth.",
        shown='`"8g"`',
    )
    cpus: float | None = _key("number", None, "Limit of processor time, in processors.", shown="`4`")
    pids: int | None = _key("integer", None, "Limit of processes and threads.", shown="`1024`")
    env: dict[str, str] = _key("table of texts", {}, "Environment variables set in the sandbox.")
    pass_env: list[str] = _key(
        "list of texts", [], "Environment variables of yours that the sandbox sees. Never name a secret here."
    )
    unmask: list[str] = _key(
        "list of texts",
        [],
        "Globs, relative to the workspace, of secret-looking files that the sandbox may read.",
    )
    protect: list[str] = _key(
        "list of texts", [], "Further paths, relative to the workspace, that the sandbox may not write."
    )
    read_only: list[str] = _key(
        "list of texts",
        [],
        "Directories and files of the host, absolute or `~/…`, that the sandbox may read.",
    )
    ports: object = _key(  # judged in `ports.py`: a list of integers and texts, or one text
        "list of ports",
        (),
        'Ports of servers in the sandbox that you reach on this machine\'s loopback: `3000`, `"8080:3000"` (at another '
        'port here), `"auto:3000"` (at the next free one), `"detect"` (those of the frameworks that the project uses).',
    )


class NetworkRule(Table):
    """One host with more conditions than `allow` can say."""

    host: str = Field(
        description="A name or `*.suffix`, without port.",
        json_schema_extra={"kind": "text", "shown_default": "required", "where": USER_AND_PROJECT},
    )
    ports: list[int] | None = _key(
        "list of integers",
        None,
        "Ports that the rule covers.",
        shown='`[80, 443]`; `[80]` with `scheme = "http"`',
    )
    transport: Literal["web", "tcp"] = _key(
        "text", "web", '`"web"`: TLS and HTTP. `"tcp"`: any protocol; needs `ports`.', shown='`"web"`'
    )
    scheme: Literal["http"] | None = _key("text", None, 'Only `"http"`: the ports are plain HTTP.')
    methods: list[str] = _key("list of texts", [], 'HTTP methods, as in `["GET", "HEAD"]`.', shown="any")
    paths: list[str] = _key(
        "list of texts",
        [],
        'Path globs: `*` within a segment, `**` for segments, as in `"/repos/acme/**"`.',
        shown="any",
    )
    addresses: list[str] = _key(
        "list of texts",
        [],
        "Private address ranges (CIDR) into which the name may resolve; public ones always may.",
    )
    effect: Literal["allow", "deny"] = _key(
        "text", "allow", '`"deny"` makes the rule a ban.', shown='`"allow"`'
    )


class Network(Table):
    """What the sandbox reaches. Everything else is refused."""

    allow: list[str] = _key(
        "list of texts", [], 'Hosts to allow: `"name"`, `"*.suffix"`, `"host:port"` or `"tcp://host:port"`.'
    )
    deny: list[str] = _key(
        "list of texts", [], "Hosts to ban, written as in `allow`; without a port, on every port. Bans win."
    )
    presets: list[str] = _key("list of texts", [], "Presets to allow beyond those of the profile; see below.")
    rule: list[NetworkRule] = _key("list of tables", [], "Rules with conditions; see below.")
    hosts: dict[str, str] = _key(
        "table of texts",
        {},
        'Where a name really is: `name = "address"`, `"address:port"` or `"[v6]:port"`. '
        "Pinned addresses may be private.",
        where=USER_ONLY,
    )
    passthrough: list[str] = _key(
        "list of texts",
        [],
        "Hosts that are never decrypted (clients that pin certificates, mutual TLS): judged by name alone, "
        "without credentials.",
    )
    upstream_ca: list[str] = _key(
        "list of texts",
        [],
        "PEM files of further certificate authorities, absolute or `~/…`.",
        where=USER_ONLY,
    )


class CredentialTable(Table):
    """A secret that the gateway holds. The sandbox sees a placeholder; the value goes into requests to these hosts."""

    name: str = Field(
        description="What it is called in logs and commands.",
        json_schema_extra={"kind": "text", "shown_default": "required", "where": USER_AND_PROJECT},
    )
    source: str = Field(
        description="Where its value is: `env:NAME`, `file:PATH`, `exec:ARGV`, `op://VAULT/ITEM/FIELD`, `gh:`, "
        "`keychain:SERVICE/ACCOUNT`, `pass:ENTRY`, `aws-sts:…`, `github-app:OWNER/REPO?…`. It is read on your machine, "
        "when it is needed: in a project's file it counts only once you have adopted it.",
        json_schema_extra={"kind": "text", "shown_default": "required", "where": USER_AND_PROJECT},
    )
    preset: str | None = _key(
        "text", None, "A preset that fills hosts, inject, env, files and placeholder; see below."
    )
    hosts: list[str] = _key(
        "list of texts", [], 'Where it goes: `"name"`, `"*.suffix"` or `"host:port"`.', shown="the preset's"
    )
    inject: str | None = _key(
        "text",
        None,
        'Where in a request: `"bearer"`, `"basic:USER"`, `"header:NAME"`, `"header:NAME:TEMPLATE with {}"`, '
        '`"query:NAME"`, `"replace"` (wherever the placeholder stands) or `"aws-sigv4"`.',
        shown="the preset's",
    )
    env: str | list[str] | None = _key(
        "list of texts",
        None,
        "The variable, or variables, that hold the placeholder in the sandbox. What `[sandbox] env` says wins.",
        shown="the preset's",
    )
    placeholder: str | None = _key(
        "text",
        None,
        "The placeholder's shape, or the placeholder itself.",
        shown='the preset\'s, or `"plain"`',
    )
    files: dict[str, str] | None = _key(
        "table of texts",
        None,
        "Files of the sandbox's home with `{placeholder}` in them, read-only.",
        shown="the preset's",
    )
    confirm: bool = _key("true or false", False, "Ask the user at its first use.", shown="`false`")
    repositories: list[str] = _key(
        "list of texts", [], 'Only for these (GitHub, GitLab): `"owner/name"` or `"owner/*"`.', shown="any"
    )
    read_only: bool = _key(
        "true or false",
        False,
        "Only for fetching: no pushes, GET, HEAD and OPTIONS elsewhere.",
        shown="`false`",
    )
    paths: list[str] = _key("list of texts", [], "Only for these paths; globs as in a rule.", shown="any")


class Git(Table):
    """What git may push through the gateway. Nothing, unless it stands here.

    Where two files disagree on `delete` or `force`, the stricter one counts.
    """

    push: list[str] = _key("list of texts", [], 'Refs that may be pushed to, as in `["refs/heads/agent/*"]`.')
    delete: bool | None = _key("true or false", None, "They may be deleted too.", shown="`false`")
    force: bool | None = _key(
        "true or false", None, "They may be moved to what does not follow them.", shown="`false`"
    )
    ssh_to_https: bool | None = _key(
        "true or false", None, "SSH addresses of forges are reached over HTTPS.", shown="`true`"
    )


class Ssh(Table):
    """Your SSH agent, filtered: the sandbox can have signatures of these keys for these hosts, and nothing else.

    Where two files disagree on `agent` or `confirm`, the stricter one counts.
    """

    agent: bool | None = _key("true or false", None, "Forward it. Needs `keys` and `hosts`.", shown="`false`")
    keys: list[str] = _key(
        "list of texts", [], "Keys that may sign: the fingerprint or the comment that `ssh-add -l` prints."
    )
    hosts: list[str] = _key(
        "list of texts", [], "Hosts that they may sign for, by your `known_hosts`; the port needs a rule."
    )
    confirm: bool | None = _key("true or false", None, "Ask for each signature.", shown="`true`")


class Packages(Table):
    """Whether installing may run what it installs. These are defaults for the package managers, not walls.

    A project's value wins over yours. What a manager is told under which key stands below.
    """

    install_scripts: bool | None = _key(
        "true or false",
        None,
        "Packages of npm, pnpm, Yarn and Bun may run their scripts when they are installed. For one of them: "
        "`npm rebuild NAME --ignore-scripts=false`.",
        shown="`false`",
    )
    sdists: bool | None = _key(
        "true or false",
        None,
        "pip, uv and Poetry may build source distributions, which run their own code. For one of them: "
        "`pip install --no-binary NAME NAME`.",
        shown="`false`",
    )
    minimum_age_days: int | None = _key(
        "integer",
        None,
        "Versions younger than this are not chosen, where the manager can be told so.",
        shown="the managers' own",
    )


class ServiceTable(Table):
    """A container beside the sandbox (a database, a broker), which reaches it as `NAME:PORT` and in no other way.

    It is started once for all worktrees of a repository, with the first sandbox that declares it, and stopped with the
    last. Services see each other and nothing else: they have no way out. In the profiles `agent` and `full` only.
    """

    image: str | None = _key("text", None, 'The image, as in `"postgres:16"`.')
    port: int | None = _key("integer", None, "The port that it listens on.")
    ports: list[int] = _key("list of integers", [], "The ports, if there are several.")
    env: dict[str, str] = _key("table of texts", {}, "Its environment.")
    env_from: dict[str, str] = _key(
        "table of texts", {}, "Variables whose values are secret: where each is, as a credential's `source`."
    )
    volume: str | None = _key(
        "text",
        None,
        "The directory of its data, kept in a volume. What lies elsewhere ends with the container.",
    )
    command: list[str] = _key("list of texts", [], "Its command and arguments.", shown="the image's")
    health: object = _key(  # judged in `services.py`: a text or a list
        "text or list of texts",
        None,
        'When it is ready: `"tcp"` (it takes connections), or a command that succeeds in it.',
        shown='the image\'s check, else `"tcp"`',
    )
    health_timeout: int | None = _key("integer", None, "Seconds to wait for that.", shown="`60`")
    keep: bool = _key("true or false", False, "It runs on when no sandbox uses it any more.", shown="`false`")
    unsafe_egress: bool = _key(
        "true or false",
        False,
        "It may reach the Internet, and so may whoever can make it run a command. Needed where the engine is not on "
        "this machine's own network (rootless, Docker Desktop, OrbStack).",
        shown="`false`",
    )
    compose_network: str | None = _key(
        "text", None, "Instead of `image`: the network of a container that is there already."
    )
    container: str | None = _key("text", None, "That container's name.")


class Document(Table):
    """A whole configuration file."""

    sandbox: Sandbox = Field(default_factory=Sandbox)
    network: Network = Field(default_factory=Network)
    credential: list[CredentialTable] = _key(
        "list of tables", [], "Secrets that the gateway holds; see below."
    )
    git: Git = Field(default_factory=Git)
    ssh: Ssh = Field(default_factory=Ssh)
    packages: Packages = Field(default_factory=Packages)
    services: dict[str, ServiceTable] = _key("table", {}, "Containers that the sandbox reaches; see below.")
