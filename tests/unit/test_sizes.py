"""Sizes as people write them, and how many cores there are."""

from pathlib import Path

import pytest

from edgeelad.cli.sizes import parse_size
from edgeelad.engine.options import num_cores
from edgeelad.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512_000_000),
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 << 29),
        ("64m", 64 << 20),
        ("100", 100),
        (" 7 kb ", 7000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--kv-memory") == size


@pytest.mark.parametrize("text", ["", "much", "0", "0.0GB", "-1GB", "1e9", "1 XB", "1GB2", "GB", "١GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="not a size; write for example 512MB or 2GB") as caught:
        parse_size(text, "--kv-memory")
    assert str(caught.value).startswith("--kv-memory ")


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    cores = num_cores(tmp_path)
    assert cores >= 1
    for limit, expected in (("max 100000", cores), ("50000 100000", 1), ("100000 100000", 1), (f"{10**9} 1000", cores)):
        (tmp_path / "cpu.max").write_text(f"{limit}\n", encoding="ascii")
        assert num_cores(tmp_path) == expected
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    for quota, expected in (("-1", cores), ("20000", 1), (f"{10**9}", cores)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n", encoding="ascii")
        assert num_cores(tmp_path) == expected
