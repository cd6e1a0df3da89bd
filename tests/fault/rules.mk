# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# What breaks, and what must hold all the same. docs/promises.md says what each test shows.
#   make check-fault          200 kill cycles, and every other kind of harm once (part of `make check`, needs root)
#   make soak                 kill cycles for SOAK_SECONDS, or SOAK_CYCLES of them; ends with a count
# SLUICE_FAULT_SEED=n makes the choices of a run with that seed again.

SOAK_SECONDS ?= $(if $(SOAK_CYCLES),,600)

STRIKE       := $(BUILD)/tests/fault/strike.so

.PHONY: check-fault soak

# Not with -D_FORTIFY_SOURCE: it would put other names before the calls that are taken over here.
$(STRIKE): tests/fault/strike.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=c17 $(WARN) -Wno-missing-prototypes -O2 -g -D_GNU_SOURCE -D_LARGEFILE64_SOURCE -shared -fPIC $< -o $@

check-fault: all $(STRIKE)
	$(Q)SLUICE_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -p no:cacheprovider -q -rs tests/fault

soak: all
	$(Q)SLUICE_BUILD=$(abspath $(BUILD)) SOAK_SECONDS=$(SOAK_SECONDS) SOAK_CYCLES=$(SOAK_CYCLES) \
		$(PYTHON) -m pytest -p no:cacheprovider -q -s tests/fault/test_kill.py
