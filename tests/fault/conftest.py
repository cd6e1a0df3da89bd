# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The fault tests stand on the same World as the end-to-end tests, and use their fixtures."""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import importlib.util  # noqa: E402

_spec = importlib.util.spec_from_file_location("e2e_conftest", HERE.parent / "e2e" / "conftest.py")
_e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_e2e)
pytest_configure, pytest_sessionstart = _e2e.pytest_configure, _e2e.pytest_sessionstart
pytest_runtest_makereport = _e2e.pytest_runtest_makereport
