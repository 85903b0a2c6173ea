"""The image's users, and the agent among them."""

from __future__ import annotations

from cloister.sandbox import image

PASSWD = (
    "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\njunk\nann:x:7:7::/:/bin/false\n"
)


def test_who_has_the_agents_name_or_number_makes_way() -> None:
    made = image.passwd(PASSWD, name="ann", uid=1000, gid=1002, home="/home/ann", shell="/bin/bash")
    assert made == "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1002::/home/ann:/bin/bash\n"


def test_an_image_without_users() -> None:
    assert (
        image.passwd("", name="ann", uid=1, gid=2, home="/h", shell="")
        == "root:x:0:0:root:/root:/bin/sh\nann:x:1:2::/h:/bin/sh\n"
    )
    assert image.group("", name="ann", gid=2) == "root:x:0:\nann:x:2:\n"


def test_groups() -> None:
    assert (
        image.group("root:x:0:\nnode:x:1000:\nstaff:x:50:\n", name="ann", gid=1000)
        == "root:x:0:\nstaff:x:50:\nann:x:1000:\n"
    )
