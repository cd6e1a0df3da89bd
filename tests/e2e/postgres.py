# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A PostgreSQL server of the tests' own: data and Unix socket in one directory under /tmp, no TCP. It runs as the user `postgres`, because
initdb refuses root, and is killed with the test program, whatever happens.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from netns import Process, die_with_parent, run, wait_until

BIN = pathlib.Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--pdeathsig=KILL"]


class Postgres:
    """`conninfo` is what writer.postgres takes: the database `ledger`, owned by the role `writer`."""

    def __init__(self):
        assert (BIN / "initdb").exists(), "these tests start a PostgreSQL server: install it (scripts/install-deps.sh --for test)"
        self._stack = contextlib.ExitStack()
        self.process = None
        try:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluice-pg-"))
            self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            shutil.chown(self.dir, USER, USER)
            self.dir.chmod(0o755)
            self.data = self.dir / "data"
            self.conninfo = f"host={self.dir} user=writer dbname=ledger"
            run([*AS_USER, BIN / "initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
                cwd="/")
            self._stack.callback(self._end)
            self.start()
            self.query("CREATE ROLE writer LOGIN", database="postgres")
            self.query("CREATE DATABASE ledger OWNER writer", database="postgres")
        except BaseException:
            self.close()
            raise

    def close(self):
        self._stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        """Repeats it: a server does not start while a process of one that was killed is still there."""
        def ready():
            if not self.process or not self.process.running():
                self.process = Process([*AS_USER, BIN / "postgres", "-D", self.data, "-k", self.dir, "-c", "listen_addresses=",
                                        "-c", "shared_buffers=32MB"], self.dir / "log", cwd="/")
            return run([BIN / "pg_isready", "-q", "-h", self.dir], check=False).returncode == 0
        try:
            wait_until(ready, "the PostgreSQL server answers", timeout=60, pause=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.process.log()}") from error

    def kill(self):
        """SIGKILL to the server and all its processes at once, as a machine that stops."""
        self.process.popen.send_signal(signal.SIGSTOP)
        for child in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self.process.kill()

    def stop(self):
        """In order, but without waiting for its clients."""
        self.process.popen.send_signal(signal.SIGINT)
        self.process.popen.wait(30)

    def _end(self):
        if self.process and self.process.running():
            self.process.popen.send_signal(signal.SIGQUIT)
            self.process.popen.wait(30)

    @contextlib.contextmanager
    def held(self, sql, database="ledger"):
        """A transaction of somebody else, begun with `sql`, that lasts as long as the block and comes to nothing."""
        psql = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-U", USER, "-d", database],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", preexec_fn=die_with_parent)
        try:
            psql.stdin.write(f"BEGIN;\n{sql};\nSELECT 'held';\n")
            psql.stdin.flush()
            assert psql.stdout.readline().strip() == "held", sql
            yield
        finally:
            psql.stdin.close()
            psql.wait(20)
            psql.stdout.close()

    def query(self, sql, database="ledger", user=USER):
        """Rows of a question that psql asks, as lists of text."""
        text = run(["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-U", user, "-d", database,
                    "-c", sql], cwd="/").stdout
        return [line.split("\t") for line in text.splitlines()]
