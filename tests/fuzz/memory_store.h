/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A store as writer/store.h describes it, in memory: the ledger of the target control, so that one input costs no file. */
#ifndef SLUICE_FUZZ_MEMORY_STORE_H
#define SLUICE_FUZZ_MEMORY_STORE_H

#include "writer/store.h"

/* Empty again. One for the process. */
struct store *memory_store_reset(void);
/* Units of the sale that are ordered. */
int64_t memory_store_ordered(uint32_t sale);
/* NULL beyond the last. */
const struct store_sale *memory_store_sale(unsigned index);

#endif
