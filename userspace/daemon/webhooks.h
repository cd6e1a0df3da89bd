/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Webhooks: what becomes of orders and sales, posted to the shop (docs/webhooks.md). Without daemon.webhook_url d->webhooks is NULL, and there
 * are none.
 */
#ifndef SLUICE_DAEMON_WEBHOOKS_H
#define SLUICE_DAEMON_WEBHOOKS_H

#include <jansson.h>
#include <stdio.h>

#include "daemon/daemon.h"

struct webhooks;

/* Reads the secret, or makes it, as the user that the daemon will be. Returns 0 or negative errno with a sentence. */
int webhooks_open(struct daemon *d, char *error, size_t error_size);
/* Starts the thread, which needs a pipeline to ask. Returns 0 or negative errno. */
int webhooks_start(struct daemon *d);
/* Ends what is on its way, writes down how far it has come and ends the thread; before the pipeline stops. */
void webhooks_stop(struct daemon *d);
void webhooks_free(struct daemon *d); /* when no request can ask any more */

/* GET /v1/webhooks. New reference, NULL without memory. */
json_t *webhooks_status(struct daemon *d);
/* Sends an event of the type webhook.test, signed, now, and waits for what becomes of it. New reference, NULL without memory. d->webhooks must be there. */
json_t *webhooks_test(struct daemon *d);
/* Everything that waits is tried at once, also after the receiver has said 410. d->webhooks must be there. */
void webhooks_resume(struct daemon *d);
/* Metrics, if there are webhooks. */
void webhooks_render(struct daemon *d, FILE *out);

#endif
