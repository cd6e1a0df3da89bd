# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# What breaks, and what must hold all the same. docs/promises.md says what each test shows.
#   make check-fault          200 kill cycles, and every other kind of harm once (part of `make check`, needs root)
#   make soak                 kill cycles for SOAK_SECONDS, or SOAK_CYCLES of them; ends with a count
#   make soak-points          every kind of harm at every call of the writer that writes
# SLUICE_FAULT_SEED=n makes the choices of a run with that seed again.

SOAK_SECONDS ?= $(if $(SOAK_CYCLES),,600)

STRIKE       := $(BUILD)/tests/fault/strike.so

.PHONY: check-fault soak soak-points

# Not with -D_FORTIFY_SOURCE: it would put other names before the calls that are taken over here.
$(STRIKE): tests/fault/strike.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=c17 $(WARN) -Wno-missing-prototypes -O2 -g -D_GNU_SOURCE -D_LARGEFILE64_SOURCE -shared -fPIC $< -o $@

check-fault: all $(STRIKE) planted
	$(Q)SLUICE_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -p no:cacheprovider -q -rfEs tests/fault

soak-points: all $(STRIKE)
	$(Q)SLUICE_BUILD=$(abspath $(BUILD)) SOAK_POINTS=1 $(PYTHON) -m pytest -p no:cacheprovider -q -s tests/fault/test_crash_points.py

soak: all
	$(Q)SLUICE_BUILD=$(abspath $(BUILD)) SOAK_SECONDS=$(SOAK_SECONDS) SOAK_CYCLES=$(SOAK_CYCLES) \
		$(PYTHON) -m pytest -p no:cacheprovider -q -s tests/fault/test_kill.py

# --- planted bugs -----------------------------------------------------------------------------------------------------
# Each name of include/sluice/plant.h gives $(PLANTED)/NAME/ with all programs, of which one is built with the bug: only the files that mention
# it are compiled again.
PLANTED       := $(BUILD)/planted
PLANTS        := $(shell sed -n 's/^\tX.\([a-z_]*\),.*/\1/p' include/sluice/plant.h)
plant_sources  = $(shell grep -l 'planted($(1))' bpf/*.h userspace/daemon/*.c userspace/writer/*.c)
plant_objects  = $(patsubst %.c,$(PLANTED)/$(1)/%.o,$(filter %.c,$(if $(filter bpf/%,$(2)),userspace/cli/image.c,$(2))))
# The program's objects less those that are built with the bug, which are given beside them.
plant_rest     = $(filter-out $(patsubst $(PLANTED)/$(1)/%,$(BUILD)/%,$(2)),$(3))

# NAME, SOURCES
define plant_rules
$(PLANTED)/$(1)/bpf/gate.bpf.o: $(filter bpf/%,$(2)) include/sluice/plant.h $(BUILD)/bpf/gate.bpf.o
	$$(call say,BPF,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CLANG) $$(BPF_CFLAGS) -DSLUICE_PLANT=$(1) -c bpf/gate.bpf.c -o $$@

$(PLANTED)/$(1)/bpf/gate.skel.h: $(PLANTED)/$(1)/bpf/gate.bpf.o
	$$(call say,SKEL,$$@)
	$$(Q)$$(BPFTOOL) gen skeleton $$< name gate_bpf > $$@

$(PLANTED)/$(1)/%.o: %.c include/sluice/plant.h $(if $(filter bpf/%,$(2)),$(PLANTED)/$(1)/bpf/gate.skel.h) | $(PROGRAMS)
	$$(call say,CC,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) -I$(PLANTED)/$(1)/bpf $$(ALL_CFLAGS) -DSLUICE_PLANT=$(1) $$(call pkg_cflags,libbpf libxdp libconfig jansson libcurl libmicrohttpd sqlite3 hiredis) -c $$< -o $$@

$(PLANTED)/$(1)/done: $(call plant_objects,$(1),$(2)) $(PROGRAMS) $(FLEET_LIB) $(LIB)
	$$(call say,PLANT,$(1))
	$$(Q)mkdir -p $(PLANTED)/$(1)/bpf
	$$(Q)ln -sf $$(abspath $(PROGRAMS)) $(PLANTED)/$(1)/ && ln -sf $$(abspath $(BUILD)/bpf/pass.bpf.o) $(PLANTED)/$(1)/bpf/
	$$(Q)rm -f $(PLANTED)/$(1)/$(if $(filter bpf/%,$(2)),sluice,$(if $(filter userspace/daemon/%,$(firstword $(2))),sluiced,sluice-writer))
	$$(Q)$$(CC) $$(ALL_LDFLAGS) $$(CFLAGS) $(call plant_objects,$(1),$(2)) $(strip \
		$(if $(filter bpf/%,$(2)),$(call plant_rest,$(1),$(call plant_objects,$(1),$(2)),$(CLI_O)) $(LIB) $$(LIBS_CLI) -o $(PLANTED)/$(1)/sluice,\
		$(if $(filter userspace/daemon/%,$(firstword $(2))),$(call plant_rest,$(1),$(call plant_objects,$(1),$(2)),$(DAEMON_O)) $(FLEET_LIB) $(LIB) $$(LIBS_DAEMON) -o $(PLANTED)/$(1)/sluiced,\
		$(call plant_rest,$(1),$(call plant_objects,$(1),$(2)),$(WRITER_O)) $(FLEET_LIB) $(LIB) $$(LIBS_WRITER) -o $(PLANTED)/$(1)/sluice-writer)))
	$$(Q)touch $$@
endef
$(foreach plant,$(PLANTS),$(eval $(call plant_rules,$(plant),$(call plant_sources,$(plant)))))

.PHONY: planted

planted: $(PLANTS:%=$(PLANTED)/%/done)
