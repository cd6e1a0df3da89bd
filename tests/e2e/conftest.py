# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Fixtures of the end-to-end tests; see world.py for what they stand on."""
import os
import signal

import pytest

import fleet
import netns
import world as world_module


def pytest_configure(config):
    del config
    # Without this, a SIGTERM would end the run with namespaces, pins and programs left behind.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


def pytest_sessionstart(session):
    del session
    if os.geteuid() != 0:
        pytest.exit("the end-to-end tests make namespaces and load BPF programs: run them as root", returncode=2)
    missing = [str(path) for path in (world_module.SLUICE, world_module.SLUICED, world_module.WRITER,
                                      world_module.PASS_OBJECT) if not path.exists()]
    if missing:
        pytest.exit(f"not built: {', '.join(missing)} (run make, or set SLUICE_BUILD)", returncode=2)
    sweep()


def sweep():
    """Removes what a run left that was killed outright: things of ours whose process is gone."""
    def orphaned(name):
        owner = netns.owner_of(name)
        return owner is not None and not os.path.exists(f"/proc/{owner}")

    for path in world_module.BPFFS.glob(f"{netns.NAME_PREFIX}-*") if world_module.BPFFS.exists() else ():
        if orphaned(path.name):
            world_module.shutil.rmtree(path, ignore_errors=True)
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        if orphaned(name):
            netns.run(["ip", "netns", "del", name], check=False)


@pytest.fixture(params=["ipv4", "ipv6"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def world():
    """One shop for the tests of a file. A test that breaks it puts it together again."""
    with world_module.World() as shop:
        yield shop


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the programs had to say."""
    outcome = yield
    report = outcome.get_result()
    if call.when == "call" and report.failed:
        for value in item.funcargs.values():
            for shop in [value] if isinstance(value, world_module.World) else value.nodes if isinstance(value, fleet.Fleet) else ():
                for name in ("daemon", "writer"):
                    process = getattr(shop, name)
                    if process:
                        where = f" of node {shop.network.number}" if shop.network.number else ""
                        report.sections.append((f"log of the {name}{where}", "\n".join(process.log().splitlines()[-12:])))
