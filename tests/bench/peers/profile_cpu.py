# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Where the time of the server's CPU goes: perf's samples of chosen threads as folded stacks, as a table of shares, and as a flame graph.

Used by orders.py, which says what is to run meanwhile. `cpu-clock` is sampled, because guests mostly have no hardware counters, so what runs
with interrupts off is counted where they come on again. Our programs are built without frame pointers: a stack in them is its innermost
function alone, and what lies between that and the thread is not drawn. The kernel's stacks are whole.
"""
import collections
import re
import shutil
import subprocess
import xml.sax.saxutils

from lab import Skipped, cpu

SAMPLES_PER_S = 2999  # a prime: no timer of ours goes in step with it
FLAME_WIDTH, ROW_HEIGHT, TITLE_HEIGHT = 1200, 17, 40
CHARACTER = 6.6  # mean width at 11 px
NARROWEST = 0.4  # px: what is narrower is not drawn
# The colour says whose code it is, so that a thin tower can be told from its neighbours.
COLOURS = {"program": "#e69f00", "kernel": "#56b4e9", "bpf": "#009e73", "thread": "#bbbbbb"}


class Recorder:
    """perf on the server's CPU for the length of the block. Left out (lab.Skipped) where perf is not there or may not."""

    def __init__(self, work_dir):
        self.path = work_dir / "perf.data"
        self.perf = shutil.which("perf")
        if not self.perf:
            raise Skipped("perf is not installed (apt-get install linux-perf)")

    def __enter__(self):
        self.process = subprocess.Popen([self.perf, "record", "-q", "-e", "cpu-clock", "-C", str(cpu.server), "-F", str(SAMPLES_PER_S), "-g",
                                         "-o", str(self.path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.process.terminate()  # it writes what it has and ends by the same signal
        self.error = self.process.communicate(timeout=30)[1].strip()
        return False

    def samples(self, threads):
        """Counter of stacks, outermost first, of the threads whose ids are given: ((text, kind), ...) -> samples."""
        done = subprocess.run([self.perf, "script", "-i", str(self.path), "-F", "comm,tid,ip,sym,dso"], capture_output=True, text=True,
                              errors="replace", timeout=120, check=False)
        stacks = fold(done.stdout, threads)
        if not stacks:
            raise Skipped(f"perf has no sample of the server's threads: {self.error or done.stderr.strip()[:200] or 'nothing was said'}")
        return stacks


def frame(line):
    """(text, kind) of a line of `perf script`: address, symbol, (object)."""
    found = re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line)
    symbol, place = found.groups() if found else (line.strip(), "")
    if symbol.startswith("bpf_prog_"):
        return "bpf " + re.sub(r"^bpf_prog_[0-9a-f]{16}_?", "", symbol), "bpf"
    if place.startswith("[kernel") or place.endswith(".ko"):
        return symbol, "kernel"
    return (symbol if symbol != "[unknown]" else f"[{place.rsplit('/', 1)[-1]}]"), "program"


def fold(text, threads):
    """Stacks of what `perf script` printed: a head "comm tid", then a line a frame, innermost first, then an empty line."""
    stacks = collections.Counter()
    for block in text.split("\n\n"):
        head, *lines = block.strip("\n").split("\n")
        found = re.match(r"\s*(.*?)\s+(\d+)\s*$", head)
        if found and found.group(2) in threads:
            stacks[((threads[found.group(2)], "thread"), *map(frame, reversed(lines)))] += 1
    return stacks


def shares(stacks, kinds):
    """[(name, share)], largest first. kinds: [(name, threads or None, symbols or None)], two regular expressions; the first that fits has it.

    A symbol fits if it is anywhere in the stack.
    """
    counts, total = collections.Counter(), sum(stacks.values())
    rules = [(name, thread and re.compile(thread), symbols and re.compile(symbols)) for name, thread, symbols in kinds]
    for stack, number in stacks.items():
        whose, texts = stack[0][0], [text for text, _ in stack[1:]]
        for name, thread, symbols in rules:
            if (not thread or thread.fullmatch(whose)) and (not symbols or any(symbols.fullmatch(text) for text in texts)):
                counts[name] += number
                break
        else:
            counts["the rest"] += number
    return [(name, number / total) for name, number in counts.most_common()]


def write_folded(path, stacks):
    """One line a stack, "thread;outer;...;inner samples", which other programs draw as well."""
    lines = sorted(f"{';'.join(text.replace(';', ':') for text, _ in stack)} {number}" for stack, number in stacks.items())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_flame(path, title, stacks):
    """Flame graph: a box is a function, as wide as the time in it and in what it called; its callers are below, its name and share in the tooltip."""
    total = sum(stacks.values())
    levels, order = collections.defaultdict(list), sorted(stacks)
    depth = max(len(stack) for stack in order)
    for level in range(depth):
        begin, at = None, 0
        for stack in [*order, ()]:
            prefix = stack[:level + 1] if len(stack) > level else None
            if begin and begin[0] != prefix:
                levels[level].append((*begin, at))
                begin = None
            if prefix and not begin:
                begin = (prefix, at)
            at += stacks[stack] if stack else 0
    height = TITLE_HEIGHT + depth * ROW_HEIGHT + 10
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {FLAME_WIDTH} {height}" font-family="monospace" font-size="11">',
             f'<rect width="{FLAME_WIDTH}" height="{height}" fill="#fff"/>',
             f'<text x="10" y="24" font-size="15">{xml.sax.saxutils.escape(title)}</text>']
    for level, boxes in levels.items():
        top = height - 10 - (level + 1) * ROW_HEIGHT
        for stack, start, end in boxes:
            left, width = start * FLAME_WIDTH / total, (end - start) * FLAME_WIDTH / total
            if width < NARROWEST:
                continue
            text, kind = stack[-1]
            fits = int((width - 4) / CHARACTER)
            label = text if len(text) <= fits else (text[:fits - 2] + ".." if fits >= 4 else "")
            parts.append(f'<g><title>{xml.sax.saxutils.escape(text)}: {100 * (end - start) / total:.2f} %</title>'
                         f'<rect x="{left:.2f}" y="{top}" width="{max(width - 0.3, 0.1):.2f}" height="{ROW_HEIGHT - 1}" fill="{COLOURS[kind]}"/>'
                         f'<text x="{left + 2:.2f}" y="{top + 12}">{xml.sax.saxutils.escape(label)}</text></g>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
