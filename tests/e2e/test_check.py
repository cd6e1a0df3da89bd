# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What `make check` makes of the results of its parts (scripts/check.sh), with a `make` that only says what a part would."""
import os
import pathlib
import subprocess

import pytest

CHECK = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "check.sh"
RUN_S = 60
MAKE = """#!/bin/bash
case ${!#} in
check-kernel) %s ;;
check-e2e) echo '3 passed, 1 skipped in 2.3s' ;;
*) echo '[  PASSED  ] 2 test(s).' ;;
esac
"""


@pytest.mark.parametrize("says,result,failed", [
    ("echo '[  PASSED  ] 1 test(s).'", "ok", 0),
    ("echo 'kernels: not tested: there is none'; echo '[  SKIPPED ] 1 test(s).'", "skipped", 0),
    ("echo '[  SKIPPED ] 1 test(s).'; exit 1", "FAILED", 1),
    ("echo '[  FAILED  ] 1 test(s).'; echo '[  SKIPPED ] 1 test(s).'", "FAILED", 1),
    ("true", "FAILED", 1),
], ids=["passed", "skipped", "skipped-and-broken", "failed", "nothing"])
def test_a_part_that_only_skipped_is_skipped_and_one_that_did_nothing_has_failed(tmp_path, says, result, failed):
    make = tmp_path / "make"
    make.write_text(MAKE % says, encoding="ascii")
    make.chmod(0o755)
    done = subprocess.run([CHECK], env={**os.environ, "MAKE": str(make), "BUILD": str(tmp_path / "build")}, capture_output=True, text=True,
                          timeout=RUN_S, check=False)
    row = next(line for line in done.stdout.splitlines() if line.startswith("check-kernel "))
    assert row.split()[1] == result, done.stdout
    assert done.stdout.splitlines()[-1].endswith(f" passed, {failed} failed")
    assert done.returncode == (1 if failed else 0)
