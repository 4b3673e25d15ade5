"""Kernels are compiled into the cache once; whatever is in the way, torch computes instead and the log says why."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.nn.kernels import native
from trainables.nn.kernels.attention import attend
from trainables.nn.kernels.sequences import Sequences

# Without optimization, which takes most of the seconds of compiling, and without torch, which takes most of the rest.
PROBE = """
import sys, types
sys.modules["torch"] = types.SimpleNamespace(Tensor=None)
from trainables.nn.kernels import native
native._FLAGS += ("-O0",)
print(native.library() is not None)
"""


def fresh() -> bool:
    """Whether there are kernels, looked for anew."""
    return native.load.__wrapped__(is_off=os.environ.get("ADAPTUNE_NATIVE") == "0") is not None


@pytest.mark.thorough
def test_they_are_compiled_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_FLAGS", (*native._FLAGS, "-O0"))
    assert fresh()
    (built,) = (tmp_path / "native").iterdir()
    stamp = built.stat().st_mtime_ns
    assert fresh()
    assert [file.stat().st_mtime_ns for file in (tmp_path / "native").iterdir()] == [stamp]


@pytest.mark.thorough
def test_processes_that_compile_at_once_leave_one_library(tmp_path: Path) -> None:
    environment = {**os.environ, "ADAPTUNE_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", PROBE]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in running] == ["True", "True"]
    assert [file.suffix for file in (tmp_path / "native").iterdir()] == [".so"]


# An `aligned_alloc` that keeps to the letter of C11, as macOS has it: the size is a multiple of the alignment.
STRICT = """
#include <stdlib.h>
static inline void *strictly(size_t alignment, size_t size) {
    return size % alignment ? NULL : aligned_alloc(alignment, size);
}
#define aligned_alloc strictly
"""


def test_attention_asks_for_memory_as_every_c_library_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strict.h").write_text(STRICT)
    # Without the widest registers, which other machines do not have.
    narrow = ("-mno-avx512f",) if platform.machine() in ("x86_64", "AMD64") else ()
    monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_FLAGS", (*native._FLAGS, "-O0", "-include", str(tmp_path / "strict.h"), *narrow))
    library = native.load.__wrapped__(is_off=False)
    assert library is not None
    monkeypatch.setattr(native, "library", lambda: library)
    lengths = np.array([3, 90])
    sequences = Sequences(np.array([0, 3]), lengths, num_trials=1, num_rows=93, device=torch.device("cpu"))
    qkv = torch.randn(93, 3 * 24, generator=torch.Generator().manual_seed(0))
    found = attend(qkv, 2, sequences, None, 0)
    monkeypatch.setattr(native, "library", lambda: None)
    torch.testing.assert_close(found, attend(qkv, 2, sequences, None, 0), rtol=1e-5, atol=1e-6)


class TestWithoutKernels:
    @pytest.fixture(autouse=True)
    def log(self, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        caplog.set_level(logging.INFO, logger=native.__name__)
        monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path / "cache"))

    def test_they_can_be_turned_off(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setenv("ADAPTUNE_NATIVE", "0")
        assert not fresh()
        assert [record.message for record in caplog.records] == [
            "steps are computed by torch alone: ADAPTUNE_NATIVE is 0"
        ]

    def test_no_compiler(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert not fresh()
        assert "no C compiler (cc, gcc or clang) was found" in caplog.text
        assert len(caplog.records) == 1

    def test_a_cache_that_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "cache").write_text("a file where a folder should be")
        assert not fresh()
        assert str(tmp_path / "cache") in caplog.text
        assert len(caplog.records) == 1

    def test_a_compiler_that_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        compiler = tmp_path / "cc"
        compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo "no header stdint.h" >&2; exit 1; }\n')
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert not fresh()
        assert "no header stdint.h" in caplog.text
        assert [file.name for file in (tmp_path / "cache" / "native").iterdir()] == []

    def test_no_home_for_a_cache(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """As of a user that a container is run for, and that its image does not know."""
        monkeypatch.delenv("ADAPTUNE_CACHE")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
        assert not fresh()
        assert "home directory" in caplog.text
