"""What Linux tells of a process: its memory, its files, what it wrote to disk. See proc(5)."""

from contextlib import suppress
from pathlib import Path

BYTES_PER_KB = 1024


class Process:
    """A running process of ours."""

    def __init__(self, pid: int) -> None:
        """Look it up by its number.

        Args:
            pid: The number.
        """
        self._proc = Path("/proc") / str(pid)

    def resident_bytes(self) -> int:
        """Look up the memory that it holds.

        Returns:
            Its resident set size now, in bytes.
        """
        return self._number("status", "VmRSS") * BYTES_PER_KB

    def peak_resident_bytes(self) -> int:
        """Look up the most memory that it held.

        Returns:
            Its largest resident set size since ``forget_peak``, in bytes.
        """
        return self._number("status", "VmHWM") * BYTES_PER_KB

    def forget_peak(self) -> None:
        """Let the peak begin anew."""
        (self._proc / "clear_refs").write_text("5")

    def written_bytes(self) -> int:
        """Look up how much it has caused to be written to disk.

        Returns:
            That many bytes since it started.
        """
        return self._number("io", "write_bytes")

    def open_files(self) -> set[str]:
        """Look up the files it has open.

        Returns:
            Their paths, of deleted ones, too. Sockets, pipes and devices are none.
        """
        opened = set()
        for descriptor in (self._proc / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                opened.add(str(descriptor.readlink()))
        return {target for target in opened if target.startswith("/") and not target.startswith("/dev/")}

    def _number(self, file: str, name: str) -> int:
        for line in (self._proc / file).read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0])
        raise LookupError(f"{self._proc / file} has no {name}")
