"""HTTP/1.1 and HTTP/2, towards the sandbox and towards upstreams, behind one model (`streams.py`)."""
