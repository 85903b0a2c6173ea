"""Render everything about one credential, for `cloister secret explain`. Values are not known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloister.config.wording import visible
from cloister.errors import UntrustedInputError
from cloister.policy.codec import parse_policy
from cloister.policy.decide import Splice, treatment
from cloister.policy.names import parse_host
from cloister.types import (
    AwsSignature,
    BasicInjection,
    Binding,
    Credential,
    Deny,
    HeaderInjection,
    Policy,
    QueryInjection,
    Reach,
    Replacement,
)


def page(credential: Credential, plan: Mapping[str, object]) -> str:
    """The credential for people."""
    policy = parse_policy(plan["policy"])
    lines = [f'credential "{credential.name}"', f"  value from   {visible(credential.source)}"]
    lines.append(f"  asks you     {_asks(credential)}")
    lines += ["", "goes to"]
    for binding in credential.bindings:
        lines.append(f"  {_target(binding)}  {how(binding)}")
        lines += [f"    {text}" for text in _unreachable(policy, binding, str(plan["profile"]))]
    lines += ["", "what the sandbox sees", *(f"  {line}" for line in _seen(credential, plan))]
    lines += [
        "",
        "what is refused, or goes without it",
        *(f"  {line}" for line in _refused(credential, policy)),
    ]
    lines += ["", f"whether it works: cloister secret test {credential.name}"]
    return "\n".join(lines)


def how(binding: Binding) -> str:
    """Where in a request the value stands, with "…" for it."""
    match binding.injection:
        case HeaderInjection(name=name, template=template):
            return f"header {name}: {template.replace('{}', '…')}"
        case BasicInjection(user=user):
            return f"header authorization: Basic (user {user!r}, password …)"
        case QueryInjection(name=name):
            return f"query parameter {name}=…"
        case Replacement():
            return "wherever the placeholder stands"
        case AwsSignature():
            return "the request is signed anew (AWS SigV4)"


def _target(binding: Binding) -> str:
    ports = ",".join(str(port) for port in sorted(binding.ports))
    paths = f" {' '.join(binding.paths)}" if binding.paths else ""
    return f"{binding.pattern} :{ports}{paths}"


def _asks(credential: Credential) -> str:
    if credential.confirm:
        return f"before its first use in each sandbox; to answer: cloister approve {credential.name}"
    return "never (confirm = true would)"


def _unreachable(policy: Policy, binding: Binding, profile: str) -> Iterable[str]:
    """Why a request there would not arrive at all, or not be decrypted."""
    if binding.pattern.reach is not Reach.EXACT:
        return
    try:
        host = parse_host(binding.pattern.name)
    except UntrustedInputError:
        return
    for port in sorted(binding.ports):
        match treatment(policy, host, port):
            case Deny(reason=reason):
                yield f"not reachable with profile {profile}: {reason}"
            case Splice():
                yield "passed through undecrypted: the credential is not used there"
            case _:
                continue


def _seen(credential: Credential, plan: Mapping[str, object]) -> Iterable[str]:
    yield f"placeholder {visible(credential.placeholder)}"
    sandbox = plan["sandbox"]
    for kind, text in (("environment", "variable"), ("files", "file")):
        entries = sandbox.get(kind) if isinstance(sandbox, dict) else None
        for name, content in entries.items() if isinstance(entries, dict) else ():
            if credential.placeholder in str(content):
                yield f"{text} {visible(str(name))}"


def _refused(credential: Credential, policy: Policy) -> Iterable[str]:
    yield "the placeholder on its way to another host whose requests are read: refused, and an alarm"
    yield "the placeholder within TLS that is passed through by name: not seen, and worth nothing there"
    yield "the placeholder without TLS: refused, and an alarm"
    yield "an upstream whose certificate does not verify: refused"
    if credential.repositories:
        yield f"requests about other repositories than {', '.join(credential.repositories)}: without it"
    if any(binding.paths for binding in credential.bindings):
        yield "requests for other paths than those above: without it"
    if credential.read_only:
        yield "requests that write (other methods than GET, HEAD and OPTIONS; pushes): refused"
    if any(isinstance(binding.injection, BasicInjection) for binding in credential.bindings):
        refs = ", ".join(policy.push.refs) or "none ([git] push names them)"
        yield f"git pushes to other refs than: {refs}"
