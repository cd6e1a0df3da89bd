# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# The model of the way of an order, exhausted by spin (README.md).
#   make check-model    every configuration, and every planted defect found (part of `make check`)

.PHONY: check-model

check-model:
	$(Q)tests/model/run.sh $(BUILD)/model
