"""Judge what the sandbox asks of the user's SSH agent (draft-ietf-sshm-ssh-agent; OpenSSH's PROTOCOL.agent).

Rule 1: two questions are answered: which keys there are (the named ones), and a signature by one of them that logs in
        to one of the named hosts. Everything else fails: adding, removing, locking, other extensions.
Rule 2: which host it is, the client must prove: `session-bind@openssh.com` carries the host's signature of the session,
        and what is to be signed must be a log-in within that very session.
Rule 3: no I/O. An answer of the agent's is filtered too.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from cloister.errors import UntrustedInputError
from cloister.sshagent.wire import Reader, string

FAILURE, SUCCESS = b"\x05", b"\x06"
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
_SIGN_REQUEST, _EXTENSION = 13, 27
_USERAUTH_REQUEST = 50
_SESSION_BIND = b"session-bind@openssh.com"
_HOST_BOUND = b"publickey-hostbound-v00@openssh.com"
_KEYS_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRules:
    """Keys by fingerprint ("SHA256:…") or comment, and the blobs of the hosts' keys."""

    keys: frozenset[str]
    host_keys: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Pass this message to the agent; its answer goes through `Filter.identities` if `lists`."""

    message: bytes
    lists: bool = False
    signs: str = ""  # the fingerprint of the key that is to sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer this at once. `reason` says why, if it is a refusal."""

    message: bytes
    reason: str = ""


@dataclass(slots=True)
class Filter:
    """One connection. `comments` are those of the agent's keys, learnt from its own list."""

    rules: AgentRules
    comments: dict[bytes, str] = field(default_factory=dict)
    _bound: tuple[bytes, bytes] | None = None  # host key, session id
    _forwarded: bool = False

    def request(self, untrusted: bytes) -> Forward | Answer:
        """What becomes of a message."""
        try:
            kind = untrusted[0] if untrusted else 0
            if kind == _REQUEST_IDENTITIES and len(untrusted) == 1:
                return Forward(message=untrusted, lists=True)
            if kind == _SIGN_REQUEST:
                return self._sign(untrusted)
            if kind == _EXTENSION:
                return self._extension(untrusted)
        except UntrustedInputError as error:
            return Answer(message=FAILURE, reason=str(error))
        return Answer(message=FAILURE, reason=f"a request of type {kind}, which is none of a sandbox's")

    def identities(self, answer: bytes) -> bytes:
        """The agent's list, without the keys that are not named. UntrustedInputError if it is none."""
        reader = Reader(answer)
        if reader.byte() != _IDENTITIES_ANSWER:
            return FAILURE
        count = reader.number()
        if count > _KEYS_LIMIT:
            raise UntrustedInputError("the agent has too many keys")
        shown = []
        for _ in range(count):
            blob, comment = reader.string(), reader.string()
            self.comments[blob] = comment.decode("utf-8", "replace")
            if self._is_named(blob):
                shown.append(string(blob) + string(comment))
        return bytes([_IDENTITIES_ANSWER]) + len(shown).to_bytes(4, "big") + b"".join(shown)

    def _is_named(self, blob: bytes) -> bool:
        return fingerprint(blob) in self.rules.keys or self.comments.get(blob, "\0") in self.rules.keys

    def _sign(self, untrusted: bytes) -> Forward | Answer:
        reader = Reader(untrusted[1:])
        blob, data = reader.string(), reader.string()
        reader.number()
        reader.end()
        name = fingerprint(blob)
        if not self._is_named(blob):
            return Answer(message=FAILURE, reason=f"the key {name} is not named in [ssh] keys")
        if self._bound is None:
            return Answer(
                message=FAILURE, reason="the client does not say for which host it signs (OpenSSH 8.9 does)"
            )
        if self._forwarded:
            return Answer(message=FAILURE, reason="the agent is not forwarded any further")
        host_key, session = self._bound
        if host_key not in self.rules.host_keys:
            return Answer(message=FAILURE, reason="the host is none of [ssh] hosts, by your known_hosts")
        _check_login(data, blob=blob, session=session, host_key=host_key)
        return Forward(message=untrusted, signs=self.comments.get(blob) or name)

    def _extension(self, untrusted: bytes) -> Answer:
        reader = Reader(untrusted[1:])
        if reader.string() != _SESSION_BIND:
            return Answer(message=FAILURE, reason="an extension that is not known here")
        host_key, session, signature = reader.string(), reader.string(), reader.string()
        forwarding = reader.byte() != 0
        reader.end()
        if self._bound is not None:  # a second hop: the agent was forwarded
            self._forwarded = True
            return Answer(message=FAILURE, reason="the connection to the agent is bound already")
        if not verifies(host_key, signature, session):
            return Answer(message=FAILURE, reason="the host's signature of the session does not verify")
        self._bound = (host_key, session)
        self._forwarded = forwarding
        return Answer(message=SUCCESS)


def fingerprint(blob: bytes) -> str:
    """As `ssh-add -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=")
    return f"SHA256:{digest.decode()}"


def verifies(host_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether a host's key made this signature. Certificates of hosts are not known here: False."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        kind = Reader(host_key).string()
        key = load_ssh_public_key(kind + b" " + base64.b64encode(host_key))
        reader = Reader(signature)
        algorithm, value = reader.string(), reader.string()
        match key:
            case ed25519.Ed25519PublicKey() if algorithm == b"ssh-ed25519":
                key.verify(value, data)
            case ec.EllipticCurvePublicKey() if algorithm == kind:
                parts = Reader(value)
                r, s = (int.from_bytes(parts.string(), "big") for _ in range(2))
                digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[
                    key.curve.key_size
                ]
                key.verify(encode_dss_signature(r, s), data, ec.ECDSA(digest))
            case rsa.RSAPublicKey() if algorithm in (b"rsa-sha2-256", b"rsa-sha2-512"):
                hash_ = hashes.SHA256() if algorithm.endswith(b"256") else hashes.SHA512()
                key.verify(value, data, padding.PKCS1v15(), hash_)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, KeyError, UntrustedInputError):
        return False
    return True


def _check_login(data: bytes, *, blob: bytes, session: bytes, host_key: bytes) -> None:
    """Whether `data` is a log-in by this key within that session (RFC 4252 section 7). UntrustedInputError if not."""
    reader = Reader(data)
    if reader.string() != session or reader.byte() != _USERAUTH_REQUEST:
        raise UntrustedInputError("what is to be signed is no log-in of this session")
    reader.string()  # the user's name there
    if reader.string() != b"ssh-connection":
        raise UntrustedInputError("what is to be signed is no log-in of this session")
    method = reader.string()
    if method not in (b"publickey", _HOST_BOUND) or reader.byte() != 1:
        raise UntrustedInputError("what is to be signed is no log-in of this session")
    reader.string()  # the signature's algorithm
    if reader.string() != blob:
        raise UntrustedInputError("the log-in is by another key")
    if method == _HOST_BOUND and reader.string() != host_key:
        raise UntrustedInputError("the log-in is for another host")
    reader.end()
