/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Whether this machine has what the config names: users, groups, directories that those users can write. For --check of daemon and writer. */
#ifndef SLUICE_COMMON_CONFIG_HOST_H
#define SLUICE_COMMON_CONFIG_HOST_H

#include "common/config.h"

/* Log what is wrong, with what to do; return how many errors that is. Must be called before the process gives up rights or makes threads. What only root can
 * see is not looked at without root.
 */
unsigned config_check_daemon_host(const struct config *config);
unsigned config_check_writer_host(const struct config *config);

#endif
