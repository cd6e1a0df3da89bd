# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Manual pages and bash completion: made of what the programs say themselves, complete, and well-formed."""
import os
import pathlib
import pty
import re
import select
import shutil
import time

import pytest

from netns import run
from world import BUILD, SLUICE, SLUICED, WRITER, World

TREE = pathlib.Path(__file__).resolve().parents[2]
PACKAGING = TREE / "scripts" / "packaging"
PAGES = ("sluice.8", "sluiced.8", "sluice-writer.8", "sluice.conf.5")
TAB_S = 10


@pytest.fixture(scope="module", name="pages")
def pages_fixture(tmp_path_factory):
    directory = tmp_path_factory.mktemp("man")
    for page in PAGES:
        made = run([PACKAGING / "man-page.sh", PACKAGING / "man" / f"{page}.in", BUILD, "1.2.3", "2026-11-22"], cwd=TREE)
        (directory / page).write_text(made.stdout, encoding="utf-8")
    return directory


@pytest.fixture(scope="module", name="completion")
def completion_fixture(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "sluice"
    path.write_text(run([PACKAGING / "completion.sh", BUILD], cwd=TREE).stdout, encoding="utf-8")
    return path


def words_of(page):
    """The page as a reader has it, in one line of words."""
    if shutil.which("mandoc"):
        text = run(["mandoc", "-Tutf8", "-Owidth=78", page]).stdout
        text = re.sub(".\b", "", text)
    else:
        text = re.sub(r"\\f[BIR]", "", page.read_text(encoding="utf-8")).replace("\\-", "-").replace("\\(aq", "'")
        text = re.sub(r"^\.\w+ ?", "", text, flags=re.MULTILINE)
    return " ".join(text.replace("\u2010", "-").split())


def commands_of(overview):
    """(command, help) of every line of sluice --help that has a command."""
    body = overview.split("\n\n", 1)[1].split("\nOptions for every command", 1)[0]
    found = []
    for line in body.splitlines():
        match = re.match(r"  (\S.*?)(?:  +(\S.*))?$", line)
        if match:
            found.append(match.groups())
    return found


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("checker", [["mandoc", "-Tlint", "-Wwarning"], ["groff", "-man", "-ww", "-z", "-K", "utf8"]],
                         ids=["mandoc", "groff"])
def test_the_formatters_have_nothing_to_complain_of(pages, page, checker):
    if not shutil.which(checker[0]):
        pytest.skip(f"{checker[0]} is not installed")
    done = run([*checker, pages / page], check=False)
    assert done.returncode == 0 and not done.stdout and not done.stderr, done.stdout + done.stderr


def test_every_command_and_option_of_the_help_is_in_the_page(pages):
    page = words_of(pages / "sluice.8")
    commands = commands_of(run([SLUICE, "--help"]).stdout)
    assert len(commands) > 20
    for command, text in commands:
        assert f"sluice {command}" in page, command
        options = run([SLUICE, *[word for word in command.split() if re.fullmatch('[a-z-]+', word)], "--help"]).stdout
        for option in re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", options, re.MULTILINE):
            assert option in page, (command, option)
        if text and " " in command:
            assert text in page, (command, text)
    for code in range(8):
        assert re.search(rf"EXIT STATUS.* {code} \w", page), code


@pytest.mark.parametrize("page, program", [("sluiced.8", SLUICED), ("sluice-writer.8", WRITER)])
def test_every_option_of_daemon_and_writer_is_in_their_page(pages, page, program):
    words = words_of(pages / page)
    options = re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", run([program, "--help"]).stdout, re.MULTILINE)
    assert len(options) >= 3
    for option in options:
        assert option in words, option


def test_every_key_of_the_config_is_in_its_page_with_its_default(pages):
    words = words_of(pages / "sluice.conf.5")
    example = (TREE / "docs" / "sluice.conf.example").read_text(encoding="utf-8")
    keys = re.findall(r"^\t+(\w+) = ([^;]+);", example, re.MULTILINE)
    keys += [(key, re.sub(r" +", " ", value)) for key, value in re.findall(r"^\t(\w+): *(\{[^}]*\});", example, re.MULTILINE)]
    assert len(keys) > 30
    for key, value in keys:
        assert f"{key} = {value}" in words, key


def test_a_key_without_an_explanation_does_not_get_into_a_package(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "sluice.conf.example").write_text("gate:\n{\n\tsecret_knob = 1;\n};\n", encoding="utf-8")
    done = run([PACKAGING / "man-page.sh", PACKAGING / "man" / "sluice.conf.5.in", BUILD, "1", "2026-11-22"], cwd=tmp_path, check=False)
    assert done.returncode != 0 and "secret_knob has no explanation" in done.stderr


# --- completion --------------------------------------------------------------------------------------------------------
def complete(completion, *words, program=SLUICE):
    """What the completion function offers for the last of `words`."""
    script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sluice; printf "%s\\n" "${COMPREPLY[@]}"'
    done = run(["bash", "--norc", "-c", script, "bash", completion, program, *words], check=False)
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("words, expected", [
    (["sa"], {"sale"}),
    (["sale", "cr"], {"create"}),
    (["sale", "create", "drop-11", "--op"], {"--opens"}),
    (["sale", "create", "--stock", "5", "--sto"], set()),
    (["attach", "--mode", ""], {"auto", "native", "generic"}),
    (["attach", "--mode", "=", "g"], {"generic"}),
    (["-o", ""], {"table", "json"}),
    (["verify", "--re"], {"--repair"}),
    (["verify", "-o", "j"], {"json"}),
    (["limit", "set", "so"], {"source"}),
    (["limit", "shadow", "a"], {"all", "answer"}),
    (["limit", "shadow", "all", "o"], {"on", "off"}),
    (["help", "sto"], {"stock"}),
    (["nonsense", ""], set()),
])
def test_words_are_completed(completion, words, expected):
    assert set(complete(completion, *words)) == expected


@pytest.mark.parametrize("words, some", [
    (["answer", "set", ""], {"sold_out", "token_expired"}), (["order", "list", "--state", ""], {"held", "refunded"}),
    (["monitor", "--action", ""], {"refused", "handshake"}), (["monitor", "--reason", "rate_"], {"rate_source"})])
def test_what_comes_of_a_fixed_list_is_offered(completion, words, some):
    offered = set(complete(completion, *words))
    assert some <= offered and "none" not in offered


def test_every_command_can_be_completed(completion):
    for command, _ in commands_of(run([SLUICE, "--help"]).stdout):
        words = [word for word in command.split() if re.fullmatch("[a-z-]+", word)]
        for i in range(len(words)):
            assert words[i] in complete(completion, *words[:i], words[i][:1]), command


@pytest.mark.parametrize("command", ["attach", "doctor"])
def test_interfaces_are_offered_where_one_is_wanted(completion, command):
    assert "lo" in complete(completion, command, "")


def test_sales_are_asked_of_the_daemon():
    with World() as world:
        names = {world.sale().slug, world.sale().slug}
        script = world.dir / "completion"
        script.write_text(run([PACKAGING / "completion.sh", BUILD], cwd=TREE).stdout, encoding="utf-8")
        assert set(complete(script, "--socket", world.control_socket, "sale", "show", "")) == names
        assert set(complete(script, "stock", "add", "--socket", world.control_socket, "sale-")) == names
        assert complete(script, "--socket", world.control_socket, "stock", "add", "sale-1", "") == []
        world.ask("PUT", "/v1/lists/deny/192.0.2.0/24", {"label": "night"})
        assert complete(script, "--socket", world.control_socket, "deny", "undo", "") == ["night"]
        assert complete(script, "--socket", world.control_socket, "allow", "undo", "") == []


def test_without_a_daemon_it_is_silent_and_quick(completion):
    began = time.monotonic()
    assert complete(completion, "--socket", "/nonexistent/control.sock", "sale", "show", "") == []
    assert time.monotonic() - began < 2


def test_a_daemon_that_hangs_costs_a_second(completion, tmp_path):
    slow = tmp_path / "sluice"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o755)
    began = time.monotonic()
    assert complete(completion, "sale", "show", "", program=slow) == []
    assert time.monotonic() - began < 5


def test_tab_in_a_real_shell_completes(completion):
    """An interactive bash on a terminal, as an operator has it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"],
                   {**os.environ, "PS1": "ready> ", "TERM": "dumb", "PATH": f"{BUILD}:{os.environ['PATH']}"})
    seen = b""

    def until(what):
        nonlocal seen
        deadline = time.monotonic() + TAB_S
        while what not in seen:
            assert time.monotonic() < deadline, (what, seen)
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096)
        seen = seen.split(what, 1)[1]

    try:
        until(b"ready> ")
        os.write(terminal, b"source '" + os.fsencode(completion) + b"'; echo lo''aded\n")
        until(b"loaded")
        until(b"ready> ")
        os.write(terminal, b"sluice sa\t")
        until(b"sluice sale ")
        os.write(terminal, b"cr\t")
        until(b"create ")
    finally:
        os.kill(pid, 9)
        os.close(terminal)
        os.waitpid(pid, 0)
