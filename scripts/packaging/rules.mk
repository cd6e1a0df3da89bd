# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Man pages, completion, units and the Debian package; and libseccomp, with which daemon and writer close their own system calls.
LIBS_DAEMON += $(call pkg,libseccomp)
LIBS_WRITER += $(call pkg,libseccomp)
LIBS_UNIT   += $(call pkg,libseccomp)
