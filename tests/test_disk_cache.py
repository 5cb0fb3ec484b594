# The folder in which compiled kernels are kept: csrc/cuda/disk_cache.cpp.

import os
import subprocess
import sys
import time

import preload
import pytest

from mlx_ctc._ext import cache_folder, load_from_cache, store_in_cache

MANY_BYTES = 1 << 20
KEY = b"NVRTC 13.0 sm_90\nkernel void f()"


def store(folder, key, value, max_bytes=MANY_BYTES):
    return store_in_cache(str(folder), key, value, max_bytes)


def load(folder, key):
    return load_from_cache(str(folder), key)


def files(folder):
    return sorted(folder.glob("*.kernel"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "user" / "mlx_ctc"  # does not exist


def test_what_is_stored_is_found(folder):
    assert load(folder, KEY) is None
    assert store(folder, KEY, b"\x7fELF\0\xff")
    assert store(folder, b"another key", b"")
    assert load(folder, KEY) == b"\x7fELF\0\xff"
    assert load(folder, b"another key") == b""
    assert load(folder, b"a third key") is None
    assert len(os.listdir(folder)) == 2  # no temporary files


def test_a_value_is_replaced(folder):
    assert store(folder, KEY, b"old")
    assert store(folder, KEY, b"new")
    assert load(folder, KEY) == b"new"


def test_only_the_user_can_read_and_write(folder):
    store(folder, KEY, b"value")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert files(folder)[0].stat().st_mode & 0o777 == 0o600


def test_a_change_of_any_byte_is_noticed(folder):
    store(folder, KEY, b"the value")
    [file] = files(folder)
    content = file.read_bytes()
    for i in range(len(content)):
        file.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        assert load(folder, KEY) is None, f"byte {i}"
    file.write_bytes(content)
    assert load(folder, KEY) == b"the value"


def test_a_change_of_size_is_noticed(folder):
    store(folder, KEY, b"the value")
    [file] = files(folder)
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        assert load(folder, KEY) is None, f"{size} bytes"
    file.write_bytes(content + b"\0")
    assert load(folder, KEY) is None


def test_a_broken_file_is_replaced(folder):
    store(folder, KEY, b"value")
    [file] = files(folder)
    file.write_bytes(b"not a kernel")
    assert load(folder, KEY) is None
    assert store(folder, KEY, b"value")
    assert load(folder, KEY) == b"value"


def test_the_file_of_another_key_is_not_taken(folder):
    """As if both keys had the same hash, which names the file."""
    store(folder, KEY, b"value")
    [of_key] = files(folder)
    other = b"B" * len(KEY)
    store(folder, other, b"other value")
    [of_other] = set(files(folder)) - {of_key}
    of_other.write_bytes(of_key.read_bytes())
    assert load(folder, other) is None


def test_a_file_that_others_may_write_is_not_taken(folder):
    store(folder, KEY, b"value")
    [file] = files(folder)
    for mode in 0o620, 0o602:
        file.chmod(mode)
        assert load(folder, KEY) is None
    file.chmod(0o644)
    assert load(folder, KEY) == b"value"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_another_user_is_not_taken(folder):
    store(folder, KEY, b"value")
    [file] = files(folder)
    os.chown(file, 12345, 12345)
    assert load(folder, KEY) is None


def test_what_is_not_a_file_is_not_taken(folder):
    store(folder, KEY, b"value")
    [file] = files(folder)
    file.unlink()
    file.mkdir()
    assert load(folder, KEY) is None
    assert not store(folder, KEY, b"value")


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert not store(tmp_path / "file" / "folder", KEY, b"value")
    assert not store(tmp_path / "file", KEY, b"value")
    assert load(tmp_path / "file", KEY) is None


IN_READ_ONLY_FOLDER = """
import os, sys
from mlx_ctc._ext import load_from_cache, store_in_cache
if os.geteuid() == 0:  # may write everywhere
    os.chown(sys.argv[1], 12345, 12345)
    for name in os.listdir(sys.argv[1]):
        os.chown(os.path.join(sys.argv[1], name), 12345, 12345)
    os.seteuid(12345)
assert load_from_cache(sys.argv[1], b"key") == b"value"
assert not store_in_cache(sys.argv[1], b"another", b"value", 1 << 20)
"""


def test_a_read_only_folder_is_read(folder):
    store(folder, b"key", b"value")
    for parent in folder, *folder.parents[:4]:  # another user can come here
        parent.chmod(parent.stat().st_mode | 0o555)
    folder.chmod(0o555)
    subprocess.run([sys.executable, "-c", IN_READ_ONLY_FOLDER, folder], check=True)
    folder.chmod(0o755)
    assert len(os.listdir(folder)) == 1


def test_nothing_is_kept_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not store("", KEY, b"value")
    assert load("", KEY) is None
    assert os.listdir(tmp_path) == []


def test_the_least_recently_used_are_removed(folder):
    size = 10_000
    keys = [f"key {i}".encode() for i in range(6)]
    now = time.time()
    for i, key in enumerate(keys[:4]):
        before = set(files(folder))
        assert store(folder, key, bytes(size))
        [file] = set(files(folder)) - before
        os.utime(file, times=(now - 100 + i, now - 100 + i))
    assert load(folder, keys[0]) is not None  # becomes the most recent
    assert store(folder, keys[4], bytes(size), max_bytes=4 * size + 1000)
    found = [key for key in keys if load(folder, key) is not None]
    assert found == [keys[0], keys[2], keys[3], keys[4]]
    assert sum(file.stat().st_size for file in files(folder)) <= 4 * size + 1000


def test_other_files_in_the_folder_are_left(folder):
    store(folder, KEY, b"value")
    notes = folder / "notes.txt"
    notes.write_bytes(bytes(5000))
    os.utime(notes, times=(0, 0))
    assert store(folder, b"another", bytes(100), max_bytes=300)
    assert notes.exists()


def test_what_a_killed_process_left_is_removed_later(folder):
    store(folder, KEY, b"value")
    left, in_use = folder / "0.kernel.1_0.partial", folder / "0.kernel.2_0.partial"
    left.write_bytes(b"half")
    in_use.write_bytes(b"half")
    os.utime(left, times=(time.time() - 7200,) * 2)
    store(folder, b"another", b"value")
    assert not left.exists()
    assert in_use.exists()


SEVERAL_PROCESSES = """
import sys
from mlx_ctc._ext import load_from_cache, store_in_cache
folder, own = sys.argv[1], int(sys.argv[2])
found = 0
for i in range(400):
    key = f"key {(i + own) % 5}".encode()
    value = load_from_cache(folder, key)
    assert value in (None, key * 5000), "another value than was stored"
    found += value is not None
    # There is room for three of the five, so others are removed all the time.
    assert store_in_cache(folder, key, key * 5000, 100_000)
print(found)
"""


def test_several_processes_share_a_folder(folder):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SEVERAL_PROCESSES, folder, str(i)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    found = [int(child.communicate(timeout=120)[0]) for child in children]
    assert all(child.returncode == 0 for child in children)
    assert sum(found) > 0
    assert all(name.endswith(".kernel") for name in os.listdir(folder))
    assert sum(file.stat().st_size for file in files(folder)) <= 100_000


# Of two containers that share a folder: the same number of calls in each process, and
# the same process number.
EQUAL_PROCESSES = """
import multiprocessing, sys
from mlx_ctc._ext import load_from_cache, store_in_cache
folder, fork = sys.argv[2], multiprocessing.get_context("fork")
together = fork.Barrier(2)

def store():
    for i in range(500):
        together.wait(20)
        assert store_in_cache(folder, b"key", bytes(100_000), 1 << 20), i
        assert load_from_cache(folder, b"key") == bytes(100_000), i

children = [fork.Process(target=store) for _ in range(2)]
for child in children:
    child.start()
for child in children:
    child.join()
sys.exit(max(abs(child.exitcode) for child in children))
"""
SAME_PROCESS_NUMBER = 'extern "C" int getpid() { return 7; }'


def test_processes_of_equal_numbers_share_a_folder(folder, tmp_path):
    library = preload.compile_library(SAME_PROCESS_NUMBER, tmp_path)
    result = preload.run_with(library, EQUAL_PROCESSES, str(folder))
    assert result.returncode == 0, result.stderr
    assert all(name.endswith(".kernel") for name in os.listdir(folder))


def test_where_the_folder_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    for name in "XDG_CACHE_HOME", "MLX_CTC_CACHE":
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == "/home/someone/.cache/mlx_ctc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # not valid
    assert cache_folder() == "/home/someone/.cache/mlx_ctc"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == "/caches/mlx_ctc"
    monkeypatch.setenv("MLX_CTC_CACHE", "/elsewhere")
    assert cache_folder() == "/elsewhere"
    monkeypatch.setenv("MLX_CTC_CACHE", "off")
    assert cache_folder() == ""
    for name in "HOME", "XDG_CACHE_HOME", "MLX_CTC_CACHE":
        monkeypatch.delenv(name)
    assert cache_folder() == ""
