# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# What `make bench` needs to measure Sluice beside other programs (tests/bench/peers, docs/peers.md): load generators and small helpers.
PEERS     := $(patsubst %.c,$(BUILD)/%,$(filter-out %.bpf.c,$(wildcard tests/bench/peers/*.c)))
PEERS_BPF := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/bench/peers/*.bpf.c))

.PHONY: peers
peers: $(PEERS) $(PEERS_BPF)

run-bench: peers

$(BUILD)/tests/bench/peers/%.bpf.o: tests/bench/peers/%.bpf.c
	$(call say,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c $< -o $@

$(PEERS): %: %.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_COMMON) -o $@

# What many nodes cost (tests/bench/fleet, docs/fleet-cost.md). By itself, because it takes minutes: the programs of a fleet with a real Redis.
#   make bench-fleet [QUICK=1] [ONLY=capacity|calls|stalls|cost|sales|lists] [WRITE=docs/fleet-cost.md]
FLEET_BENCH := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/bench/fleet/*.c))

.PHONY: bench-fleet run-bench-fleet
bench-fleet: deps-bench
	$(Q)$(MAKE) --no-print-directory run-bench-fleet

run-bench-fleet: all $(FLEET_BENCH)
	$(Q)$(PYTHON) -B tests/bench/fleet/run.py --build $(BUILD) --out $(BUILD)/bench $(if $(QUICK),--quick) $(addprefix --only ,$(ONLY)) $(addprefix --write ,$(WRITE))

$(FLEET_BENCH): %: %.o $(FLEET_LIB) $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_COMMON) $(LIBS_FLEET) -o $@
