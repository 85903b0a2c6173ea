"""Give an engine on another machine what a sandbox sees of this one: its binds become volumes, and files in one.

    home, workspace        volumes that outlive the sandbox (session/away.py)
    <sandbox>-files        what is made for this start: /run/cloister, the files of oci_files.py; removed with it

Rule 1: after this a spec names nothing of this host. What cannot be given is refused before (container_place.py).
Rule 2: what is made for a start is its root's, and shown read-only; home and workspace are the agent's.
Rule 3: mount points in the home are made as they are here (sandbox/private_home.py), before anything is mounted.
"""

from __future__ import annotations

from cloister.errors import HostError
from cloister.runtimes import oci_volumes
from cloister.sandbox.spec import Bind, SandboxSpec, Volume
from cloister.sandbox.workspace import contains
from cloister.values import dataclass, replace
from cloister.workspaces import engine_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.runtimes.engine import Engine
    from cloister.runtimes.oci_exec_argv import Names
    from cloister.sandbox.spec import Mount

_ROOT = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """What becomes of directories of this host: `volumes` (directory: name), and `made` for this start alone.

    `home` is the one of `volumes` in which mount points are made.
    """

    engine: Engine
    names: Names
    image: str
    volumes: dict[str, str]
    made: tuple[str, ...]
    home: str

    def __call__(self, spec: SandboxSpec) -> SandboxSpec:
        """Bring everything there; the spec for it. HostError."""
        engine, names = self.engine, self.names
        oci_volumes.make(engine, names.files, sandbox=names.sandbox, project=names.project)
        volumes = {"home": self.volumes[self.home], "made": names.files}
        with oci_volumes.Filler(
            engine, names.filler, project=names.project, image=self.image, volumes=volumes
        ) as filler:
            engine_files.send(self.home, filler, oci_volumes.place("home"), owner=(spec.uid, spec.gid))
            for number, directory in enumerate(self.made):  # after what an agent may have left links in
                engine_files.send(directory, filler, f"{oci_volumes.place('made')}/{number}", owner=_ROOT)
        there = oci_volumes.mountpoint(engine, names.files)
        if there is None:
            raise HostError(
                f"the {engine.name} engine has lost a volume that it has just made",
                resolution=f"see whether it is well: {engine.name} info",
            )
        return replace(spec, mounts=tuple(self._moved(one, there) for one in spec.mounts))

    def _moved(self, one: Mount, there: str) -> Mount:
        if not isinstance(one, Bind):
            return one
        if one.source in self.volumes:
            return Volume(self.volumes[one.source], one.target)
        for number, directory in enumerate(self.made):
            if contains(directory, one.source):
                return Bind(f"{there}/{number}{one.source[len(directory) :]}", one.target)
        raise TypeError(f"{one!r} is of this host, and no engine elsewhere can show it")
