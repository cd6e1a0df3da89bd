# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# The lease protocol of the fleet under random faults (docs/fleet.md): userspace/fleet/lease.c and the scripts, run against each other.
#   make check-sim      10,000 seeds, and every planted bug found (part of `make check`); SEEDS=n FIRST=n
#   make sim SEED=n     one run, told event by event; PLANT=name with that bug

SIM_BUILD   = $(BUILD)/sim
SIM_CFLAGS  = -std=c17 $(WARN) -Wno-shadow -Wno-clobbered $(CFLAGS) -D_GNU_SOURCE -DLEASE_PLANT_AT_RUN -fno-strict-aliasing -MMD -MP -Iuserspace \
	-Iinclude -I$(BUILD)/gen
SIM_TESTS  := $(patsubst tests/sim/%.c,$(SIM_BUILD)/%,$(wildcard tests/sim/test_*.c))
SIM_O      := $(patsubst tests/sim/%.c,$(SIM_BUILD)/%.o,$(filter-out tests/sim/test_%.c,$(wildcard tests/sim/*.c))) \
	$(addprefix $(SIM_BUILD)/fleet/,lease.o lease_book.o)

.PHONY: check-sim sim

$(SIM_BUILD)/%.o: tests/sim/%.c $(BUILD)/flags | $(BUILD)/gen/fleet_scripts.h
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SIM_CFLAGS) $(call pkg_cflags,lua5.1 jansson) -c $< -o $@

$(SIM_BUILD)/fleet/%.o: userspace/fleet/%.c $(BUILD)/flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SIM_CFLAGS) -c $< -o $@

$(SIM_TESTS): %: %.o $(SIM_O)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(call pkg,lua5.1 cmocka jansson) -lm -o $@

check-sim: $(SIM_TESTS)
	$(Q)scripts/run-tests.sh $(SIM_TESTS)

sim: $(SIM_BUILD)/test_lease
	$(Q)SEED=$(or $(SEED),1) $(SIM_BUILD)/test_lease
