"""A worker process: reads calls from its standard input, writes their results to its standard output, both pickled.

Not multiprocessing: its spawn and forkserver methods import the main module again in every worker, so a plain script
without a ``__main__`` guard would run twice; its fork method is not safe beside threads; and a worker that a codec
kills breaks `ProcessPoolExecutor` for every file, not only for the one that did it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import warnings

_QUIET_ABOVE = logging.CRITICAL


def serve() -> None:
    """Answer calls until the input ends.

    Notes
    -----
    A call is ``(function, arguments)``; its answer is the result.  An exception ends the process: the work is made to
    raise none, so it is a defect, and its traceback goes to standard error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    warnings.simplefilter("ignore")
    logging.disable(_QUIET_ABOVE)  # codecs' wrappers log header values
    calls = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a codec prints must not end up among the answers
    while True:
        try:
            function, arguments = pickle.load(calls)  # noqa: S301 (from our parent)
        except EOFError:
            return
        pickle.dump(function(*arguments), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
