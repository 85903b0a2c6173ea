"""The canaries of one run: where they lie, what they look like, and who may open one without a bad intent.

Rule 1: every value is new for every run, made of the caller's randomness; nothing accepts any of them.
Rule 2: a file names no host that an installer talks to, so that none sends it there on its own (npm would send a
        token for registry.npmjs.org with every request).
Rule 3: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloister.credentials import placeholder

Randomness = Callable[[], bytes]

_NODE = frozenset({"npm", "npx", "pnpm", "pnpx", "yarn", "yarnpkg", "bun", "bunx", "corepack", "node-gyp"})
_NETRC = frozenset(
    {"pip", "pip3", "uv", "uvx", "poetry", "pdm", "git", "git-remote-https", "curl", "go", "mix", "hg"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A file (`path`, "~/…" or "./…") or a variable of the environment (`variable`).

    `texts` give it away. `private`: no installer has a reason to open it. `readers` are programs that open it as a
    matter of course, `homes` hosts to which a tool would send the real one for a good reason.
    """

    name: str
    texts: tuple[str, ...]
    path: str = ""
    content: str = ""
    variable: str = ""
    private: bool = False
    readers: frozenset[str] = frozenset()
    homes: tuple[str, ...] = ()


def make(randomness: Randomness) -> tuple[Canary, ...]:
    """A fresh set. `randomness` gives at least 16 new bytes at each call."""

    def token(shape: str) -> str:
        return placeholder.make(shape, randomness())

    return (
        *_files(token, randomness),
        *(
            Canary(name=f"${name}", variable=name, texts=(text := token(shape),), content=text, homes=homes)
            for name, shape, homes in _VARIABLES
        ),
    )


_GITHUB = ("github.com", "api.github.com", "codeload.github.com", "raw.githubusercontent.com")
_VARIABLES = (
    ("GITHUB_TOKEN", "github", _GITHUB),
    ("NPM_TOKEN", "npm", ("registry.npmjs.org",)),
    ("AWS_ACCESS_KEY_ID", "aws-key-id", ()),
    ("AWS_SECRET_ACCESS_KEY", "aws-secret", ()),
    ("ANTHROPIC_API_KEY", "anthropic", ()),
    ("OPENAI_API_KEY", "openai", ()),
    ("SLACK_BOT_TOKEN", "slack", ()),
    ("STRIPE_SECRET_KEY", "stripe", ()),
)


def _files(token: Callable[[str], str], randomness: Randomness) -> tuple[Canary, ...]:
    key, lines = _ssh_key(randomness)
    key_id, secret = token("aws-key-id"), token("aws-secret")
    npm, gh, netrc, git = token("npm"), token("github"), token("github-fine"), token("github")
    pypi, docker, kube, cargo = token("pypi"), token("docker"), token("jwt"), token("crates")
    claude, gcloud, database = token("anthropic-oauth"), token("google"), token("hex")

    def private(name: str, path: str, content: str, *texts: str, readers: tuple[str, ...] = ()) -> Canary:
        return Canary(
            name=name, path=path, content=content, texts=texts, private=True, readers=frozenset(readers)
        )

    return (
        private("ssh-key", "~/.ssh/id_ed25519", key, *lines, readers=("ssh", "ssh-add")),
        private(
            "aws", "~/.aws/credentials",
            f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n", key_id, secret,
            readers=("aws",),
        ),
        private(
            "gh", "~/.config/gh/hosts.yml",
            f"github.com:\n    user: dev\n    oauth_token: {gh}\n    git_protocol: https\n", gh, readers=("gh",),
        ),
        private("git", "~/.git-credentials", f"https://dev:{git}@github.com\n", git),
        private(
            "pypirc", "~/.pypirc", f"[pypi]\nusername = __token__\npassword = {pypi}\n", pypi, readers=("twine",)
        ),
        private(
            "docker", "~/.docker/config.json",
            f'{{"auths": {{"docker.internal.example": {{"username": "dev", "password": "{docker}"}}}}}}\n', docker,
            readers=("docker",),
        ),
        private(
            "kube", "~/.kube/config",
            f"apiVersion: v1\nkind: Config\nusers:\n- name: dev\n  user:\n    token: {kube}\n", kube.rpartition(".")[2],
            readers=("kubectl", "helm"),
        ),
        private(
            "gcloud", "~/.config/gcloud/application_default_credentials.json",
            f'{{"type": "authorized_user", "client_id": "dev", "refresh_token": "{gcloud}"}}\n', gcloud,
        ),
        private(
            "claude", "~/.claude/.credentials.json",
            f'{{"claudeAiOauth": {{"accessToken": "{claude}", "scopes": ["user:inference"]}}}}\n', claude,
            readers=("claude",),
        ),
        Canary(
            name="npmrc", path="~/.npmrc", content=f"//npm.internal.example/:_authToken={npm}\n", texts=(npm,),
            readers=_NODE,
        ),
        Canary(
            name="netrc", path="~/.netrc", content=f"machine git.internal.example login dev password {netrc}\n",
            texts=(netrc,), readers=_NETRC,
        ),
        Canary(
            name="cargo", path="~/.cargo/credentials.toml",
            content=f'[registries.internal]\ntoken = "{cargo}"\n', texts=(cargo,), readers=frozenset({"cargo"}),
        ),
        Canary(
            name="dotenv", path="./.env",
            content=f"DATABASE_URL=postgres://app:{database}@db.internal.example:5432/app\n", texts=(database,),
        ),
    )  # fmt: skip


def _ssh_key(randomness: Randomness) -> tuple[str, tuple[str, ...]]:
    """A key that is well-formed, and the lines of it that nobody could have guessed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    seed = (randomness() + randomness())[:32]
    private = Ed25519PrivateKey.from_private_bytes(seed)
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    body = text.splitlines()[1:-1]
    return text, tuple(line for line in body[2:] if len(line) >= 40)


def texts(canaries: tuple[Canary, ...]) -> dict[str, tuple[str, ...]]:
    """For `credentials.canary`: name → what gives it away."""
    return {one.name: one.texts for one in canaries}
