"""What the host replaces while a sandbox lives: the kernel takes the mount away, and it is put back, or nothing runs on."""

from __future__ import annotations

from pathlib import Path

from tests.contract.conftest import World
from tests.contract.test_crashes import eventually

GIT_CONFIG = '[core]\n\trepositoryformatversion = 0\n[user]\n\tname = "Ada"\n'


def test_fs_1_a_file_that_the_host_replaces_is_not_the_sandboxs(world: World) -> None:
    """As `git config` on the host does it. A user of Docker's group cannot mount there: then the sandbox is stopped."""
    repository = world.cloister.project / ".git"
    for name in ("objects", "refs", "hooks"):
        world.cloister.directory(repository / name)
    world.cloister.write(repository / "HEAD", "ref: refs/heads/main\n")
    config = world.cloister.write(repository / "config", GIT_CONFIG)
    up = world.cloister("up", timeout_s=120)
    assert up.code == 0, up
    plant = "echo '[core]' >> .git/config"
    assert world.sh(plant).code != 0
    world.cloister.write(repository / "config.lock", GIT_CONFIG + "\temail = a@example.com\n").rename(config)
    (log,) = (world.cloister.state / "sandboxes").glob("*.log")
    eventually(lambda: "protected again" in log.read_text())
    assert world.sh(plant).code != 0
    assert Path(config).read_text() == GIT_CONFIG + "\temail = a@example.com\n"
    if world.name in ("docker", "docker-gateway"):
        assert "was stopped" in log.read_text()
    else:
        assert world.sh("exit 4").code == 4, "it lives on"
