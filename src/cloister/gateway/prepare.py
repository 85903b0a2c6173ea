"""Write credentials into a request's head. No I/O.

Rule 1: a credential that is withheld leaves no placeholder behind where it would have stood: upstreams answer a bad
        token with 401, and an anonymous request with what is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloister.credentials.inject import inject, withhold
from cloister.credentials.replace import replace_in_head
from cloister.messages import RequestHead
from cloister.types import AwsSignature, Replacement

if TYPE_CHECKING:
    from cloister.credentials.sigv4 import Resigner
    from cloister.gateway.use import Uses
    from cloister.secret import Secret
    from cloister.secrets.source import Value


def head(request: RequestHead, uses: Uses, values: Mapping[str, Value]) -> RequestHead:
    """The request as it leaves. UnfitSecretError if a value does not fit where it must stand."""
    for use in uses.withheld:
        request = withhold(request, use.binding.injection, use.credential.placeholder.encode())
    pairs = replacements(uses, values)
    if pairs:
        request = replace_in_head(request, pairs)
    for use in uses.injected:
        match use.binding.injection:
            case Replacement() | AwsSignature():  # a signature is the last thing: see `resigner`
                continue
            case injection:
                request = inject(request, injection, values[use.credential.name].secret)
    return request


def replacements(uses: Uses, values: Mapping[str, Value]) -> list[tuple[bytes, Secret]]:
    """The placeholders that are to be replaced, with their values."""
    return [
        (use.credential.placeholder.encode(), values[use.credential.name].secret)
        for use in uses.injected
        if isinstance(use.binding.injection, Replacement) and use.credential.name in values
    ]


def resigner(request: RequestHead, uses: Uses, values: Mapping[str, Value]) -> Resigner | None:
    """What signs the request anew, if it is signed with the placeholder of a credential that it gets."""
    for use in uses.injected:
        if isinstance(use.binding.injection, AwsSignature):
            from cloister.credentials.sigv4 import Resigner  # off the path of all other requests

            name = use.credential.name
            found = Resigner(request, placeholder=use.credential.placeholder, value=values[name].secret)
            return found if found.applies else None
    return None
