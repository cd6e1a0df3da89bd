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
