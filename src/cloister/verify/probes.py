"""The probes: what each claims, how it is attacked, and which weakened sandbox must breach it.

Rule 1: a probe counts only with a mutation: tests/verify runs a sandbox that is weakened in that way, and it must say
        "breached". A test compares this list with the mutations and with inside/.
Rule 2: no I/O. docs/threat-model.md is made of this list.

Ids are those of docs/architecture.md's table; SECRET-1 and AUDIT-1 are the promises that no single attack stands for.
"""

from __future__ import annotations

from cloister.values import dataclass

EXIT, SECRETS, PLANTING, KERNEL, SILENCE = "no exit", "no secrets", "no planting", "confinement", "no silence"
AVAILABILITY = "availability"
INSIDE, HOST = "inside", "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One claim. `own_origin`: it needs the names of a verification's own origins, so not in a user's live sandbox.

    `sides`: who attacks, a process in the sandbox (inside/), the host with commands of its own (outside/), or both.
    `also`: further weakened sandboxes that it must find.
    """

    id: str
    promise: str
    claim: str
    attack: str
    mutation: str
    own_origin: bool = True
    sides: tuple[str, ...] = (INSIDE,)
    also: tuple[str, ...] = ()

    @property
    def mutations(self) -> tuple[str, ...]:
        """Every weakened sandbox that it must find."""
        return (self.mutation, *self.also)


def _probe(
    name: str,
    promise: str,
    claim: str,
    attack: str,
    mutation: str,
    *,
    own_origin: bool = True,
    sides: tuple[str, ...] = (INSIDE,),
    also: tuple[str, ...] = (),
) -> Probe:
    return Probe(
        id=name,
        promise=promise,
        claim=claim,
        attack=attack,
        mutation=mutation,
        own_origin=own_origin,
        sides=sides,
        also=also,
    )


PROBES: tuple[Probe, ...] = (
    _probe(
        "NET-1", EXIT, "A name that no rule grants is not reached, with the proxy or without it.",
        "connect directly, by CONNECT, and to an address with that name inside", "allow-all", own_origin=False,
    ),
    _probe(
        "NET-2", EXIT, "A port that no rule names is refused at once.",
        "connect to ports of public addresses", "forwarded-port", own_origin=False,
    ),
    _probe(
        "NET-3", EXIT, "No datagram and no raw packet leaves.",
        "UDP to the host and the Internet, ICMP, SCTP, raw sockets", "forwarded-port", own_origin=False,
    ),
    _probe(
        "NET-4", EXIT, "DNS answers granted names alone and carries nothing outside.",
        "other names, data in labels, other resolvers on UDP, TCP and TLS, TXT", "allow-all", own_origin=False,
    ),
    _probe(
        "NET-5", EXIT, "IPv6 is held as IPv4 is.", "the attacks of NET-1 and NET-2 over IPv6", "allow-all",
        own_origin=False,
    ),
    _probe(
        "NET-6", EXIT, "The sandbox cannot change its network.",
        "set flags, add a route, add a link", "owner-of-network", own_origin=False,
    ),
    _probe(
        "NET-7", EXIT, "The host's own services are out of reach.",
        "the host's loopback and addresses, the gateway's control socket", "forwarded-port", own_origin=False,
    ),
    _probe(
        "NET-8", EXIT, "Without its gateway nothing leaves the sandbox, and it does not live on.",
        "the gateway stopped, then killed, in a throw-away sandbox that asks again and again", "second-way-out",
        sides=(HOST,),
    ),
    _probe(
        "NET-9", EXIT, "A policy that is empty or cannot be read grants nothing; a new one counts from the next start.",
        "start with broken, half-written and empty policies, and a damaged plan; change the file meanwhile",
        "lenient-configuration", sides=(HOST,), also=("allow-all",),
    ),
    _probe(
        "NAME-1", EXIT, "A name with odd bytes is no name.", "CONNECT with NUL, control bytes, empty labels",
        "lenient-names",
        own_origin=False,
    ),
    _probe(
        "NAME-2", EXIT, "What looks like a granted name is not granted.",
        "prefixes, suffixes, subdomains, the apex, look-alikes", "allow-all",
    ),
    _probe(
        "NAME-3", EXIT, "An address is no name, in any spelling.",
        "CONNECT to decimal, hexadecimal, octal, mapped and translated loopback addresses", "lenient-names",
        own_origin=False,
    ),
    _probe(
        "NAME-4", EXIT, "Metadata services of clouds are out of reach.",
        "CONNECT and connect to their addresses and names", "lenient-names",
        own_origin=False,
    ),
    _probe(
        "NAME-5", EXIT, "A granted name does not lead to a private address, at first or later.",
        "names that resolve to private, loopback and metadata addresses, to both kinds, to another the next time",
        "unguarded",
    ),
    _probe(
        "TLS-1", EXIT, "What is not TLS does not pass where TLS was granted.",
        "SSH and broken records within CONNECT to port 443", "raw-tunnel",
    ),
    _probe(
        "TLS-2", EXIT, "TLS passes by one server name that can be read, and by nothing else.",
        "hellos without a name, with two, an address, an encrypted one; in many records", "raw-tunnel",
        also=("lenient-hellos",),
    ),
    _probe(
        "TLS-3", EXIT, "A name and an address that do not belong together do not pass.",
        "another name at a granted one's address, a granted name at another address", "raw-tunnel",
    ),
    _probe(
        "TLS-4", EXIT, "A tunnel within a tunnel leads nowhere else.",
        "CONNECT within CONNECT, TLS and cleartext, the proxy by way of itself, a relay of the sandbox's own",
        "nested-tunnel",
    ),
    _probe(
        "ID-1", SECRETS, "Host, server name and destination are one, or nothing is sent.",
        "a Host or a server name that differs from the destination", "follows-host-header",
    ),
    _probe(
        "ID-2", SECRETS, "Each request on a connection is judged anew.",
        "a second request for another host", "follows-host-header",
    ),
    _probe(
        "ID-3", SECRETS, "An absolute target within a tunnel does not lead elsewhere.",
        "absolute form for another host", "follows-host-header",
    ),
    _probe("ID-4", SECRETS, "A request has one Host.", "two Host lines", "lenient-parser"),
    _probe(
        "ID-5", SECRETS, "A placeholder goes to no host that its credential is not bound to.",
        "in header, Basic, query, path; in bodies: form, JSON, gzip, split; in messages of WebSockets", "unwatched",
    ),
    _probe(
        "ID-6", SECRETS, "A redirect takes no credential to another host.",
        "redirects to other hosts: the gateway follows, a client follows, with its header and without",
        "bound-to-all",
        also=("follows-redirects", ),
    ),
    _probe(
        "ID-7", SECRETS, "What the client puts where the credential goes is dropped.",
        "the injected header in odd case, and twice", "keeps-client-header",
    ),
    _probe(
        "ID-8", SECRETS, "The proxy's own headers do not go upstream.", "Proxy-Authorization", "keeps-hop-headers",
    ),
    _probe(
        "ID-9", SECRETS, "An upstream that echoes the credential is masked.",
        "an echo in head, body, trailer, redirect and WebSocket; in base64, also in lines, compressed, split",
        "unwatched",
    ),
    _probe(
        "ID-10", SECRETS, "A credential whose value or file is no good is not sent.",
        "CR, LF, NUL in a value; a file that is a link, a FIFO, empty, or readable by all", "any-value",
    ),
    _probe(
        "ID-11", SECRETS, "No credential goes over cleartext, nor to an upstream that does not verify.",
        "the placeholder over HTTP; certificates for another name, expired, of nobody's authority", "unverified",
        also=("unwatched", ),
    ),
    _probe(
        "ID-12", SECRETS, "Two credentials for one place of a host are refused: order never chooses.",
        "load such configurations, on the host, with the loader of every start", "undisputed", sides=(HOST,),
    ),
    _probe(
        "SECRET-1", SECRETS, "A credential's value is nowhere in the sandbox.",
        "search environments, files and the memory of every process, from inside and from outside", "value-inside",
    ),
    _probe(
        "HTTP-1", EXIT, "A body has one length.", "Content-Length against Transfer-Encoding, twice, identity",
        "lenient-parser",
    ),
    _probe(
        "HTTP-2", EXIT, "A head that can be read in two ways is refused.",
        "a space before the colon, folding, bare line feeds, NUL", "lenient-parser",
    ),
    _probe(
        "HTTP-3", EXIT, "A body is what its framing says, and no more; what was cut is not taken for whole.",
        "chunk sizes, extensions, trailers, bodies and answers that are shorter or longer than they say",
        "lenient-bodies",
        also=("forwards-trailers", "forwards-extensions", "lenient-answers", "any-path"),
    ),
    _probe("HTTP-4", EXIT, "A rule's paths cannot be dodged.", "dots, escapes, slashes, parameters", "any-path"),
    _probe(
        "HTTP-5", EXIT, "HTTP/2 is judged as HTTP/1.1 is, is not spoken unasked, and cannot be used to flood.",
        "pseudo-headers, line ends in values, lengths, h2c, prior knowledge; resets, CONTINUATION, pings", "lenient-h2",
        also=("endures-floods", "unjudged-h2", "h2-unasked"),
    ),
    _probe(
        "HTTP-6", EXIT, "Only a WebSocket that was asked for and accepted switches protocols.",
        "a 101 unasked, a wrong key, other protocols, bytes behind an upgrade that is none", "any-upgrade",
        also=("any-path", ),
    ),
    _probe("HTTP-7", EXIT, "A rule's methods cannot be dodged.", "another method, override headers", "any-method"),
    _probe(
        "FS-1", PLANTING, "What the host executes on its own cannot be planted.",
        "git's settings, hooks, modules and nested repositories, editors' and agents' settings; there or new; written,"
        " replaced, linked, renamed; during a session, and what is left at its end",
        "unprotected", sides=(INSIDE, HOST), also=("unswept",), own_origin=False,
    ),
    _probe(
        "CFG-1", PLANTING, "The sandbox cannot change its own configuration.",
        "write, replace and remove cloister.toml", "unprotected", own_origin=False,
    ),
    _probe(
        "CFG-2", KERNEL, "Nothing that others write becomes an option of what makes the sandbox.",
        "words of commands, values, a hostile devcontainer.json; with an engine, an image with its own user, entry"
        " point, volumes, variables and labels", "smuggled-options", sides=(HOST,),
    ),
    _probe(
        "CFG-3", KERNEL, "A project's or a sandbox's name is nothing but a name.",
        "names that lead elsewhere, look like options, hold quotes, or are very long, through the real command",
        "any-name", sides=(HOST,),
    ),
    _probe(
        "FS-2", SECRETS, "No link leads out of the workspace.",
        "symbolic and hard links, .., /proc/self/root, magic links", "home-shown", own_origin=False,
    ),
    _probe(
        "FS-3", SECRETS, "The host's home and other projects are invisible.",
        "read known places, and look everywhere", "home-shown", own_origin=False,
    ),
    _probe(
        "FS-4", PLANTING, "No set-user-id file and no device can be made.", "chmod, create, mknod", "unfiltered",
        own_origin=False,
    ),
    _probe(
        "FS-5", PLANTING, "cloister's own use of git executes nothing of a repository that a sandbox wrote.",
        "settings, hooks, filters and drivers planted in private workspaces; diff and apply", "git-as-is",
        sides=(HOST,),
    ),
    _probe(
        "FS-7", KERNEL, "Neither files in memory nor a fork bomb take more than the sandbox's limits.",
        "add up and overfill every file system in memory; in a throw-away sandbox, fork without end", "boundless",
        own_origin=False, sides=(INSIDE, HOST), also=("unlimited",),
    ),
    _probe(
        "FS-6", SECRETS, "Secrets in the workspace are masked.", "read .env and private keys", "unprotected",
        own_origin=False,
    ),
    _probe(
        "K-1", KERNEL, "The agent has no capability, cannot gain one, and is filtered.",
        "look, from inside and from outside; become uid 0", "owner-of-network", own_origin=False,
    ),
    _probe(
        "K-2", KERNEL, "No new namespaces, no mounts.", "unshare, mount, chroot, setns", "unfiltered",
        own_origin=False,
    ),
    _probe(
        "K-3", KERNEL, "Processes outside are invisible; no core dumps.", "look through /proc", "host-processes",
        own_origin=False,
    ),
    _probe(
        "K-4", KERNEL, "Rare and dangerous system calls and sockets are refused.",
        "each by its number; AF_ALG, AF_VSOCK, AF_PACKET; TIOCSTI", "unfiltered", own_origin=False,
    ),
    _probe(
        "K-5", KERNEL, "No socket of the host is in reach, and no descriptor is inherited.",
        "abstract sockets, the bus, engines' sockets, /proc/self/fd", "inherited-descriptor", own_origin=False,
    ),
    _probe(
        "K-6", KERNEL, "The limits of processes, memory and CPU hold.",
        "more threads than the limit; in a throw-away sandbox more memory and more processors", "unlimited",
        own_origin=False, sides=(INSIDE, HOST),
    ),
    _probe(
        "K-7", KERNEL, "A process that enters later is confined as the first one is.",
        "K-1 to K-5, FS-4 and NET-6 from a later exec", "exec-unfiltered", own_origin=False,
    ),
    _probe(
        "AV-1", AVAILABILITY, "Who is slow holds nobody else up.",
        "many clients that never end a hello, a head, a body, or do not read; upstreams that do not answer",
        "one-at-a-time",
        also=("busy-reader", ),
    ),
    _probe(
        "AV-2", AVAILABILITY, "Streams flow at once; who leaves in the middle breaks nothing.",
        "an event, and silence; 4 MiB sent; clients and upstreams that leave within a message", "whole-answers",
        also=("lenient-bodies", ),
    ),
    _probe(
        "AV-3", AVAILABILITY, "Whatever is killed, the next command leaves nothing of the sandbox behind.",
        "kill -9 of session, gateway, first process and the network's container, each in a throw-away sandbox",
        "forgetful", sides=(HOST,),
    ),
    _probe(
        "AUDIT-1", SILENCE, "What was allowed and what was refused is in the audit log.",
        "one of each; the host reads the log", "silent",
    ),
)  # fmt: skip

BY_ID = {probe.id: probe for probe in PROBES}
# What is tried in a user's live sandbox with another control: that the gateway answers.
BY_GATEWAY = ("NET-1", "NET-2", "NET-4", "NET-5", "NET-7", "NAME-1", "NAME-3", "NAME-4")
LATER = ("K-1", "K-2", "K-3", "K-4", "K-5", "FS-4", "NET-6")  # what K-7 is made of
