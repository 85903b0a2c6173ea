"""`json`, `signal`, `socket` and three of `contextlib`, for modules on the start-up path.

The standard library's own load `enum`, `re`, `functools`, `collections` and `selectors`: 9 of the 18 ms that a session
spent on imports (docs/adr/0006-lean-imports.md). What is needed of them is written in C (`_json`, `_signal`,
`_socket`); this gives it the names, and the few functions that are missing. Type checkers see the standard library's;
what is not here is an AttributeError that the first test of a start finds.

Rule 1: where an interpreter lacks one of the C modules, or has changed it, the standard library's module is used.
Rule 2: nothing is parsed or rendered in Python: JSON is read and written by the code that `json` itself uses.
Rule 3: off the start-up path, use the standard library. A constant of these is an `int`, not an `enum`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import json as json
    import signal as signal
    import socket as socket
    from contextlib import ExitStack as ExitStack
    from contextlib import contextmanager as contextmanager
    from contextlib import suppress as suppress
else:
    _INT_BYTES = 4

    class suppress:
        """As contextlib.suppress."""

        def __init__(self, *exceptions):
            self._exceptions = exceptions

        def __enter__(self):
            return None

        def __exit__(self, kind, error, trace):
            return kind is not None and issubclass(kind, self._exceptions)

    class ExitStack:
        """As contextlib.ExitStack, of which it has `callback`: last in, first out, all of them, whatever is raised."""

        def __init__(self):
            self._callbacks = []

        def __enter__(self):
            return self

        def callback(self, function, /, *arguments, **named):
            """Call `function` at the end."""
            self._callbacks.append((function, arguments, named))

        def __exit__(self, kind, error, trace):
            if self._callbacks:
                function, arguments, named = self._callbacks.pop()
                try:
                    function(*arguments, **named)
                finally:
                    self.__exit__(kind, error, trace)
            return False

    def contextmanager(function):
        """As contextlib.contextmanager; the result is no decorator."""

        def make(*arguments, **named):
            return _Generated(function(*arguments, **named))

        make.__name__, make.__doc__ = function.__name__, function.__doc__
        return make

    class _Generated:
        def __init__(self, generator):
            self._generator = generator

        def __enter__(self):
            return next(self._generator)

        def __exit__(self, kind, error, trace):
            if kind is None:
                if next(self._generator, self) is not self:
                    raise RuntimeError("the generator did not stop")
                return False
            try:
                self._generator.throw(error)
            except StopIteration as end:
                return end is not error
            except BaseException as other:
                if other is error or (isinstance(other, RuntimeError) and other.__cause__ is error):
                    return False  # PEP 479 wraps a StopIteration of the body's
                raise
            raise RuntimeError("the generator did not stop after it was thrown into")

    def _lean_socket():
        """`_socket`, with sockets that are context managers, and with what passes descriptors."""
        import _socket

        class Socket(_socket.socket):
            __slots__ = ()

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.close()

        def send_fds(sock, buffers, descriptors):
            """As socket.send_fds."""
            numbers = b"".join(number.to_bytes(_INT_BYTES, sys.byteorder) for number in descriptors)
            return sock.sendmsg(buffers, [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])

        def recv_fds(sock, size, limit, flags=0):
            """As socket.recv_fds."""
            data, ancillary, said, address = sock.recvmsg(size, _socket.CMSG_LEN(limit * _INT_BYTES), flags)
            numbers = b"".join(
                body[: len(body) - len(body) % _INT_BYTES]
                for level, kind, body in ancillary
                if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            )
            return data, list(memoryview(numbers).cast("i")), said, address

        def socketpair(family=_socket.AF_UNIX, kind=_socket.SOCK_STREAM, proto=0):
            """As socket.socketpair."""
            return tuple(
                Socket(family, kind, proto, one.detach()) for one in _socket.socketpair(family, kind, proto)
            )

        return _module(_socket, socket=Socket, send_fds=send_fds, recv_fds=recv_fds, socketpair=socketpair)

    def _lean_json():
        """`loads` and `dumps` of the standard library's C parts, with its defaults."""
        from _json import encode_basestring_ascii, make_encoder, make_scanner

        class Context:  # what `json.decoder.JSONDecoder` is to its scanner
            strict = True
            object_hook = object_pairs_hook = None
            parse_float, parse_int = float, int
            parse_constant = {"-Infinity": -float("inf"), "Infinity": float("inf"), "NaN": float("nan")}.get

        scan = make_scanner(Context)

        def loads(text):
            """As json.loads. ValueError if it is no JSON."""
            if not isinstance(text, str):
                text = text.decode("utf-8", "surrogatepass")
            start = len(text) - len(text.lstrip(" \t\n\r"))
            try:
                value, end = scan(text, start)
            except StopIteration as error:
                raise ValueError(f"no JSON value at character {error.value}") from None
            if text[end:].strip(" \t\n\r"):
                raise ValueError(f"more than one JSON value: character {end}")
            return value

        def refuse(value):
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

        def dumps(value, *, sort_keys=False, separators=(", ", ": ")):
            """As json.dumps, ASCII only."""
            item, key = separators
            encode = make_encoder(
                {}, refuse, encode_basestring_ascii, None, key, item, sort_keys, False, True
            )
            return "".join(encode(value, 0))

        if loads(dumps({"a": [1, 0.5, None, True, "\u00e9"]})) != {"a": [1, 0.5, None, True, "\u00e9"]}:
            raise ImportError("_json is not what it was")
        return _module(None, loads=loads, dumps=dumps)

    def _module(parent, **members):
        made = type(sys)(f"{__name__}.{parent.__name__ if parent else 'json'}")
        made.__dict__.update({} if parent is None else vars(parent), **members)
        return made

    try:
        json = _lean_json()
    except Exception:  # whatever it is, the standard library knows its own parts
        import json
    try:
        socket = _lean_socket()
    except Exception:
        import socket
    try:
        import _signal as signal
    except ImportError:
        import signal
