"""The first library of this format, as it was published: installed apart, and run as a black box.

It has our import name, so it lives in a virtual environment of its own.  What runs in there is a program that is given
here, with the documented names of that library and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

REQUIREMENT = "cloud-optimized-dicom==2.2.0"


def install_published(folder: Path) -> Path:
    """Return the interpreter of an environment that has the library; it is made where there is none.

    Raises
    ------
    subprocess.CalledProcessError
        If it cannot be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", REQUIREMENT]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - ours, word by word
    return python


class PublishedError(Exception):
    """What the library raised; `kind` is the name of the exception's class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class PublishedProcess:
    """A process of the library's environment that does one job after the other.

    Parameters
    ----------
    python
        As of :func:`install_published`.
    driver
        A program that reads a JSON object a line (``{"job": name, ...}``) and answers with one:
        ``{"answer": value}`` or ``{"error": class, "message": text}``.
    endpoint
        URL of the server that its client of Google Cloud Storage talks to.
    folder
        Where it runs and leaves its log: not where our own package could be imported in its stead.
    """

    def __init__(self, python: Path, driver: Path, endpoint: str, folder: Path) -> None:
        self._log = Path(folder, "published.log").open("ab")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(  # noqa: S603 - ours, word by word
            [str(python), "-I", str(driver)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
            env=os.environ | {"STORAGE_EMULATOR_HOST": endpoint},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with self._process, self._log:  # closes its standard input, which ends it, and waits
            pass

    def do(self, job: str, **order: Any) -> Any:
        """Return the answer to an order.

        Raises
        ------
        PublishedError
            With what the library raised.
        """
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise PublishedError("BrokenPipeError", "the process has no pipes")
        requests.write(json.dumps({"job": job, **order}) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            raise PublishedError("EOFError", "the process has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise PublishedError(answer["error"], answer["message"])
        return answer["answer"]
