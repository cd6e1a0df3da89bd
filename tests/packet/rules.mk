# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Longer runs of the packet tests.
#   make soak-model     the gate against its model for MODEL_PACKETS frames and calls; prints how often each reason was met (needs root)

MODEL_PACKETS ?= 20000000

.PHONY: soak-model

soak-model: $(BUILD)/tests/packet/test_model
	$(Q)SLUICE_MODEL_PACKETS=$(MODEL_PACKETS) SLUICE_MODEL_REASONS=1 $<
