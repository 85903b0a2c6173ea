"""Reason phrases of statuses (RFC 9110 section 15). An upstream's own are not forwarded: they are free text."""

from __future__ import annotations

from http import HTTPStatus

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def phrase(status: int) -> str:
    """The registered phrase, or the class of an unregistered status."""
    return (
        _PHRASES.get(status)
        or ("Informational", "Success", "Redirection", "Client Error", "Server Error", "Unknown")[
            min(status // 100, 6) - 1
        ]
    )
