# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Starts a program under the settings of its systemd unit, where systemd is not process 1.

Unit reads the file; Unit.command() is the command line that starts the program as the unit would: this file run as a script, which
makes the settings true for itself and then executes the program. Applied are User=, Group=, CapabilityBoundingSet=, NoNewPrivileges=,
PrivateNetwork=, SystemCallFilter=, RestrictAddressFamilies=, MemoryDenyWriteExecute= (as a rule on mprotect and mmap), and
ProtectSystem=strict (with ProtectKernelTunables=) with the unit's directories writable. The users need not exist on the machine: /etc/passwd and /etc/group are
replaced in the program's own mount namespace.
"""
import ctypes
import ctypes.util
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve()
UNITS = HERE.parents[2] / "scripts" / "systemd"
CAPABILITY_HEADER = pathlib.Path("/usr/include/linux/capability.h")

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO_EPERM = 0x7FFF0000, 0x00050001
SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ = 4, 7
PROT_WRITE, PROT_EXEC = 2, 4


class Unit:
    """A unit file. Later lines of a list setting add to it, as in systemd; an empty one empties it."""

    def __init__(self, name):
        self.path = UNITS / name
        self.settings = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                values = self.settings.setdefault(key.strip(), [])
                values.append(value.strip())

    def last(self, key, default=""):
        return self.settings.get(key, [default])[-1]

    def is_on(self, key):
        return self.last(key) in ("yes", "true", "1", "on")

    def words(self, key):
        return " ".join(self.settings.get(key, [])).split()

    def bounding_set(self):
        return self.words("CapabilityBoundingSet")

    def system_calls(self):
        """Names allowed by SystemCallFilter=, in systemd's own groups; None if systemd-analyze is not there to name them."""
        if not shutil.which("systemd-analyze"):
            return None
        allowed = set(expand_group("@default"))
        for line in self.settings["SystemCallFilter"]:
            names = {name for word in line.lstrip("~").split() for name in expand_group(word)}
            allowed = allowed - names if line.startswith("~") else allowed | names
        return sorted(allowed)

    def command(self, argv, etc, writable):
        """`etc`: directory with passwd and group. `writable`: what stands for the unit's Runtime-, StateDirectory= and ReadWritePaths=."""
        order = {
            "user": self.last("User"), "group": self.last("Group"), "bounding": self.bounding_set(),
            "no_new_privileges": self.is_on("NoNewPrivileges"), "private_network": self.is_on("PrivateNetwork"),
            "read_only": self.last("ProtectSystem") == "strict",
            "writable": [*(() if self.is_on("ProtectKernelTunables") else ("/proc", "/sys")), *map(str, writable)],
            "system_calls": self.system_calls(), "families": self.words("RestrictAddressFamilies"),
            "no_write_execute": self.is_on("MemoryDenyWriteExecute"), "etc": str(etc),
        }
        return [sys.executable, HERE, json.dumps(order), *argv]


def expand_group(name):
    """The system calls of a group such as @system-service, and of the groups in it."""
    if not name.startswith("@"):
        return [name]
    text = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", name], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    names = [line.strip() for line in text.splitlines()[1:] if line.startswith("    ") and not line.strip().startswith("#")]
    return [call for inner in names for call in expand_group(inner)]


# --- in the child, on the way to the program ---------------------------------------------------------------------------
libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source, target, flags):
    check(libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None), f"mount {target}")


def set_read_only(path, on, recursive):
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY if on else 0, 0 if on else MOUNT_ATTR_RDONLY, 0, 0)
    check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE if recursive else 0,
                       ctypes.byref(attributes), ctypes.sizeof(attributes)), f"mount_setattr {path}")


def capability_numbers():
    return {name: int(number) for name, number in
            re.findall(r"^#define (CAP_[A-Z_]+)\s+(\d+)$", CAPABILITY_HEADER.read_text(encoding="ascii"), re.MULTILINE)}


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def filter_system_calls(order):
    lib = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]
    lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]

    def load(default, rules):
        context = lib.seccomp_init(default)
        for action, name, comparisons in rules:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number == -1:  # newer than this libseccomp, or of another architecture
                continue
            array = (Comparison * max(1, len(comparisons)))(*comparisons)
            lib.seccomp_rule_add_array(context, action, number, len(comparisons), array)
        if lib.seccomp_load(context):
            raise OSError("seccomp_load failed")

    if order["families"]:
        known = {name: value for name, value in vars(socket).items() if name.startswith("AF_")}
        allowed = {int(known[name]) for name in order["families"]}
        load(SCMP_ACT_ALLOW, [(SCMP_ACT_ERRNO_EPERM, "socket", [Comparison(0, SCMP_CMP_EQ, family, 0)])
                              for family in range(46) if family not in allowed])
    if order["no_write_execute"]:
        both = PROT_WRITE | PROT_EXEC
        load(SCMP_ACT_ALLOW, [(SCMP_ACT_ERRNO_EPERM, "mmap", [Comparison(2, SCMP_CMP_MASKED_EQ, both, both)]),
                              (SCMP_ACT_ERRNO_EPERM, "mprotect", [Comparison(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC)])])
    if order["system_calls"] is not None:
        load(SCMP_ACT_ERRNO_EPERM, [(SCMP_ACT_ALLOW, name, []) for name in order["system_calls"]])


def obey(order):
    flags = CLONE_NEWNS | (CLONE_NEWNET if order["private_network"] else 0)
    check(libc.unshare(flags), "unshare")
    mount("none", "/", MS_REC | MS_PRIVATE)
    for name in ("passwd", "group"):
        mount(os.path.join(order["etc"], name), f"/etc/{name}", MS_BIND)
    if order["read_only"]:
        for path in order["writable"]:
            mount(path, path, MS_BIND | MS_REC)
        set_read_only("/", True, recursive=True)
        for path in order["writable"]:
            set_read_only(path, False, recursive=False)
    numbers = capability_numbers()
    keep = {numbers[name] for name in order["bounding"]}
    for number in sorted(set(range(max(numbers.values()) + 1)) - keep):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    if order["user"]:
        import grp  # pylint: disable=import-outside-toplevel
        import pwd  # pylint: disable=import-outside-toplevel
        user, group = pwd.getpwnam(order["user"]), grp.getgrnam(order["group"])
        os.initgroups(user.pw_name, group.gr_gid)
        os.setgid(group.gr_gid)
        os.setuid(user.pw_uid)
    if order["no_new_privileges"]:
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    filter_system_calls(order)


if __name__ == "__main__":
    obey(json.loads(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
