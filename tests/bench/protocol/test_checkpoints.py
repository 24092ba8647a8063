"""A checkpoint is read only as what the runner has written."""

from bench.protocol.checkpoints import CHECKPOINT, resumable, write_checkpoint


def test_a_checkpoint_that_is_a_link_is_not_loaded(tmp_path, caplog):
    write_checkpoint(tmp_path, {"version": 1, "records": 0, "seconds": {}})
    assert resumable(tmp_path, 1) is not None
    (tmp_path / CHECKPOINT).rename(tmp_path / "elsewhere")
    (tmp_path / CHECKPOINT).symlink_to(tmp_path / "elsewhere")
    assert resumable(tmp_path, 1) is None
    assert "checkpoint.pt is a link, which is not followed" in caplog.text
