"""The sandbox's environment variables, from an allow-list.

Rule 1: nothing of the host's environment passes that is not named here or in `pass_environment`.
Rule 2: what a dynamic loader obeys never passes from the host, whoever names it.
Rule 3: the user's own `environment` wins over ours, but for the sandbox's id.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.sandbox.facts import Facts
    from cloister.sandbox.toolchains import Toolchains

PASSED = (
    "TERM", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "LANG", "LANGUAGE", "TZ", "NO_COLOR",
    "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "EDITOR", "VISUAL", "PAGER", "LESS",
    "CI",
)  # fmt: skip
# Of these, an `exec` brings its caller's: they tell of the terminal.
TERMINAL = (
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
)
PASSED_PREFIXES = ("LC_",)
NEVER_PREFIXES = ("LD_", "GLIBC_", "BASH_FUNC_")

PROXY = "http://127.0.0.1:3128"
PROXY_VARIABLES = (
    "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip
NOT_PROXIED = "localhost,127.0.0.1,::1"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
TRUST_VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL, Python, Go, Ruby, rustls-native-certs
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "HEX_CACERTS_PATH",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)
# Go asks git about the repository that it builds in, and fails where .git is there and is none: a placeholder.
NO_REPOSITORY = {"GOFLAGS": "-buildvcs=false"}
TRUST_STORE = "/run/cloister/truststore.p12"
SSH_AGENT = "/run/cloister/ssh-agent.sock"  # the filtered one: sshagent/
JAVA_OPTIONS = (
    f"-Djavax.net.ssl.trustStore={TRUST_STORE} -Djavax.net.ssl.trustStoreType=PKCS12"
    " -Djavax.net.ssl.trustStorePassword=changeit"
)


def variables(
    *,
    facts: Facts,
    toolchains: Toolchains,
    sandbox_id: str,
    passed: Sequence[str] = (),
    chosen: Mapping[str, str] | None = None,
    packages: Mapping[str, str] | None = None,
    trust_store: bool = False,
    ssh_agent: bool = False,
) -> tuple[tuple[str, str], ...]:
    """Put the environment together, sorted by name.

    `passed` and `chosen` are the plan's `pass_environment` and `environment`, `packages` what package
    managers are told. `trust_store`: the gateway
    writes TRUST_STORE, so a JVM can be told to read it. `ssh_agent`: somebody listens at SSH_AGENT.
    """
    host = facts.environ
    found = {name: host[name] for name in PASSED if name in host}
    found |= {name: value for name, value in host.items() if name.startswith(PASSED_PREFIXES)}
    found |= dict(toolchains.variables)
    found |= {
        "HOME": facts.home,
        "USER": facts.user_name,
        "LOGNAME": facts.user_name,
        "SHELL": _shell(host.get("SHELL", "")),
        "PATH": ":".join(toolchains.path),
        "XDG_RUNTIME_DIR": f"/run/user/{facts.uid}",
        "NO_PROXY": NOT_PROXIED,
        "no_proxy": NOT_PROXIED,
        "NODE_USE_ENV_PROXY": "1",
        "DENO_TLS_CA_STORE": "system,mozilla",
    }
    found |= dict.fromkeys(PROXY_VARIABLES, PROXY)
    found |= dict.fromkeys(TRUST_VARIABLES, CA_BUNDLE)
    found |= dict(packages or {})
    if trust_store and toolchains.has_java:
        found["JAVA_TOOL_OPTIONS"] = JAVA_OPTIONS
    found |= {name: host[name] for name in passed if name in host}
    found = {name: value for name, value in found.items() if not name.startswith(NEVER_PREFIXES)}
    found |= dict(chosen or {})
    if ssh_agent:
        found["SSH_AUTH_SOCK"] = SSH_AGENT
    found["CLOISTER_SANDBOX"] = sandbox_id
    return tuple(sorted((name, value) for name, value in found.items() if _is_representable(name, value)))


def _shell(host: str) -> str:
    """Keep the user's shell if the sandbox has it; every sandbox has /bin/sh."""
    return host if host.startswith(("/bin/", "/usr/bin/", "/usr/local/bin/")) else "/bin/sh"


def _is_representable(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name and "\0" not in value
