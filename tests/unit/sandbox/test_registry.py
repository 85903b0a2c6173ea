from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

from cloister.sandbox import registry


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    me = registry.identify(os.getpid())
    assert me is not None
    registry.write(str(tmp_path), registry.Record(sandbox_id="widget-1", workspace="/w", session=me))
    gone = multiprocessing.Process(target=int)
    gone.start()
    gone.join()
    left = tmp_path / f"widget-2.json.{gone.pid}.0a1b2c3d.tmp"
    left.write_bytes(b'{"sandbox": "wid')
    in_work = tmp_path / f"widget-3.json.{os.getpid()}.0a1b2c3d.tmp"
    in_work.write_bytes(b"")
    assert registry.any_record(str(tmp_path))
    assert [record.sandbox_id for record in registry.records(str(tmp_path))] == ["widget-1"]
    assert not left.exists()
    assert in_work.exists(), "another command is writing it"


def test_a_file_left_alone_is_reason_to_look(tmp_path: Path) -> None:
    (tmp_path / "widget-2.json.1.0a1b2c3d.tmp").write_bytes(b"")
    assert registry.any_record(str(tmp_path))
    assert list(registry.records(str(tmp_path))) == []
