# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# `make kernels`: Debian's kernels 6.1 and 6.12 in QEMU, each with the packet tests, whole sales, a virtio NIC and libxdp's dispatcher; table
# and $(BUILD)/kernels/report.json. `make check-kernel`: the quick half of it on 6.1, for `make check`. See docs/kernels.md.

.PHONY: kernels check-kernel

KERNEL_TOOLS := $(BUILD)/kernels/load_gate

$(BUILD)/kernels/load_gate: $(BUILD)/scripts/kernels/load_gate.o $(LIB)
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_COMMON) -o $@

kernels: all $(PACKET) $(KERNEL_TOOLS)
	$(Q)scripts/kernels/run.sh --build $(BUILD)

check-kernel: all $(PACKET) $(KERNEL_TOOLS)
	$(Q)scripts/kernels/run.sh --build $(BUILD) --quick
