"""Import asyncio as if Python had been built without `ssl`.

asyncio imports `ssl` for streams that this gateway does not use (`tls.py` drives OpenSSL itself, and only to refuse).
Without it the gateway starts 8 ms earlier and is 4 MB smaller. asyncio supports such builds, so this is a supported
state, reached by a small lie; a process that has imported asyncio before keeps what it has.
"""

from __future__ import annotations

import sys

if "asyncio" not in sys.modules and "ssl" not in sys.modules:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # documented: makes `import ssl` raise ImportError
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
